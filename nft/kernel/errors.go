package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

// sentinel is an error that is always the same.
type sentinel string

// Error returns the text.
func (e sentinel) Error() string { return string(e) }

const (
	// errComment is the error of a comment that nft would not print or the kernel not take.
	errComment sentinel = "the comment is too long"
	// errUnknown is the error of a commit of which it is not known whether it was done.
	errUnknown sentinel = "the kernel's answer was lost: unknown whether it was done"
	// errTorn is the error of a dump during which the ruleset changed.
	errTorn sentinel = "the ruleset changed while it was read"
)

// Numbers of enum nlmsgerr_attrs and of the flags of NLMSG_ERROR, which package unix does not name.
const (
	errAttrMessage = 1
	errAttrOffset  = 2
	errCapped      = 0x100
	errTLVs        = 0x200
)

// A reply is what an NLMSG_ERROR message says; its error is nil for an ack.
type reply struct {
	seq    uint32
	err    error
	text   string
	offset int // where in the message the attribute that was refused begins; 0 if not said
}

// parseReply reads an NLMSG_ERROR message, headers included.
func parseReply(msg wire.Message) (reply, bool) {
	const body = unix.SizeofNlMsghdr + 4 + unix.SizeofNlMsghdr
	if len(msg) < body {
		return reply{}, false
	}
	r := reply{seq: msg.Seq(), err: msg.Err()}
	flags := msg.Flags()
	if flags&errTLVs == 0 {
		return r, true
	}
	rest := msg[body:]
	if flags&errCapped == 0 {
		n := int(binary.NativeEndian.Uint32(msg[unix.SizeofNlMsghdr+4:])) - unix.SizeofNlMsghdr
		if n < 0 || wire.Align(n) > len(rest) {
			return r, true
		}
		rest = rest[wire.Align(n):]
	}
	for typ, data := range wire.Attrs(rest) {
		switch {
		case typ == errAttrMessage:
			r.text = string(wire.CString(data))
		case typ == errAttrOffset && len(data) == 4:
			r.offset = int(binary.NativeEndian.Uint32(data))
		}
	}
	return r, true
}

// refused returns the error for a reply to a message of a batch: which step of the transaction it was
// that the kernel refused.
func (b *Batch) refused(tx nft.Tx, r reply) error {
	i := int(r.seq - b.first)
	if i < 0 || i >= len(b.marks) || b.marks[i].step < 0 {
		// The kernel says so when it refuses all of the batch, or the whole at the end.
		if r.text != "" {
			return fmt.Errorf("the transaction as a whole: %w (%s)", r.err, r.text)
		}
		return fmt.Errorf("the transaction as a whole: %w", r.err)
	}
	op, ok := b.stepAt(tx, i, r.offset)
	if !ok {
		return fmt.Errorf("a step that is not in the transaction any more: %w", r.err)
	}
	return &nft.RefusedError{Op: op, Err: r.err, Text: r.text}
}

// stepAt returns a copy of the step that a place in a message is from.
func (b *Batch) stepAt(tx nft.Tx, message, offset int) (nft.Op, bool) {
	msg := b.message(message)
	key, isList := elementAt(msg, offset)
	n := -1
	for op := range tx {
		n++
		switch {
		case n < b.marks[message].step:
			continue
		case !isList:
			return copyOp(op), true
		case op.Element == nil || protocol(op.Family) != msg[unix.SizeofNlMsghdr]:
			continue
		}
		attributes := msg[headers:]
		if string(wire.CString(wire.Find(attributes, unix.NFTA_SET_ELEM_LIST_TABLE))) == op.Name &&
			string(wire.CString(wire.Find(attributes, unix.NFTA_SET_ELEM_LIST_SET))) == op.Set.Name &&
			bytes.Equal(elementKey(appendElement(nil, &op)[wire.AttrHeaderSize:]), key) {
			return copyOp(op), true
		}
	}
	return nft.Op{}, false
}

// message returns message i of the batch.
func (b *Batch) message(i int) []byte {
	end := len(b.buf)
	if i+1 < len(b.marks) {
		end = b.marks[i+1].offset
	}
	return b.buf[b.marks[i].offset:end]
}

// elementAt returns the key, as it was sent, of the element that stands at a place in a message, and
// whether the message holds elements. For a place before all elements it is the first: the kernel
// did not say which it was.
func elementAt(msg wire.Message, offset int) (key []byte, ok bool) {
	typ := msg.Type()
	if typ != nftType(unix.NFT_MSG_NEWSETELEM) && typ != nftType(unix.NFT_MSG_DELSETELEM) {
		return nil, false
	}
	elements := wire.Find(msg[headers:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	// elements aliases msg, so what is left behind both says where it begins.
	at := cap(msg) - cap(elements)
	for _, data := range wire.Attrs(elements) {
		if key != nil && at > offset {
			break
		}
		key = elementKey(data)
		at += wire.Align(wire.AttrHeaderSize + len(data))
	}
	return key, key != nil
}

// elementKey returns the attributes of an element's key and of the end of its interval.
func elementKey(element []byte) []byte {
	key := wire.Find(element, unix.NFTA_SET_ELEM_KEY)
	return append(key[:len(key):len(key)], wire.Find(element, attrElemKeyEnd)...)
}

// copyOp returns a step that shares nothing that the iteration may change.
func copyOp(op nft.Op) nft.Op {
	if op.Table != nil {
		t := nft.Table{Family: op.Table.Family, Name: op.Table.Name, Comment: op.Table.Comment}
		op.Table = &t
	}
	if op.Chain != nil {
		c := *op.Chain
		op.Chain = &c
	}
	if op.Set != nil {
		s := *op.Set
		op.Set = &s
	}
	if op.Element != nil {
		e := *op.Element
		op.Element = &e
	}
	return op
}
