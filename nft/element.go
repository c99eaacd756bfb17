package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

// MaxValue is the longest key or value that we use, in bytes: an IPv6 front end with a client's
// address (16 + 4 + 4 + 16).
const MaxValue = 40

// A Value is a key or a value of an element, as the kernel keeps it: each field begins at a multiple
// of four bytes, as in the registers of nf_tables. Addresses and ports are in network byte order;
// what Random, Hash and Priority produce is in the byte order of the host. It is comparable, so it
// serves as a map key.
type Value struct {
	n uint8
	b [MaxValue]byte
}

// Addr returns v with an address appended.
func (v Value) Addr(a netip.Addr) Value {
	if a.Is4() {
		b := a.As4()
		return v.append(b[:], 4)
	}
	b := a.As16()
	return v.append(b[:], 16)
}

// Proto returns v with a protocol number (IPPROTO_*) appended.
func (v Value) Proto(p uint8) Value { return v.append([]byte{p}, 4) }

// Port returns v with a port appended.
func (v Value) Port(p uint16) Value {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return v.append(b[:], 4)
}

// Uint32 returns v with a number in host byte order appended: a Random, Hash or Priority field.
func (v Value) Uint32(n uint32) Value {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], n)
	return v.append(b[:], 4)
}

// append adds b and pads the field to size bytes.
func (v Value) append(b []byte, size int) Value {
	if int(v.n)+size > MaxValue {
		panic("nft: value too long")
	}
	copy(v.b[v.n:], b)
	v.n += uint8(size)
	return v
}

// ValueOf returns a Value with the bytes b. It panics if there are more than MaxValue.
func ValueOf(b []byte) Value {
	if len(b) > MaxValue {
		panic("nft: value too long")
	}
	v := Value{n: uint8(len(b))}
	copy(v.b[:], b)
	return v
}

// Len returns the length in bytes.
func (v *Value) Len() int { return int(v.n) }

// Bytes returns the bytes of v. The slice aliases v.
func (v *Value) Bytes() []byte { return v.b[:v.n] }

// Compare orders values by their bytes.
func (v *Value) Compare(o *Value) int { return bytes.Compare(v.Bytes(), o.Bytes()) }

// An Element is an element of a set or of a map.
type Element struct {
	Key Value
	// End is the last key of the interval in an interval set (each field as in Key, but the last);
	// empty elsewhere.
	End Value
	// Data is the value in a data map; empty elsewhere.
	Data Value
	// Verdict is the value in a verdict map; its Kind is NoVerdict elsewhere.
	Verdict Verdict
	// Comment tells a person what the element is for. At most 127 bytes (NFTNL_UDATA_COMMENT_MAXLEN
	// minus the final zero); see [ClipComment].
	Comment string
}
