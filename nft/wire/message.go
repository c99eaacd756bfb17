package wire

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// HeaderSize is the size of the header of a message.
const HeaderSize = unix.SizeofNlMsghdr

// A Message is a netlink message, header included.
type Message []byte

// Messages yields the messages in b, up to the first that is cut off.
func Messages(b []byte) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for len(b) >= HeaderSize {
			n := int(binary.NativeEndian.Uint32(b))
			if n < HeaderSize || n > len(b) || !yield(b[:n]) {
				return
			}
			b = b[min(Align(n), len(b)):]
		}
	}
}

// Type returns the type.
func (m Message) Type() uint16 { return binary.NativeEndian.Uint16(m[4:]) }

// Flags returns the flags.
func (m Message) Flags() uint16 { return binary.NativeEndian.Uint16(m[6:]) }

// Seq returns the sequence number.
func (m Message) Seq() uint32 { return binary.NativeEndian.Uint32(m[8:]) }

// Err returns the error in an NLMSG_ERROR or NLMSG_DONE, where it is a negative number; nil for an ack, and if there
// is no room for one.
func (m Message) Err() error {
	if len(m) < HeaderSize+4 {
		return nil
	}
	if n := int32(binary.NativeEndian.Uint32(m[HeaderSize:])); n < 0 {
		return unix.Errno(-n)
	}
	return nil
}

// Acknowledge asks for an answer to the message even if it succeeds.
func (m Message) Acknowledge() {
	binary.NativeEndian.PutUint16(m[6:], m.Flags()|unix.NLM_F_ACK)
}

// SetSeq writes the sequence number.
func (m Message) SetSeq(seq uint32) { binary.NativeEndian.PutUint32(m[8:], seq) }

// OpenMessage appends the header of a message; CloseMessage must follow.
func OpenMessage(b []byte, typ, flags uint16, seq uint32) []byte {
	b = append(b, 0, 0, 0, 0) // the length
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	return append(b, 0, 0, 0, 0) // from this socket
}

// CloseMessage writes the length of the message that stands at start: it reaches to the end of b.
func CloseMessage(b []byte, start int) {
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
}
