package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

// A datatype is what nft and the kernel need to know of the type of a field.
type datatype struct {
	id    uint32 // enum datatypes of nft's include/datatype.h
	size  int    // in bytes, without padding
	order uint32 // enum byteorder: 0 unknown, 1 of the host, 2 big endian
}

// typeVerdict is the data type of verdict maps (NFT_DATA_VERDICT).
const typeVerdict = 0xffffff00

// maxUserdata is NFT_USERDATA_MAXLEN.
const maxUserdata = 256

// typeOf returns the data type of a field; size 0 if it cannot be in a set.
func typeOf(f nft.Family, field nft.Field) datatype {
	switch field.Kind {
	case nft.SAddr, nft.DAddr:
		if f == nft.IPv6 {
			return datatype{id: 8, size: 16, order: 2}
		}
		return datatype{id: 7, size: 4, order: 2}
	case nft.L4Proto:
		return datatype{id: 12, size: 1}
	case nft.DPort:
		return datatype{id: 13, size: 2, order: 2}
	case nft.Random, nft.Hash, nft.Turn, nft.SourceHash:
		return datatype{id: 4, size: 4}
	case nft.Priority:
		return datatype{id: 23, size: 4, order: 1}
	case nft.Verdicts:
		return datatype{id: 1}
	case nft.TCPDPort, nft.UDPDPort, nft.SCTPDPort, nft.UnknownField:
	}
	return datatype{}
}

// layout returns the type and the length of a key or value: of one field as it is, of several the
// types of six bits each and the lengths padded to registers.
func layout(f nft.Family, fields []nft.Field) (typ uint32, size int, err error) {
	for _, field := range fields {
		t := typeOf(f, field)
		if t.size == 0 {
			return 0, 0, fmt.Errorf("field kind %d cannot be in a set", field.Kind)
		}
		typ = typ<<6 | t.id
		if len(fields) == 1 {
			return typ, t.size, nil
		}
		size += wire.Align(t.size)
	}
	if size == 0 || size > nft.MaxValue {
		return 0, 0, fmt.Errorf("%d fields of %d bytes cannot be in a set", len(fields), size)
	}
	return typ, size, nil
}

// setFlags returns the flags of a set (enum nft_set_flags).
func setFlags(s *nft.Set) uint32 {
	var flags uint32
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL | setConcat
	}
	if s.IsMap() {
		flags |= unix.NFT_SET_MAP
	}
	if s.Dynamic {
		flags |= unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
	}
	return flags
}

// appendSet appends the attributes of a set but for the names of set and table and its number.
func appendSet(b []byte, f nft.Family, s *nft.Set) ([]byte, error) {
	keyType, keyLen, err := layout(f, s.Key)
	if err != nil {
		return b, fmt.Errorf("key: %w", err)
	}
	if s.Interval && len(s.Key) == 1 {
		return b, fmt.Errorf("an interval set needs several key fields")
	}
	b = wire.AppendUint32(b, unix.NFTA_SET_FLAGS, setFlags(s))
	b = wire.AppendUint32(b, unix.NFTA_SET_KEY_TYPE, keyType)
	b = wire.AppendUint32(b, unix.NFTA_SET_KEY_LEN, uint32(keyLen))
	switch {
	case s.IsVerdictMap():
		b = wire.AppendUint32(b, unix.NFTA_SET_DATA_TYPE, typeVerdict)
		b = wire.AppendUint32(b, unix.NFTA_SET_DATA_LEN, 0)
	case s.IsMap():
		typ, size, err := layout(f, s.Data)
		if err != nil {
			return b, fmt.Errorf("data: %w", err)
		}
		b = wire.AppendUint32(b, unix.NFTA_SET_DATA_TYPE, typ)
		b = wire.AppendUint32(b, unix.NFTA_SET_DATA_LEN, uint32(size))
	}
	b = appendDesc(b, f, s)
	if s.Timeout > 0 {
		b = binary.BigEndian.AppendUint64(wire.AppendHeader(b, unix.NFTA_SET_TIMEOUT, 8), uint64(s.Timeout.Milliseconds()))
	}
	ud := setUserdata(f, s)
	if len(ud) > maxUserdata || len(s.Comment) > maxComment {
		return b, errComment
	}
	return wire.AppendBytes(b, unix.NFTA_SET_USERDATA, ud), nil
}

// appendDesc appends the size of a set and, for intervals, the lengths of the fields.
func appendDesc(b []byte, f nft.Family, s *nft.Set) []byte {
	if s.Size == 0 && !s.Interval {
		return b
	}
	b, desc := wire.OpenNested(b, unix.NFTA_SET_DESC)
	if s.Size > 0 {
		b = wire.AppendUint32(b, unix.NFTA_SET_DESC_SIZE, s.Size)
	}
	if s.Interval {
		var concat, elem int
		b, concat = wire.OpenNested(b, attrDescConcat)
		for _, field := range s.Key {
			b, elem = wire.OpenNested(b, unix.NFTA_LIST_ELEM)
			b = wire.AppendUint32(b, attrFieldLen, uint32(typeOf(f, field).size))
			wire.CloseNested(b, elem)
		}
		wire.CloseNested(b, concat)
	}
	wire.CloseNested(b, desc)
	return b
}

