package nft

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxComment is the longest comment in bytes that nft reads back (NFTNL_UDATA_COMMENT_MAXLEN is 128
// with the zero at the end).
const maxComment = 127

// ClipComment returns s as a comment that nft lists and loads again: valid UTF-8 of at most 127
// bytes, with no quotes, backslashes or control characters. What is cut off leaves an ellipsis.
func ClipComment(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r == '\\':
			return '/'
		case r == utf8.RuneError || unicode.IsControl(r):
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxComment {
		return s
	}
	const ellipsis = "..."
	n := maxComment - len(ellipsis)
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + ellipsis
}

// quote returns a string in nft's quotes, which know no escapes.
func quote(s string) string { return `"` + strings.ReplaceAll(s, `"`, `'`) + `"` }

// ElementString returns an element of s as nft lists it.
func (s *Set) ElementString(f Family, e *Element) string {
	return string(s.AppendElement(nil, f, e))
}

// AppendElement appends what ElementString returns to b.
func (s *Set) AppendElement(b []byte, f Family, e *Element) []byte {
	b = s.appendKey(b, f, e)
	if e.Comment != "" {
		b = append(b, " comment "...)
		b = append(b, quote(e.Comment)...)
	}
	switch {
	case s.IsVerdictMap():
		b = append(b, " : "...)
		b = append(b, e.Verdict.String()...)
	case s.IsMap():
		b = append(b, " : "...)
		b = appendFields(b, f, s.Data, e.Data.Bytes())
	}
	return b
}

// appendKey appends the key of an element, which in an interval set ends in a prefix or a range.
func (s *Set) appendKey(b []byte, f Family, e *Element) []byte {
	if !s.Interval || e.End.Len() != e.Key.Len() || len(s.Key) == 0 {
		return appendFields(b, f, s.Key, e.Key.Bytes())
	}
	last := len(s.Key) - 1
	cut := e.Key.Len() - s.Key[last].size(f)
	if cut < 0 {
		return appendFields(b, f, s.Key, e.Key.Bytes())
	}
	from, to := e.Key.Bytes()[cut:], e.End.Bytes()[cut:]
	b = appendFields(b, f, s.Key[:last], e.Key.Bytes()[:cut])
	if last > 0 {
		b = append(b, " . "...)
	}
	b = appendField(b, s.Key[last], from)
	if n, ok := prefixLength(from, to); !ok {
		b = append(b, '-')
		b = appendField(b, s.Key[last], to)
	} else if n < 8*len(from) {
		b = append(b, '/')
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return b
}

// prefixLength returns the length of the prefix whose first and last values are from and to, and
// whether there is one.
func prefixLength(from, to []byte) (int, bool) {
	n := 0
	for i := range from {
		host := from[i] ^ to[i]
		n += bits.LeadingZeros8(host)
		if host == 0 {
			continue
		}
		// What differs must be the lowest bits, zero in from and one in to, in all bytes that follow.
		if host&(host+1) != 0 || from[i]&host != 0 || !rest(from[i+1:], 0) || !rest(to[i+1:], 0xff) {
			return 0, false
		}
		return n, true
	}
	return n, true
}

// rest reports whether all bytes are c.
func rest(b []byte, c byte) bool {
	for _, x := range b {
		if x != c {
			return false
		}
	}
	return true
}

// appendFields appends the fields of a value with dots between them.
func appendFields(b []byte, f Family, fields []Field, value []byte) []byte {
	for i, field := range fields {
		if i > 0 {
			b = append(b, " . "...)
		}
		n := min(field.size(f), len(value))
		b = appendField(b, field, value[:n])
		value = value[n:]
	}
	return b
}

// size returns how many bytes of a Value the field takes.
func (k Field) size(f Family) int {
	switch k.Kind {
	case SAddr, DAddr:
		if f == IPv6 {
			return 16
		}
		return 4
	case L4Proto, DPort, TCPDPort, UDPDPort, SCTPDPort, Random, Hash, Turn, SourceHash, Priority:
		return 4
	case Verdicts, UnknownField:
	}
	return 0
}

// Size returns how many bytes a Value of the fields takes.
func Size(f Family, fields []Field) int {
	n := 0
	for _, field := range fields {
		n += field.size(f)
	}
	return n
}

// appendField appends one field of a value. A value that is too short prints as a question mark.
func appendField(b []byte, k Field, v []byte) []byte {
	if len(v) < 4 {
		return append(b, '?')
	}
	switch k.Kind {
	case SAddr, DAddr:
		a, _ := netip.AddrFromSlice(v)
		return a.AppendTo(b)
	case L4Proto:
		return appendProto(b, v[0])
	case DPort, TCPDPort, UDPDPort, SCTPDPort:
		return strconv.AppendUint(b, uint64(binary.BigEndian.Uint16(v)), 10)
	case Random, Hash, Turn, SourceHash:
		return strconv.AppendUint(b, uint64(binary.NativeEndian.Uint32(v)), 10)
	case Priority:
		return appendPriority(b, binary.NativeEndian.Uint32(v))
	case Verdicts, UnknownField:
	}
	return append(b, '?')
}

// appendProto appends a protocol by its name if it is one that a Service can have.
func appendProto(b []byte, p uint8) []byte {
	switch p {
	case 6:
		return append(b, "tcp"...)
	case 17:
		return append(b, "udp"...)
	case 132:
		return append(b, "sctp"...)
	}
	return strconv.AppendUint(b, uint64(p), 10)
}

// appendPriority appends a packet's priority; nft has a word for zero.
func appendPriority(b []byte, n uint32) []byte {
	if n == 0 {
		return append(b, "none"...)
	}
	b = strconv.AppendUint(b, uint64(n>>16), 16)
	b = append(b, ':')
	return strconv.AppendUint(b, uint64(n&0xffff), 16)
}

// compareKeys orders keys with fields in host byte order.
func (s *Set) compareKeys(f Family, a, b *Value) int {
	x, y := a.Bytes(), b.Bytes()
	at := 0
	for _, k := range s.Key {
		n := k.size(f)
		if at+n > min(len(x), len(y)) || n == 0 {
			break
		}
		var c int
		if hostOrder(k) {
			c = cmp.Compare(binary.NativeEndian.Uint32(x[at:]), binary.NativeEndian.Uint32(y[at:]))
		} else {
			c = bytes.Compare(x[at:at+n], y[at:at+n])
		}
		if c != 0 {
			return c
		}
		at += n
	}
	return a.Compare(b)
}
