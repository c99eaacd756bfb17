// Package wire is the bytes of netlink: messages, attributes, and a socket that neither copies nor waits.
//
// github.com/mdlayher/netlink opens the socket; but it copies each message that it sends, and reads answers into new
// memory. What the kernel says is there when a message is sent, so nobody needs to wait for it.
package wire

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// receiveSize is the size of the buffer for answers. The kernel fills as much as it is shown, up to
	// 32 KiB, with each part of a dump.
	receiveSize = 1 << 16
	// sendSlack is what a message takes in the socket's buffer beyond its own length.
	sendSlack = 1 << 12
)

// A Socket is a socket of the kernel's netlink, for one goroutine.
type Socket struct {
	// Conn and Raw are the same socket, for options, groups and deadlines.
	Conn *netlink.Conn
	Raw  syscall.RawConn
	// Seq is the last sequence number in use, for whoever makes the messages.
	Seq uint32

	room int // how long a message the send buffer takes
	in   []byte
}

// Open opens a socket of a netlink protocol in a network namespace: a file descriptor of it, or 0 for that of the
// calling thread. The kernel keeps up to queue bytes of answers for us, in which no request is repeated.
func Open(protocol, netns, queue int) (*Socket, error) {
	nl, err := netlink.Dial(protocol, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, err
	}
	s := &Socket{Conn: nl, in: make([]byte, receiveSize)}
	if err = nl.SetOption(netlink.CapAcknowledge, true); err != nil {
		err = fmt.Errorf("have acks without the request: %w", err)
	} else if err = nl.SetReadBuffer(queue); err != nil {
		err = fmt.Errorf("enlarge the receive buffer: %w", err)
	} else {
		s.Raw, err = nl.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(err, nl.Close())
	}
	return s, nil
}

// Close closes the socket; nil is closed.
func (s *Socket) Close() error {
	if s == nil {
		return nil
	}
	return s.Conn.Close()
}

// Send hands messages to the kernel at once, in a send buffer that is made large enough. The kernel has dealt with
// them when it returns.
func (s *Socket) Send(b []byte) error {
	if len(b)+sendSlack > s.room {
		room := 2 * (len(b) + sendSlack)
		if err := s.Conn.SetWriteBuffer(room); err != nil {
			return fmt.Errorf("enlarge the send buffer to %d bytes: %w", room, err)
		}
		s.room = room
	}
	var err error
	if e := s.Raw.Write(func(fd uintptr) bool {
		err = retry(func() error { return unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
		return true
	}); e != nil {
		return e
	}
	return err
}

// Receive reads one datagram, which is valid until the next call. It waits for nothing: the error is EAGAIN if there
// is none, ENOBUFS if some were lost, EMSGSIZE if it was cut off.
func (s *Socket) Receive() ([]byte, error) { return s.receive(false) }

// Wait is Receive, but waits for a datagram.
func (s *Socket) Wait() ([]byte, error) { return s.receive(true) }

// receive reads one datagram.
func (s *Socket) receive(wait bool) ([]byte, error) {
	var n int
	var err error
	if e := s.Raw.Read(func(fd uintptr) bool {
		err = retry(func() (err error) {
			n, _, err = unix.Recvfrom(int(fd), s.in, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			return err
		})
		return !wait || !errors.Is(err, unix.EAGAIN)
	}); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	if n > len(s.in) {
		return nil, fmt.Errorf("read an answer of %d bytes: %w", n, unix.EMSGSIZE)
	}
	return s.in[:n], nil
}

// Drain throws away what an earlier request, broken off, left to read.
func (s *Socket) Drain() error {
	for {
		_, err := s.Receive()
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
