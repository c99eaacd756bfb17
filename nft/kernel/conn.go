package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"github.com/nftproxy/nftproxy/nft"
	"golang.org/x/sys/unix"
)

const (
	// receiveSize is the size of the buffer for answers. The kernel fills as much as it is shown,
	// up to 32 KiB, with each part of a dump.
	receiveSize = 1 << 16
	// receiveQueue is how many bytes of answers the kernel may keep for us: room for an error from
	// each message of a large batch.
	receiveQueue = 8 << 20
	// sendSlack is what a message takes in the socket's buffer beyond its own length.
	sendSlack = 1 << 12
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

// A socket is what a Conn needs of netlink; the tests have another.
type socket interface {
	// send hands messages to the kernel at once.
	send(b []byte) error
	// receive waits for nothing: what the kernel has to say is there when send returns. It
	// returns EAGAIN if there is nothing.
	receive(b []byte) (int, error)
	close() error
}

// A Conn is a lasting connection to nf_tables. Its methods may be called from several goroutines; they
// take turns.
type Conn struct {
	mu    sync.Mutex // protects all below
	sock  socket
	seq   uint32 // the last sequence number in use; they never come again, so old answers are known
	batch Batch
	in    []byte
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
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: cfg.NetNS})
	if err != nil {
		return nil, fmt.Errorf("connect to nf_tables: %w", err)
	}
	s, err := newKernelSocket(nl)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to nf_tables: %w", err), nl.Close())
	}
	c := newConn(s)
	c.keys = cfg.Keys
	return c, nil
}

// newConn returns a Conn that uses a socket.
func newConn(s socket) *Conn { return &Conn{sock: s, in: make([]byte, receiveSize)} }

// Close closes the connection. The tables stay.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sock.close()
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
	if err := c.sock.send(c.batch.buf); err != nil {
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
		n, err := c.sock.receive(c.in)
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
		for msg := range messages(c.in[:n]) {
			if binary.NativeEndian.Uint16(msg[4:]) != unix.NLMSG_ERROR {
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

// messages yields the messages in b, headers included, up to the first that is cut off.
func messages(b []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.SizeofNlMsghdr || n > len(b) || !yield(b[:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// A kernelSocket is a socket of the kernel's netlink. It reads and writes by itself, since netlink.Conn
// copies each message and reads its answers into new memory.
type kernelSocket struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	room int // how long a message the send buffer takes
}

// newKernelSocket sets up a netlink connection.
func newKernelSocket(nl *netlink.Conn) (*kernelSocket, error) {
	for _, o := range []netlink.ConnOption{netlink.ExtendedAcknowledge, netlink.CapAcknowledge} {
		if err := nl.SetOption(o, true); err != nil {
			return nil, fmt.Errorf("set netlink option %d: %w", o, err)
		}
	}
	if err := nl.SetReadBuffer(receiveQueue); err != nil {
		return nil, fmt.Errorf("enlarge the receive buffer: %w", err)
	}
	raw, err := nl.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &kernelSocket{conn: nl, raw: raw}, nil
}

// send sends b as it is, in a send buffer that is made large enough: a transaction cannot be cut.
func (s *kernelSocket) send(b []byte) error {
	if len(b)+sendSlack > s.room {
		room := 2 * (len(b) + sendSlack)
		if err := s.conn.SetWriteBuffer(room); err != nil {
			return fmt.Errorf("enlarge the send buffer to %d bytes: %w", room, err)
		}
		s.room = room
	}
	var err error
	if e := s.raw.Write(func(fd uintptr) bool {
		err = retry(func() error { return unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
		return true
	}); e != nil {
		return e
	}
	return err
}

// receive reads one datagram, if there is one.
func (s *kernelSocket) receive(b []byte) (n int, err error) {
	if e := s.raw.Read(func(fd uintptr) bool {
		err = retry(func() (err error) {
			n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			return err
		})
		return true
	}); e != nil {
		return 0, e
	}
	if n > len(b) {
		return 0, fmt.Errorf("an answer of %d bytes is too long", n)
	}
	return n, err
}

// close closes the socket.
func (s *kernelSocket) close() error { return s.conn.Close() }

// retry calls f again for as long as a signal interrupts it.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