// setUserdata returns the user data of a set, in the order in which nft writes them.
func setUserdata(f nft.Family, s *nft.Set) []byte {
	b := appendUD32(nil, udKeyByteorder, byteorder(f, s.Key))
	if s.IsMap() {
		b = appendUD32(b, udDataByteorder, byteorder(f, s.Data))
	}
	if needsTypeof(s) {
		b = appendTypeof(b, udKeyTypeof, f, s.Key)
		if s.IsMap() {
			b = appendTypeof(b, udDataTypeof, f, s.Data)
		}
	}
	if s.IsMap() {
		b = appendUD32(b, udDataInterval, 0)
	}
	if s.Comment != "" {
		b = appendUDString(b, udSetComment, s.Comment)
	}
	b, start := openUD(b, udFields)
	for _, fields := range [][]nft.Field{s.Key, s.Data} {
		b = append(b, byte(len(fields)))
		for _, field := range fields {
			b = binary.AppendUvarint(append(b, byte(field.Kind)), uint64(field.N))
		}
	}
	closeUD(b, start)
	return b
}

// byteorder returns nft's byte order of a key or value: that of a single field, none for several.
func byteorder(f nft.Family, fields []nft.Field) uint32 {
	if len(fields) != 1 {
		return 0
	}
	return typeOf(f, fields[0]).order
}

// needsTypeof reports whether the types of the fields alone do not load again: an integer has no
// length, and a map to a classid or an address lists its values only if it knows where they go.
func needsTypeof(s *nft.Set) bool {
	if s.IsMap() && !s.IsVerdictMap() {
		return true
	}
	for _, field := range s.Key {
		switch field.Kind {
		case nft.Random, nft.Hash, nft.Turn, nft.SourceHash, nft.Priority:
			return true
		case nft.SAddr, nft.DAddr, nft.L4Proto, nft.DPort, nft.TCPDPort, nft.UDPDPort, nft.SCTPDPort, nft.Verdicts, nft.UnknownField:
		}
	}
	return false
}

// Numbers of nft's src/expression.c, src/proto.c and src/meta.c that stand for a field in typeof.
const (
	exprVerdict = 1
	exprPayload = 7
	exprMeta    = 9
	exprConcat  = 13
	exprNumgen  = 23

	protoTH  = 11
	protoIP  = 12
	protoIP6 = 13

	thDPort  = 2
	ipSAddr  = 11
	ipDAddr  = 12
	ip6SAddr = 8
	ip6DAddr = 9
)

// appendTypeof appends what "typeof" with these fields leaves in the user data.
func appendTypeof(b []byte, typ byte, f nft.Family, fields []nft.Field) []byte {
	b, start := openUD(b, typ)
	if len(fields) == 1 {
		b = appendTypeofField(b, f, fields[0])
		closeUD(b, start)
		return b
	}
	b = appendUD32(b, udExprType, exprConcat)
	b, list := openUD(b, udExprData)
	for i, field := range fields {
		var elem int
		b, elem = openUD(b, byte(i))
		b = appendTypeofField(b, f, field)
		closeUD(b, elem)
	}
	closeUD(b, list)
	closeUD(b, start)
	return b
}

// appendTypeofField appends one expression of "typeof". All integers stand as "numgen random
// mod 2": the modulus does not matter, and nft 1.0.6 aborts when it reads jhash.
func appendTypeofField(b []byte, f nft.Family, field nft.Field) []byte {
	expr := func(etype uint32, parts ...uint32) []byte {
		b = appendUD32(b, udExprType, etype)
		b, start := openUD(b, udExprData)
		for i, part := range parts {
			b = appendUD32(b, byte(i), part)
		}
		closeUD(b, start)
		return b
	}
	switch field.Kind {
	case nft.SAddr:
		if f == nft.IPv6 {
			return expr(exprPayload, protoIP6, ip6SAddr)
		}
		return expr(exprPayload, protoIP, ipSAddr)
	case nft.DAddr:
		if f == nft.IPv6 {
			return expr(exprPayload, protoIP6, ip6DAddr)
		}
		return expr(exprPayload, protoIP, ipDAddr)
	case nft.DPort:
		return expr(exprPayload, protoTH, thDPort)
	case nft.L4Proto:
		return expr(exprMeta, unix.NFT_META_L4PROTO)
	case nft.Priority:
		return expr(exprMeta, unix.NFT_META_PRIORITY)
	case nft.Random, nft.Hash, nft.Turn, nft.SourceHash:
		return expr(exprNumgen, unix.NFT_NG_RANDOM, 2, 0)
	case nft.Verdicts:
		return expr(exprVerdict)
	case nft.TCPDPort, nft.UDPDPort, nft.SCTPDPort, nft.UnknownField:
	}
	return b
}
