package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// sendQueue and receiveQueue are how many bytes the kernel takes at once and keeps for us: room for the
	// longest batch, and for an error from each of its steps.
	sendQueue    = 1 << 20
	receiveQueue = 4 << 20
	// receiveSize is the size of the buffer for answers. The kernel fills as much as it is shown, up to
	// 32 KiB, with each part of a dump.
	receiveSize = 1 << 16
)

// familyName is the name of IPVS's netlink family.
const familyName = "IPVS"

// A socket sends batches over netlink.
type socket struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	in   []byte
	seq  uint32 // the last sequence number in use; they never come again, so old answers are known
}

// openGeneric opens a socket for generic netlink, and returns the number of the family of IPVS as well. Asking
// for it has the kernel load ip_vs. The error is ENOENT if there is none.
func openGeneric() (*socket, uint16, error) {
	s, err := open(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, 0, err
	}
	f, err := genetlink.NewConn(s.conn).GetFamily(familyName)
	if err != nil {
		return nil, 0, errors.Join(err, s.close())
	}
	return s, f.ID, nil
}

// openRoute opens a socket for addresses.
func openRoute() (*socket, error) { return open(unix.NETLINK_ROUTE) }

// open opens a socket of a netlink protocol.
func open(protocol int) (*socket, error) {
	nl, err := netlink.Dial(protocol, nil)
	if err != nil {
		return nil, err
	}
	s := &socket{conn: nl, in: make([]byte, receiveSize)}
	s.raw, err = nl.SyscallConn()
	err = errors.Join(err, nl.SetOption(netlink.CapAcknowledge, true), nl.SetReadBuffer(receiveQueue), nl.SetWriteBuffer(sendQueue))
	if err != nil {
		return nil, errors.Join(err, nl.Close())
	}
	// Sequence numbers of others on this socket, as GetFamily's, are small or random: begin elsewhere.
	s.seq = 1 << 16
	return s, nil
}

// close closes the socket.
func (s *socket) close() error { return s.conn.Close() }

// do sends a batch and returns the errors of the steps that failed, by step. The error is for all steps: it is
// not known what was done.
//
// Only the last message asks for an answer if it succeeds, since each answer costs as much as a step.
func (s *socket) do(b *batch) (map[int]error, error) {
	b.acknowledge()
	s.seq += uint32(len(b.steps))
	if err := s.send(b.buf); err != nil {
		return nil, fmt.Errorf("send %d steps: %w", len(b.steps), err)
	}
	errs := map[int]error{}
	for {
		answer, err := s.receive()
		if err != nil {
			return nil, fmt.Errorf("read what became of %d steps: %w", len(b.steps), err)
		}
		if b.read(answer, errs) {
			return errs, nil
		}
	}
}

// read reads an answer into errs and reports whether it is the last one for the batch. Anything that is no answer
// to the batch is passed over.
func (b *batch) read(answer []byte, errs map[int]error) bool {
	for msg := range messages(answer) {
		i := int(binary.NativeEndian.Uint32(msg[8:]) - b.first)
		if binary.NativeEndian.Uint16(msg[4:]) != unix.NLMSG_ERROR || len(msg) < unix.SizeofNlMsghdr+4 || i >= len(b.steps) {
			continue
		}
		if err := status(msg); err != nil {
			errs[b.steps[i]] = err
		}
		if i == len(b.steps)-1 {
			return true
		}
	}
	return false
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

// receive reads one datagram without waiting: what the kernel has to say is there. The result is valid until the
// next call.
func (s *socket) receive() ([]byte, error) {
	var n int
	var err error
	if e := s.raw.Read(func(fd uintptr) bool {
		err = retry(func() (err error) {
			n, _, err = unix.Recvfrom(int(fd), s.in, unix.MSG_DONTWAIT)
			return err
		})
		return true
	}); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	return s.in[:n], nil
}

// retry calls f again for as long as a signal interrupts it.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// sortedKeys returns the keys of a map, sorted.
func sortedKeys(m map[int]error) []int { return slices.Sorted(maps.Keys(m)) }
