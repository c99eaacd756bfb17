package kernel

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/mdlayher/genetlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft/wire"
)

// receiveQueue is how many bytes of answers the kernel may keep for us: room for an error from each step of the
// longest batch.
const receiveQueue = 4 << 20

// familyName is the name of IPVS's netlink family.
const familyName = "IPVS"

// A socket sends batches over netlink. Its sequence numbers never come again, so old answers are known.
type socket struct{ *wire.Socket }

// openGeneric opens a socket for generic netlink, and returns the number of the family of IPVS as well. Asking
// for it has the kernel load ip_vs. The error is ENOENT if there is none.
func openGeneric() (*socket, uint16, error) {
	s, err := open(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, 0, err
	}
	f, err := genetlink.NewConn(s.Conn).GetFamily(familyName)
	if err != nil {
		return nil, 0, errors.Join(err, s.Close())
	}
	return s, f.ID, nil
}

// openRoute opens a socket for addresses.
func openRoute() (*socket, error) { return open(unix.NETLINK_ROUTE) }

// open opens a socket of a netlink protocol.
func open(protocol int) (*socket, error) {
	s, err := wire.Open(protocol, 0, receiveQueue)
	if err != nil {
		return nil, err
	}
	// Sequence numbers of others on this socket, as GetFamily's, are small or random: begin elsewhere.
	s.Seq = 1 << 16
	return &socket{s}, nil
}

// do sends a batch and returns the errors of the steps that failed, by step. The error is for all steps: it is
// not known what was done.
//
// Only the last message asks for an answer if it succeeds, since each answer costs as much as a step.
func (s *socket) do(b *batch) (map[int]error, error) {
	b.acknowledge()
	s.Seq += uint32(len(b.steps))
	if err := s.Send(b.buf); err != nil {
		return nil, fmt.Errorf("send %d steps: %w", len(b.steps), err)
	}
	errs := map[int]error{}
	for {
		answer, err := s.Receive()
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
	for msg := range wire.Messages(answer) {
		i := int(msg.Seq() - b.first)
		if msg.Type() != unix.NLMSG_ERROR || len(msg) < wire.HeaderSize+4 || i >= len(b.steps) {
			continue
		}
		if err := msg.Err(); err != nil {
			errs[b.steps[i]] = err
		}
		if i == len(b.steps)-1 {
			return true
		}
	}
	return false
}

// sortedKeys returns the keys of a map, sorted.
func sortedKeys(m map[int]error) []int { return slices.Sorted(maps.Keys(m)) }
