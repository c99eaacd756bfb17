package kernel

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// attrHeader is the size of the header of a netlink attribute.
const attrHeader = 4

// align rounds a length up to what netlink aligns messages and attributes to.
func align(n int) int { return (n + 3) &^ 3 }

// pad appends zeros up to the alignment of netlink.
func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// appendHeader appends the header of an attribute with n bytes of data.
func appendHeader(b []byte, typ uint16, n int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+n))
	return binary.NativeEndian.AppendUint16(b, typ)
}

// appendBytes appends an attribute with any data.
func appendBytes(b []byte, typ uint16, data []byte) []byte {
	return pad(append(appendHeader(b, typ, len(data)), data...))
}

// appendString appends an attribute with a string that ends in a zero.
func appendString(b []byte, typ uint16, s string) []byte {
	b = append(appendHeader(b, typ, len(s)+1), s...)
	return pad(append(b, 0))
}

// appendUint32 appends an attribute with a number in network byte order.
func appendUint32(b []byte, typ uint16, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(b, typ, 4), n)
}

// appendUint64 appends an attribute with a number in network byte order.
func appendUint64(b []byte, typ uint16, n uint64) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(b, typ, 8), n)
}

// openNested appends the header of an attribute that holds others and returns where it stands, for
// closeNested.
func openNested(b []byte, typ uint16) ([]byte, int) {
	return appendHeader(b, typ|unix.NLA_F_NESTED, 0), len(b)
}

// closeNested writes the length of the attribute that stands at start: it reaches to the end of b.
func closeNested(b []byte, start int) {
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
}

// attrs yields the attributes in b: their types, without flags, and their data, which alias b. It
// ends at the first that is cut off, so what comes from elsewhere than the kernel does no harm.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attrHeader {
			n := int(binary.NativeEndian.Uint16(b))
			if n < attrHeader || n > len(b) {
				return
			}
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(typ, b[attrHeader:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// find returns the data of the first attribute of a type; nil if there is none.
func find(b []byte, typ uint16) []byte {
	for t, data := range attrs(b) {
		if t == typ {
			return data
		}
	}
	return nil
}

// number returns the number in network byte order that is all of b; 0 if b has another length.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// cString returns the bytes before the first zero.
func cString(b []byte) []byte {
	for i, c := range b {
		if c == 0 {
			return b[:i]
		}
	}
	return b
}
