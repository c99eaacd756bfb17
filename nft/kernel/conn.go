package kernel

import (
	"errors"
	"fmt"
	"sync"

	"github.com/mdlayher/netlink"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

const (
	// receiveQueue is how many bytes of answers the kernel may keep for us: room for an error from
	// each message of a large batch.
	receiveQueue = 8 << 20
	// tornReads is how often a table is read again that changed under our hands.
	tornReads = 20
)

// Config says where to connect to.
type Config struct {
	// NetNS is a file descriptor of the network namespace, 0 for that of the calling thread.
	NetNS int
	// Keys makes Load fast where sets are large; nil for none.
	Keys Keys
}

// Stats says how much there was to send.
type Stats struct {
	Bytes    int
	Messages int // including the two that begin and end a batch
}

// A socket is what a Conn needs of [wire.Socket]; the tests have another.
type socket interface {
	Send(b []byte) error
	Receive() ([]byte, error)
	Close() error
}

// A Conn is a lasting connection to nf_tables. Its methods may be called from several goroutines; they
// take turns.
type Conn struct {
	mu    sync.Mutex // protects all below
	sock  socket
	seq   uint32 // the last sequence number in use; they never come again, so old answers are known
	batch Batch
	last  Stats
	keys  Keys
	ahead ahead
	// gen is the generation that the ruleset has if nobody but us changed it since the last Load; 0
	// before that.
	gen uint32
}

// An ahead is what was read before it was asked for; without a name, nothing.
type ahead struct {
	name   string
	tables []nft.Table
}

// Dial connects to nf_tables. It changes nothing.
func Dial(cfg Config) (*Conn, error) {
	s, err := wire.Open(unix.NETLINK_NETFILTER, cfg.NetNS, receiveQueue)
	if err != nil {
		return nil, fmt.Errorf("connect to nf_tables: %w", err)
	}
	if err := s.Conn.SetOption(netlink.ExtendedAcknowledge, true); err != nil {
		return nil, errors.Join(fmt.Errorf("have nf_tables say what it refuses: %w", err), s.Close())
	}
	c := newConn(s)
	c.keys = cfg.Keys
	return c, nil
}

// newConn returns a Conn that uses a socket.
func newConn(s socket) *Conn { return &Conn{sock: s} }

// Close closes the connection. The tables stay.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sock.Close()
}

// LastCommit returns how much the last Commit sent.
func (c *Conn) LastCommit() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Commit does all of a transaction or nothing. The error is a [*nft.RefusedError] if the kernel
// refused a step. After any other error the caller must Load: what the kernel answered may be lost.
func (c *Conn) Commit(tx nft.Tx) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.batch.shrink()
	c.ahead = ahead{}
	if tx == nil {
		return nil
	}
	if err := c.batch.encode(tx, c.seq+1); err != nil {
		return err
	}
	if c.batch.empty() {
		return nil
	}
	c.last = c.batch.Stats()
	c.seq += uint32(c.last.Messages)
	if err := c.sock.Send(c.batch.buf); err != nil {
		return fmt.Errorf("send a transaction of %d bytes: %w", c.last.Bytes, err)
	}
	refused, err := c.answers()
	if refused != nil {
		return c.batch.refused(tx, *refused)
	}
	if err != nil {
		return fmt.Errorf("commit %d messages: %w", c.last.Messages, err)
	}
	c.gen++
	return nil
}

// answers reads all that the kernel says to the batch: the refusal of a step, if there is one. It is
// done only if the ack for the last message came and no error.
func (c *Conn) answers() (refused *reply, err error) {
	acked, lost := false, false
	ack := c.seq - 1 // BATCH_END follows it
	for {
		answer, err := c.sock.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost = true
			continue
		case errors.Is(err, unix.EAGAIN):
			switch {
			case refused != nil:
				return refused, nil
			case lost || !acked:
				return nil, errUnknown
			}
			return nil, nil
		case err != nil:
			return nil, err
		}
		for msg := range wire.Messages(answer) {
			if msg.Type() != unix.NLMSG_ERROR {
				continue
			}
			r, ok := parseReply(msg)
			if !ok || r.seq-c.batch.first >= uint32(len(c.batch.marks)) {
				continue // of an earlier batch
			}
			switch {
			case r.err == nil:
				acked = acked || r.seq == ack
			case refused == nil:
				refused = &r
			}
		}
	}
}
