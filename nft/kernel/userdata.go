package kernel

import (
	"encoding/binary"
	"iter"

	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

// User data are bytes that the kernel keeps for user space, a list of type, length and data with a
// byte each for type and length (libnftnl's include/libnftnl/udata.h names the types). nft keeps the
// comments there and what "typeof" said.
const (
	// Of tables, chains, rules and elements.
	udComment = 0
	// Of sets.
	udKeyByteorder  = 0
	udDataByteorder = 1
	udKeyTypeof     = 3
	udDataTypeof    = 4
	udDataInterval  = 6
	udSetComment    = 7
	// udFields is ours, far from the numbers that nft counts up from zero and unknown to it: the
	// fields as package nft names them. A set that lists as "type ipv4_addr" does not say which
	// address is meant, nor a "typeof numgen" that it stands for a hash.
	udFields = 0xe0

	// Of each part of what "typeof" said.
	udExprType = 0
	udExprData = 1
)

// appendUD32 appends a number in host byte order as user data.
func appendUD32(b []byte, typ byte, n uint32) []byte {
	return binary.NativeEndian.AppendUint32(append(b, typ, 4), n)
}

// appendUDString appends a string that ends in a zero as user data.
func appendUDString(b []byte, typ byte, s string) []byte {
	b = append(append(b, typ, byte(len(s)+1)), s...)
	return append(b, 0)
}

// openUD appends the header of user data that hold others and returns where they stand, for closeUD.
func openUD(b []byte, typ byte) ([]byte, int) { return append(b, typ, 0), len(b) }

// closeUD writes the length of the user data that stand at start.
func closeUD(b []byte, start int) { b[start+1] = byte(len(b) - start - 2) }

// userdata yields the types and data in b, up to the first that is cut off.
func userdata(b []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for len(b) >= 2 {
			n := 2 + int(b[1])
			if n > len(b) || !yield(b[0], b[2:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// comment returns the string of a type in user data; nil if there is none.
func comment(b []byte, typ byte) []byte {
	for t, data := range userdata(b) {
		if t == typ {
			return wire.CString(data)
		}
	}
	return nil
}

// appendComment appends an attribute with user data that hold a comment, if there is one.
func appendComment(b []byte, attr uint16, comment string) []byte {
	if comment == "" {
		return b
	}
	b = wire.AppendHeader(b, attr, len(comment)+3)
	return wire.Pad(appendUDString(b, udComment, comment))
}

// maxComment is the length of the longest comment that nft prints (NFTNL_UDATA_COMMENT_MAXLEN less
// the final zero).
const maxComment = 127

// Attributes that package unix does not name.
const (
	attrTableUserdata = 6  // NFTA_TABLE_USERDATA
	attrChainUserdata = 12 // NFTA_CHAIN_USERDATA
	attrElemKeyEnd    = 10 // NFTA_SET_ELEM_KEY_END
	attrDescConcat    = 2  // NFTA_SET_DESC_CONCAT
	attrFieldLen      = 1  // NFTA_SET_FIELD_LEN
	setConcat         = 0x80
	opDelete          = 2 // NFT_DYNSET_OP_DELETE
	verdictDrop       = 0 // NF_DROP
	verdictAccept     = 1 // NF_ACCEPT
)

// nftType returns the type of a netlink message of the nftables subsystem.
func nftType(msg int) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | uint16(msg) }
