package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

// lift returns the statements that lower makes these expressions of; one nft.Unknown if there are none.
func lift(f nft.Family, exprs []expr.Any) []nft.Stmt {
	var stmts []nft.Stmt
	for rest := exprs; len(rest) > 0; {
		s := reading(f, rest)
		if s == nil {
			return []nft.Stmt{nft.Unknown{Text: describe(exprs)}}
		}
		// A reading may be careless: it counts only if lower makes the same of it.
		again, err := lower(f, []nft.Stmt{s})
		if err != nil || len(again) > len(rest) || !reflect.DeepEqual(again, rest[:len(again)]) {
			return []nft.Stmt{nft.Unknown{Text: describe(exprs)}}
		}
		stmts = append(stmts, s)
		rest = rest[len(again):]
	}
	return stmts
}

// describe returns the kinds of expressions, for a person.
func describe(exprs []expr.Any) string {
	var words []string
	for _, e := range exprs {
		words = append(words, strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e), "*expr.")))
	}
	return "expressions " + strings.Join(words, " ")
}

// at returns expression i if it is a T; the zero T if it is not.
func at[T any](exprs []expr.Any, i int) (t T, ok bool) {
	if i < len(exprs) {
		e, is := any(exprs[i]).(*T)
		if is {
			return *e, true
		}
	}
	return t, false
}

// reading returns what the first expressions may mean; nil for nothing of ours.
func reading(f nft.Family, exprs []expr.Any) nft.Stmt {
	switch e := exprs[0].(type) {
	case *expr.Verdict:
		return readVerdict(e)
	case *expr.Reject:
		return nft.Reject{}
	case *expr.Masq:
		return nft.Masquerade{}
	case *expr.Fib:
		if e.FlagSADDR {
			return nft.MatchLocal{Field: nft.Field{Kind: nft.SAddr}}
		}
		return nft.MatchLocal{Field: nft.Field{Kind: nft.DAddr}}
	case *expr.Ct:
		if e.Key == expr.CtKeySTATUS {
			return nft.MatchDNATed{}
		}
		return nft.MatchNew{}
	case *expr.Immediate:
		return nft.ClearPriority{}
	}
	if s := readBits(exprs); s != nil {
		return s
	}
	if s := readMatch(f, exprs); s != nil {
		return s
	}
	return readLookup(f, exprs)
}

// readVerdict reads a verdict; nil if it is none of ours.
func readVerdict(e *expr.Verdict) nft.Stmt {
	if v, ok := verdictOf(int32(e.Kind), e.Chain); ok {
		return nft.Do{Verdict: v}
	}
	return nil
}

// verdictOf returns the verdict that the kernel has a number for.
func verdictOf(code int32, chain string) (v nft.Verdict, ok bool) {
	for _, kind := range []nft.VerdictKind{nft.Accept, nft.Drop, nft.Jump, nft.Goto} {
		if c, _ := verdictCode(kind); c == code {
			return nft.Verdict{Kind: kind, Chain: chain}, true
		}
	}
	return nft.Verdict{}, false
}

// readBits reads a statement about mark or priority.
func readBits(exprs []expr.Any) nft.Stmt {
	meta, _ := at[expr.Meta](exprs, 0)
	bits, ok := at[expr.Bitwise](exprs, 1)
	if !ok || len(bits.Mask) != 4 || len(bits.Xor) != 4 {
		return nil
	}
	mask, xor := binary.NativeEndian.Uint32(bits.Mask), binary.NativeEndian.Uint32(bits.Xor)
	cmp, isMatch := at[expr.Cmp](exprs, 2)
	switch {
	case isMatch && len(cmp.Data) != 4:
		return nil
	case isMatch && meta.Key == expr.MetaKeyPRIORITY:
		return nft.MatchPriority{Mask: mask, Value: binary.NativeEndian.Uint32(cmp.Data)}
	case isMatch && meta.Key == expr.MetaKeyMARK:
		return nft.MatchMark{Bits: mask}
	case isMatch || meta.Key != expr.MetaKeyMARK:
		return nil
	case mask == ^uint32(0):
		return nft.FlipMark{Bits: xor}
	}
	return nft.SetMark{Bits: xor}
}

// readMatch reads a comparison of an address or of an interface.
func readMatch(f nft.Family, exprs []expr.Any) nft.Stmt {
	n := 1
	bits, masked := at[expr.Bitwise](exprs, n)
	if masked {
		n++
	}
	cmp, ok := at[expr.Cmp](exprs, n)
	if !ok {
		return nil
	}
	not := cmp.Op == expr.CmpOpNeq
	if meta, _ := at[expr.Meta](exprs, 0); meta.Key == expr.MetaKeyIIFNAME {
		name := wire.CString(cmp.Data)
		return nft.MatchInput{Name: string(name), Prefix: len(name) == len(cmp.Data), Not: not}
	}
	load, ok := at[expr.Payload](exprs, 0)
	if !ok {
		return nil
	}
	ones := 8 * len(cmp.Data)
	if masked {
		ones = prefixLen(bits.Mask)
	}
	field := nft.Field{Kind: nft.DAddr}
	p := program{family: f}
	if src, _ := p.address(nft.Field{Kind: nft.SAddr}); load.Offset == src {
		field.Kind = nft.SAddr
	}
	_, size := p.address(field)
	addr := make([]byte, size)
	copy(addr, cmp.Data)
	a, _ := netip.AddrFromSlice(addr)
	return nft.MatchPrefix{Field: field, Prefix: netip.PrefixFrom(a, ones), Not: not}
}

