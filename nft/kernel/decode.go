package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

// decodeTable returns the name and the comment of a table from the attributes of NFT_MSG_NEWTABLE.
func decodeTable(b []byte) (name, text string) {
	return string(wire.CString(wire.Find(b, unix.NFTA_TABLE_NAME))), string(comment(wire.Find(b, attrTableUserdata), udComment))
}

// decodeChain returns a chain, without rules, and the name of its table from the attributes of
// NFT_MSG_NEWCHAIN.
func decodeChain(b []byte) (table string, c nft.Chain) {
	for typ, data := range wire.Attrs(b) {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			table = string(wire.CString(data))
		case unix.NFTA_CHAIN_NAME:
			c.Name = string(wire.CString(data))
		case unix.NFTA_CHAIN_HOOK:
			c.Base = &nft.Base{
				Type:     nft.ChainType(wire.CString(wire.Find(b, unix.NFTA_CHAIN_TYPE))),
				Hook:     nft.Hook(number(wire.Find(data, unix.NFTA_HOOK_HOOKNUM))),
				Priority: int32(number(wire.Find(data, unix.NFTA_HOOK_PRIORITY))),
			}
		case attrChainUserdata:
			c.Comment = string(comment(data, udComment))
		}
	}
	if p := wire.Find(b, unix.NFTA_CHAIN_POLICY); c.Base != nil && p != nil && number(p) != verdictAccept {
		// Ours all accept; nothing else of the chain could say that this one does not.
		c.Base.Type += " (policy drop)"
	}
	return table, c
}

// decodeRule returns a rule and the names of its table and chain from the attributes of
// NFT_MSG_NEWRULE.
func decodeRule(f nft.Family, b []byte) (table, chain string, r nft.Rule) {
	for typ, data := range wire.Attrs(b) {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			table = string(wire.CString(data))
		case unix.NFTA_RULE_CHAIN:
			chain = string(wire.CString(data))
		case unix.NFTA_RULE_EXPRESSIONS:
			r.Stmts = decodeExprs(f, data)
		case unix.NFTA_RULE_USERDATA:
			r.Comment = string(comment(data, udComment))
		}
	}
	return table, chain, r
}

// decodeExprs returns the statements that a list of expressions means.
func decodeExprs(f nft.Family, b []byte) []nft.Stmt {
	var exprs []expr.Any
	for _, elem := range wire.Attrs(b) {
		name := string(wire.CString(wire.Find(elem, unix.NFTA_EXPR_NAME)))
		e, err := decodeExpr(f, name, wire.Find(elem, unix.NFTA_EXPR_DATA))
		if err != nil {
			return []nft.Stmt{nft.Unknown{Text: err.Error()}}
		}
		exprs = append(exprs, e)
	}
	return lift(f, exprs)
}

// decodeExpr returns an expression as lower would have made it. The library's own list decoder leaves
// out what it does not know, which must not happen here.
func decodeExpr(f nft.Family, name string, data []byte) (expr.Any, error) {
	var e expr.Any
	switch name {
	case "payload":
		e = new(expr.Payload)
	case "meta":
		e = new(expr.Meta)
	case "cmp":
		e = new(expr.Cmp)
	case "bitwise":
		e = new(expr.Bitwise)
	case "lookup":
		e = new(expr.Lookup)
	case "dynset":
		e = new(expr.Dynset)
	case "nat":
		e = new(expr.NAT)
	case "masq":
		e = new(expr.Masq)
	case "reject":
		e = new(expr.Reject)
	case "numgen":
		e = new(expr.Numgen)
	case "hash":
		e = new(expr.Hash)
	case "fib":
		e = new(expr.Fib)
	case "ct":
		e = new(expr.Ct)
	case "immediate":
		return decodeImmediate(data)
	default:
		return nil, fmt.Errorf("expression %q", name)
	}
	if err := expr.Unmarshal(protocol(f), data, e); err != nil {
		return nil, fmt.Errorf("expression %s: %w", name, err)
	}
	return normal(e), nil
}

// decodeImmediate returns a value or a verdict.
func decodeImmediate(b []byte) (expr.Any, error) {
	data := wire.Find(b, unix.NFTA_IMMEDIATE_DATA)
	if verdict := wire.Find(data, unix.NFTA_DATA_VERDICT); verdict != nil {
		code := int32(number(wire.Find(verdict, unix.NFTA_VERDICT_CODE)))
		return &expr.Verdict{Kind: expr.VerdictKind(code), Chain: string(wire.CString(wire.Find(verdict, unix.NFTA_VERDICT_CHAIN)))}, nil
	}
	value := wire.Find(data, unix.NFTA_DATA_VALUE)
	return &expr.Immediate{Register: number(wire.Find(b, unix.NFTA_IMMEDIATE_DREG)), Data: append([]byte(nil), value...)}, nil
}

