// Package kernel reads and deletes entries of Linux's connection tracking, over netlink.
//
// It streams: it holds no more than what the kernel hands over at once, whatever the number of entries.
// Start reading at [Conn.DeleteUDP].
package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
)

// receiveSize is the size of the buffers for answers. The kernel fills as much as it is shown, up to
// 32 KiB, with each part of a dump.
const receiveSize = 1 << 16

// receiveQueue is how many bytes of answers the kernel may keep for us.
const receiveQueue = 4 << 20

// Config says where to connect to.
type Config struct {
	// NetNS is a file descriptor of the network namespace, 0 for that of the calling thread.
	NetNS int
}

// A Conn is a lasting connection to connection tracking, for one goroutine.
type Conn struct {
	dump, edit socket
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
	for _, s := range []*socket{&c.dump, &c.edit} {
		if err := s.open(cfg); err != nil {
			return nil, errors.Join(fmt.Errorf("connect to conntrack: %w", err), c.Close())
		}
	}
	return c, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return errors.Join(c.dump.close(), c.edit.close()) }

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
		err := c.each(ctx, f, to, func(msg []byte) {
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
func (c *Conn) each(ctx context.Context, f nft.Family, to netip.AddrPort, visit func(msg []byte), pause func() error) error {
	s := &c.dump
	s.seq++
	if err := s.drain(); err != nil {
		return err
	}
	if err := s.send(dumpRequest(protocol(f), s.seq, to)); err != nil {
		return fmt.Errorf("ask for entries: %w", err)
	}
	for done := false; !done; {
		part, err := s.receive()
		if err != nil {
			return fmt.Errorf("read entries: %w", err)
		}
		for msg := range messages(part) {
			switch typ := binary.NativeEndian.Uint16(msg[4:]); {
			case binary.NativeEndian.Uint32(msg[8:]) != s.seq:
			case typ == unix.NLMSG_DONE, typ == unix.NLMSG_ERROR:
				done, err = true, status(msg)
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
	s := &c.edit
	deleted = c.doomed.count
	last := c.doomed.finish(s.seq)
	s.seq = last
	if err := s.send(c.doomed.buf); err != nil {
		return 0, fmt.Errorf("send %d deletions: %w", deleted, err)
	}
	for {
		part, err := s.receive()
		if err != nil {
			return 0, fmt.Errorf("delete %d entries: %w", deleted, err)
		}
		for msg := range messages(part) {
			if binary.NativeEndian.Uint16(msg[4:]) != unix.NLMSG_ERROR {
				continue
			}
			switch e := status(msg); {
			case errors.Is(e, unix.ENOENT):
				deleted--
			case e != nil:
				deleted--
				err = fmt.Errorf("delete an entry: %w", e)
			}
			if binary.NativeEndian.Uint32(msg[8:]) == last {
				return deleted, err
			}
		}
		if err != nil {
			return deleted, errors.Join(err, s.drain())
		}
	}
}

// A socket is a netlink socket that reads into one buffer.
type socket struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	in   []byte
	seq  uint32 // the last sequence number in use
}

// open connects the socket.
func (s *socket) open(cfg Config) (err error) {
	if s.conn, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: cfg.NetNS}); err != nil {
		return err
	}
	s.in = make([]byte, receiveSize)
	if err := s.conn.SetReadBuffer(receiveQueue); err != nil {
		return err
	}
	// The answer to a deletion need not repeat it.
	if err := s.conn.SetOption(netlink.CapAcknowledge, true); err != nil {
		return err
	}
	s.raw, err = s.conn.SyscallConn()
	return err
}

// close closes the socket, if it is open.
func (s *socket) close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// send hands messages to the kernel, which has dealt with them when it returns.
func (s *socket) send(b []byte) error {
	var err error
	if e := s.raw.Write(func(fd uintptr) bool {
		err = retry(func() error { return unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
		return true
	}); e != nil {
		return e
	}
	return err
}

// receive reads one datagram without waiting: what the kernel has to say is there. The result is valid
// until the next call.
func (s *socket) receive() ([]byte, error) {
	var n int
	var err error
	if e := s.raw.Read(func(fd uintptr) bool {
		err = retry(func() (err error) {
			n, _, err = unix.Recvfrom(int(fd), s.in, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			return err
		})
		return true
	}); e != nil {
		return nil, e
	}
	if err == nil && n > len(s.in) {
		err = fmt.Errorf("an answer of %d bytes is too long", n)
	}
	if err != nil {
		return nil, err
	}
	return s.in[:n], nil
}

// drain throws away what an earlier request, broken off, left to read.
func (s *socket) drain() error {
	for {
		_, err := s.receive()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return err
		}
	}
}

// retry calls f again for as long as a signal interrupts it.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