// prefixLen returns the number of ones at the beginning of a mask.
func prefixLen(mask []byte) int {
	for i := range 8 * len(mask) {
		if mask[i/8]&(0x80>>(i%8)) == 0 {
			return i
		}
	}
	return 8 * len(mask)
}

// readLookup reads a statement that begins with the loads of a key.
func readLookup(f nft.Family, exprs []expr.Any) nft.Stmt {
	port := nft.Field{Kind: nft.DPort}
	if cmp, ok := at[expr.Cmp](exprs, 1); ok {
		// tcp dport set ip daddr . meta l4proto . tcp dport map @affinity-ports
		for _, kind := range []nft.FieldKind{nft.TCPDPort, nft.UDPDPort, nft.SCTPDPort} {
			if proto, _, _ := transport(kind); bytes.Equal(cmp.Data, []byte{proto}) {
				port.Kind = kind
			}
		}
		exprs = exprs[2:]
	}
	key, n := readKey(f, exprs, port)
	if e, ok := at[expr.Dynset](exprs, n); ok {
		u := readUpdate(key, e)
		if e.Operation == opDelete {
			return nft.DeleteElement{Map: u.Map, Key: u.Key, Data: u.Data}
		}
		return u
	}
	lookup, ok := at[expr.Lookup](exprs, n)
	switch {
	case !ok:
		return nil
	case !lookup.IsDestRegSet:
		return nft.Lookup{Key: key, Set: lookup.SetName, Not: lookup.Invert}
	case lookup.DestRegister == unix.NFT_REG_VERDICT:
		return nft.VerdictMap{Key: key, Map: lookup.SetName}
	}
	return readMap(f, key, lookup.SetName, port, exprs[n+1:])
}

// readMap reads a statement that looked up a value; rest is what follows the lookup.
func readMap(f nft.Family, key []nft.Field, name string, port nft.Field, rest []expr.Any) nft.Stmt {
	if len(rest) == 0 {
		return nil
	}
	dnat := nft.DNAT{Key: key, Map: name}
	switch e := rest[0].(type) {
	case *expr.NAT:
		return dnat
	case *expr.Meta:
		if e.SourceRegister {
			return nft.SetField{Field: nft.Field{Kind: nft.Priority}, Key: key, Map: name}
		}
	case *expr.Payload:
		switch {
		case e.OperationType != expr.PayloadWrite:
		case e.Base == expr.PayloadBaseTransportHeader:
			return nft.SetField{Field: port, Key: key, Map: name}
		default:
			return nft.SetField{Field: nft.Field{Kind: nft.DAddr}, Key: key, Map: name}
		}
	}
	client, n := readKey(f, rest, port)
	if e, ok := at[expr.Dynset](rest, n); ok {
		return nft.AffinityDNAT{Update: readUpdate(client, e), DNAT: dnat}
	}
	return nil
}

// readUpdate reads an update of a dynamic map. The last field that was loaded before is the value.
func readUpdate(fields []nft.Field, e expr.Dynset) nft.Update {
	u := nft.Update{Map: e.SetName, Timeout: e.Timeout}
	if n := len(fields); n > 0 {
		u.Key, u.Data = fields[:n-1], fields[n-1]
	}
	return u
}

// readKey reads the loads of a key and returns how many expressions they are. Which field a port is
// depends on what stands before.
func readKey(f nft.Family, exprs []expr.Any, port nft.Field) (key []nft.Field, n int) {
	p := program{family: f}
	for ; n < len(exprs); n++ {
		var field nft.Field
		switch e := exprs[n].(type) {
		case *expr.Payload:
			src, _ := p.address(nft.Field{Kind: nft.SAddr})
			switch {
			case e.OperationType == expr.PayloadWrite:
				return key, n
			case e.Base == expr.PayloadBaseTransportHeader:
				field = port
			case e.Offset == src:
				field.Kind = nft.SAddr
			default:
				field.Kind = nft.DAddr
			}
		case *expr.Meta:
			switch {
			case e.SourceRegister:
				return key, n
			case e.Key == expr.MetaKeyPRIORITY:
				field.Kind = nft.Priority
			default:
				field.Kind = nft.L4Proto
			}
		case *expr.Numgen:
			field = nft.Field{Kind: nft.Random, N: e.Modulus}
			if e.Type == unix.NFT_NG_INCREMENTAL {
				field.Kind = nft.Turn
			}
		case *expr.Hash:
			// It takes the place of what it hashed: the client's address alone, or with the front end.
			if _, address := p.address(nft.Field{Kind: nft.SAddr}); e.Length == address {
				key = key[:max(len(key)-1, 0)]
				field = nft.Field{Kind: nft.SourceHash, N: e.Modulus}
				break
			}
			key = key[:max(len(key)-1-len(nft.FrontEndKey()), 0)]
			field = nft.Field{Kind: nft.Hash, N: e.Seed}
		default:
			return key, n
		}
		key = append(key, field)
	}
	return key, n
}