// normal returns e without what the kernel adds: a range of one address and port, and the flag that
// says that there is a port.
func normal(e expr.Any) expr.Any {
	if nat, ok := e.(*expr.NAT); ok {
		if nat.RegAddrMax == nat.RegAddrMin {
			nat.RegAddrMax = 0
		}
		if nat.RegProtoMax == nat.RegProtoMin {
			nat.RegProtoMax = 0
		}
		if nat.RegProtoMin != 0 {
			nat.Specified = false
		}
	}
	return e
}

// decodeSet returns the definition of a set from the attributes of NFT_MSG_NEWSET. What it does not say
// as we would becomes a set with a key of an unknown kind.
func decodeSet(f nft.Family, b []byte) nft.Set {
	ud := wire.Find(b, unix.NFTA_SET_USERDATA)
	flags := number(wire.Find(b, unix.NFTA_SET_FLAGS))
	s := nft.Set{
		Name:     string(wire.CString(wire.Find(b, unix.NFTA_SET_NAME))),
		Comment:  string(comment(ud, udSetComment)),
		Interval: flags&unix.NFT_SET_INTERVAL != 0,
		Dynamic:  flags&unix.NFT_SET_EVAL != 0,
		Size:     number(wire.Find(wire.Find(b, unix.NFTA_SET_DESC), unix.NFTA_SET_DESC_SIZE)),
	}
	if t := wire.Find(b, unix.NFTA_SET_TIMEOUT); len(t) == 8 {
		s.Timeout = time.Duration(binary.BigEndian.Uint64(t)) * time.Millisecond
	}
	for typ, data := range userdata(ud) {
		if typ == udFields {
			s.Key, data = decodeFields(data)
			s.Data, _ = decodeFields(data)
		}
	}
	again, err := appendSet(nil, f, &s)
	if err != nil || !sameSet(again, b) {
		s.Key, s.Data = []nft.Field{{Kind: nft.UnknownField}}, nil
	}
	return s
}

// decodeFields returns a list of fields from user data, and what follows it.
func decodeFields(b []byte) (fields []nft.Field, rest []byte) {
	if len(b) == 0 {
		return nil, nil
	}
	count, b := int(b[0]), b[1:]
	for range count {
		if len(b) < 2 {
			return nil, nil
		}
		n, size := binary.Uvarint(b[1:])
		if size <= 0 || n > 1<<32-1 {
			return nil, nil
		}
		fields = append(fields, nft.Field{Kind: nft.FieldKind(b[0]), N: uint32(n)})
		b = b[1+size:]
	}
	return fields, b
}

// sameSet reports whether two definitions have the same attributes of those that matter.
func sameSet(a, b []byte) bool {
	// The kernel leaves out flags that are zero.
	if number(wire.Find(a, unix.NFTA_SET_FLAGS)) != number(wire.Find(b, unix.NFTA_SET_FLAGS)) {
		return false
	}
	for _, typ := range []uint16{
		unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_TIMEOUT,
		unix.NFTA_SET_USERDATA,
	} {
		if !bytes.Equal(wire.Find(a, typ), wire.Find(b, typ)) {
			return false
		}
	}
	return true
}

// An elementDecoder reads the elements of a set.
type elementDecoder struct {
	family nft.Family
	set    *nft.Set
	names  map[string]string // of chains, so that each is kept once
}

// decode appends the elements of an NFT_MSG_NEWSETELEM, given as its attributes.
func (d *elementDecoder) decode(elements []nft.Element, b []byte) []nft.Element {
	for _, data := range wire.Attrs(wire.Find(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
		elements = append(elements, nft.Element{})
		d.element(&elements[len(elements)-1], data)
	}
	return elements
}

// element reads one element.
func (d *elementDecoder) element(e *nft.Element, b []byte) {
	for typ, data := range wire.Attrs(b) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = value(wire.Find(data, unix.NFTA_DATA_VALUE))
		case attrElemKeyEnd:
			e.End = value(wire.Find(data, unix.NFTA_DATA_VALUE))
		case unix.NFTA_SET_ELEM_DATA:
			if verdict := wire.Find(data, unix.NFTA_DATA_VERDICT); verdict != nil {
				code := int32(number(wire.Find(verdict, unix.NFTA_VERDICT_CODE)))
				e.Verdict, _ = verdictOf(code, d.name(wire.CString(wire.Find(verdict, unix.NFTA_VERDICT_CHAIN))))
				continue
			}
			e.Data = value(wire.Find(data, unix.NFTA_DATA_VALUE))
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = string(comment(data, udComment))
		}
	}
}

// name returns b as a string that is made once.
func (d *elementDecoder) name(b []byte) string {
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	if d.names == nil {
		d.names = map[string]string{}
	}
	s := string(b)
	d.names[s] = s
	return s
}

// value returns a key or value, with the padding that a single field comes without.
func value(b []byte) nft.Value {
	if len(b) > nft.MaxValue {
		return nft.Value{}
	}
	if len(b)%4 == 0 {
		return nft.ValueOf(b)
	}
	var padded [nft.MaxValue]byte
	copy(padded[:], b)
	return nft.ValueOf(padded[:wire.Align(len(b))])
}

// number returns the number in network byte order that is all of b; 0 if b has another length.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
