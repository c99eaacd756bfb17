// Package kernel reads and deletes entries of Linux's connection tracking, over netlink.
//
// It streams: it holds no more than what the kernel hands over at once, whatever the number of entries.
// Start reading at [Conn.DeleteUDP].
package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
)

// receiveQueue is how many bytes of answers the kernel may keep for us.
const receiveQueue = 4 << 20

// Config says where to connect to.
type Config struct {
	// NetNS is a file descriptor of the network namespace, 0 for that of the calling thread.
	NetNS int
}

// A Conn is a lasting connection to connection tracking, for one goroutine.
type Conn struct {
	dump, edit *wire.Socket
	// doomed are the deletions that a part of a dump leads to.
	doomed batch
	// late are deletions to be done again with the next look at a family: of entries without a
	// translation. An answer that was under way has made such an entry anew, the other way round, and
	// what the client sends belongs to it.
	late [2]batch
}

// maxLate bounds the deletions that are done again.
const maxLate = 1000

// Dial connects to connection tracking. It changes nothing.
func Dial(cfg Config) (*Conn, error) {
	c := &Conn{}
	for _, s := range []**wire.Socket{&c.dump, &c.edit} {
		var err error
		if *s, err = wire.Open(unix.NETLINK_NETFILTER, cfg.NetNS, receiveQueue); err != nil {
			return nil, errors.Join(fmt.Errorf("connect to conntrack: %w", err), c.Close())
		}
	}
	return c, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return errors.Join(c.dump.Close(), c.edit.Close()) }

// DeleteUDP deletes the UDP entries of a family and of the default zone that are stale, and returns
// their number; see [conntrack.Kernel]. It deletes while it reads; an entry that is made meanwhile may be
// seen or not.
func (c *Conn) DeleteUDP(ctx context.Context, f nft.Family, only []netip.AddrPort, stale func(conntrack.Entry) bool) (int, error) {
	if len(only) == 0 {
		only = []netip.AddrPort{{}}
	}
	c.doomed, c.late[f] = c.late[f], batch{}
	deleted, err := c.delete()
	if err != nil {
		return deleted, fmt.Errorf("delete conntrack entries made by late answers: %w", err)
	}
	for _, to := range only {
		err := c.each(ctx, f, to, func(msg wire.Message) {
			if e, ok := decode(msg); ok && stale(e.Entry) {
				c.doomed.add(protocol(f), e.reply, e.id)
				if e.Responder == e.Destination && c.late[f].count < maxLate {
					c.late[f].add(protocol(f), e.reply, nil)
				}
			}
		}, func() error {
			n, err := c.delete()
			deleted += n
			return err
		})
		if err != nil {
			return deleted, fmt.Errorf("delete stale conntrack entries of family %s: %w", f, err)
		}
	}
	return deleted, nil
}

// each calls visit with the message of each UDP entry of a family that was sent to an address and port, as
// dumpRequest has it, and pause between the parts of the dump.
func (c *Conn) each(ctx context.Context, f nft.Family, to netip.AddrPort, visit func(msg wire.Message), pause func() error) error {
	s := c.dump
	s.Seq++
	if err := s.Drain(); err != nil {
		return err
	}
	if err := s.Send(dumpRequest(protocol(f), s.Seq, to)); err != nil {
		return fmt.Errorf("ask for entries: %w", err)
	}
	for done := false; !done; {
		part, err := s.Receive()
		if err != nil {
			return fmt.Errorf("read entries: %w", err)
		}
		for msg := range wire.Messages(part) {
			switch typ := msg.Type(); {
			case msg.Seq() != s.Seq:
			case typ == unix.NLMSG_DONE, typ == unix.NLMSG_ERROR:
				done, err = true, msg.Err()
			case typ == msgNew:
				visit(msg)
			}
		}
		if err != nil {
			return fmt.Errorf("read entries: %w", err)
		}
		if err := errors.Join(pause(), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

// delete deletes what is doomed and returns how many entries that were. Entries that are gone by
// themselves are no error.
func (c *Conn) delete() (deleted int, err error) {
	if c.doomed.count == 0 {
		return 0, nil
	}
	defer c.doomed.reset()
	s := c.edit
	deleted = c.doomed.count
	s.Seq = c.doomed.finish(s.Seq)
	if err := s.Send(c.doomed.buf); err != nil {
		return 0, fmt.Errorf("send %d deletions: %w", deleted, err)
	}
	for {
		part, err := s.Receive()
		if err != nil {
			return 0, fmt.Errorf("delete %d entries: %w", deleted, err)
		}
		for msg := range wire.Messages(part) {
			if msg.Type() != unix.NLMSG_ERROR {
				continue
			}
			switch e := msg.Err(); {
			case errors.Is(e, unix.ENOENT):
				deleted--
			case e != nil:
				deleted--
				err = fmt.Errorf("delete an entry: %w", e)
			}
			if msg.Seq() == s.Seq {
				return deleted, err
			}
		}
		if err != nil {
			return deleted, errors.Join(err, s.Drain())
		}
	}
}
