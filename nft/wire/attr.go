package wire

import (
	"bytes"
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"
)

// AttrHeaderSize is the size of the header of an attribute.
const AttrHeaderSize = 4

// Align rounds a length up to what netlink aligns messages and attributes to.
func Align(n int) int { return (n + 3) &^ 3 }

// Pad appends zeros up to the alignment of netlink.
func Pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// AppendHeader appends the header of an attribute with n bytes of data.
func AppendHeader(b []byte, typ uint16, n int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(AttrHeaderSize+n))
	return binary.NativeEndian.AppendUint16(b, typ)
}

// AppendBytes appends an attribute with any data.
func AppendBytes(b []byte, typ uint16, data []byte) []byte {
	return Pad(append(AppendHeader(b, typ, len(data)), data...))
}

// AppendString appends an attribute with a string that ends in a zero.
func AppendString(b []byte, typ uint16, s string) []byte {
	b = append(AppendHeader(b, typ, len(s)+1), s...)
	return Pad(append(b, 0))
}

// AppendUint16 appends an attribute with a number in network byte order.
func AppendUint16(b []byte, typ, n uint16) []byte {
	return Pad(binary.BigEndian.AppendUint16(AppendHeader(b, typ, 2), n))
}

// AppendUint32 appends an attribute with a number in network byte order.
func AppendUint32(b []byte, typ uint16, n uint32) []byte {
	return binary.BigEndian.AppendUint32(AppendHeader(b, typ, 4), n)
}

// AppendNativeUint16 appends an attribute with a number in the byte order of the machine.
func AppendNativeUint16(b []byte, typ, n uint16) []byte {
	return Pad(binary.NativeEndian.AppendUint16(AppendHeader(b, typ, 2), n))
}

// AppendNativeUint32 appends an attribute with a number in the byte order of the machine.
func AppendNativeUint32(b []byte, typ uint16, n uint32) []byte {
	return binary.NativeEndian.AppendUint32(AppendHeader(b, typ, 4), n)
}

// AppendAddr appends an attribute with an address.
func AppendAddr(b []byte, typ uint16, a netip.Addr) []byte {
	b = AppendHeader(b, typ, a.BitLen()/8)
	if a.Is4() {
		v := a.As4()
		return append(b, v[:]...)
	}
	v := a.As16()
	return append(b, v[:]...)
}

// OpenNested appends the header of an attribute that holds others and returns where it stands, for
// CloseNested.
func OpenNested(b []byte, typ uint16) ([]byte, int) {
	return AppendHeader(b, typ|unix.NLA_F_NESTED, 0), len(b)
}

// CloseNested writes the length of the attribute that stands at start: it reaches to the end of b.
func CloseNested(b []byte, start int) {
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
}

// Attrs yields the attributes in b: their types, without flags, and their data, which alias b. It
// ends at the first that is cut off, so what comes from elsewhere than the kernel does no harm.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= AttrHeaderSize {
			n := int(binary.NativeEndian.Uint16(b))
			if n < AttrHeaderSize || n > len(b) {
				return
			}
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(typ, b[AttrHeaderSize:n]) {
				return
			}
			b = b[min(Align(n), len(b)):]
		}
	}
}

// Find returns the data of the first attribute of a type; nil if there is none.
func Find(b []byte, typ uint16) []byte {
	for t, data := range Attrs(b) {
		if t == typ {
			return data
		}
	}
	return nil
}

// CString returns the bytes before the first zero.
func CString(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return b
}
