package kernel

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/netns"

	"github.com/google/go-cmp/cmp"
	"github.com/nftproxy/nftproxy/nft"
	"pgregory.net/rapid"
)

// anyKey draws the fields of a key.
func anyKey(t *rapid.T) []nft.Field {
	kinds := []nft.FieldKind{nft.SAddr, nft.DAddr, nft.L4Proto, nft.DPort, nft.Random, nft.Priority, nft.Hash, nft.Turn, nft.SourceHash}
	var key []nft.Field
	words := 0
	for _, kind := range rapid.SliceOfN(rapid.SampledFrom(kinds), 1, 4).Draw(t, "kinds") {
		field := nft.Field{Kind: kind}
		switch kind {
		case nft.Random, nft.Hash, nft.Turn, nft.SourceHash:
			field.N = rapid.Uint32Range(1, 1<<32-1).Draw(t, "n")
		case nft.SAddr, nft.DAddr:
			words += 3
		}
		if words++; words > 8 || kind == nft.Hash && words > 5 {
			break
		}
		key = append(key, field)
	}
	return key
}

// anyStmt draws a statement that can be programmed for a family.
func anyStmt(t *rapid.T, f nft.Family) nft.Stmt {
	number := func() uint32 { return rapid.Uint32Range(1, 1<<32-2).Draw(t, "number") }
	address := nft.Field{Kind: rapid.SampledFrom([]nft.FieldKind{nft.SAddr, nft.DAddr}).Draw(t, "address")}
	not := rapid.Bool().Draw(t, "not")
	name := rapid.StringMatching(`[a-z0-9-]{1,15}`).Draw(t, "name")
	client := []nft.Field{{Kind: nft.SAddr}, {Kind: nft.DAddr}, {Kind: nft.L4Proto}, {Kind: nft.DPort}}
	size := 4
	if f == nft.IPv6 {
		client, size = []nft.Field{{Kind: nft.Hash, N: number()}, {Kind: nft.Hash, N: number()}}, 16
	}
	priority := nft.Field{Kind: nft.Priority}
	update := nft.Update{Map: name, Key: client, Data: priority, Timeout: time.Duration(number()) * time.Millisecond}
	port := nft.Field{Kind: rapid.SampledFrom([]nft.FieldKind{nft.TCPDPort, nft.UDPDPort, nft.SCTPDPort}).Draw(t, "port")}
	addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "addr"))
	prefix, _ := addr.Prefix(rapid.IntRange(0, 8*size).Draw(t, "bits"))
	verdicts := []nft.Verdict{{Kind: nft.Accept}, {Kind: nft.Drop}, nft.JumpTo(name), nft.GoTo(name)}
	return rapid.SampledFrom([]nft.Stmt{
		nft.Lookup{Key: anyKey(t), Set: name, Not: not},
		nft.VerdictMap{Key: anyKey(t), Map: name},
		nft.DNAT{Key: anyKey(t), Map: name},
		nft.AffinityDNAT{Update: update, DNAT: nft.DNAT{Key: nft.FrontEndKey(priority), Map: name}},
		update,
		nft.DeleteElement{Map: name, Key: client, Data: priority},
		nft.SetField{Field: priority, Key: anyKey(t), Map: name},
		nft.SetField{Field: nft.Field{Kind: nft.DAddr}, Key: anyKey(t), Map: name},
		nft.SetField{Field: port, Key: []nft.Field{{Kind: nft.DAddr}, {Kind: nft.L4Proto}, port}, Map: name},
		nft.MatchPrefix{Field: address, Prefix: prefix, Not: not},
		nft.MatchInput{Name: name, Prefix: rapid.Bool().Draw(t, "prefix"), Not: not},
		nft.MatchLocal{Field: address},
		nft.MatchNew{},
		nft.MatchDNATed{},
		nft.MatchMark{Bits: number()},
		nft.SetMark{Bits: number()},
		nft.FlipMark{Bits: number()},
		nft.MatchPriority{Mask: number(), Value: number()},
		nft.ClearPriority{},
		nft.Masquerade{},
		nft.Reject{},
		nft.Do{Verdict: rapid.SampledFrom(verdicts).Draw(t, "verdict")},
	}).Draw(t, "stmt")
}

func TestLiftUndoesLower(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]nft.Family{nft.IPv4, nft.IPv6}).Draw(t, "family")
		var want []nft.Stmt
		for range rapid.IntRange(1, 3).Draw(t, "statements") {
			want = append(want, anyStmt(t, f))
		}
		exprs, err := lower(f, want)
		if err != nil {
			t.Fatalf("lower(%v) = %v; want nil", want, err)
		}
		if diff := cmp.Diff(want, lift(f, exprs), compareValues()); diff != "" {
			t.Errorf("lift(lower()) (-want +got):\n%s", diff)
		}
	})
}

func TestLowerRefuses(t *testing.T) {
	source := nft.Field{Kind: nft.SAddr}
	tests := []struct {
		name string
		f    nft.Family
		stmt nft.Stmt
	}{
		{"bad prefix of the other family", nft.IPv4, nft.MatchPrefix{Field: source, Prefix: netip.MustParsePrefix("fd00::/8")}},
		{"bad prefix that is none", nft.IPv4, nft.MatchPrefix{Field: source}},
		{"bad interface name too long", nft.IPv4, nft.MatchInput{Name: "0123456789abcdef"}},
		{"bad interface without a name", nft.IPv4, nft.MatchInput{Prefix: true}},
		{"bad key that does not fit", nft.IPv6, nft.Lookup{Key: []nft.Field{source, source, source, source, source}, Set: "s"}},
		{"bad field to write", nft.IPv4, nft.SetField{Field: source, Key: nft.FrontEndKey(), Map: "m"}},
		{"bad field to read", nft.IPv4, nft.Lookup{Key: []nft.Field{{Kind: nft.Verdicts}}, Set: "s"}},
		{"bad verdict", nft.IPv4, nft.Do{}},
		{"bad statement", nft.IPv4, nft.Unknown{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if exprs, err := lower(tt.f, []nft.Stmt{tt.stmt}); err == nil {
				t.Errorf("lower(%v) = %v; want an error", tt.stmt, exprs)
			}
		})
	}
}

// What others write into our table is not mistaken for ours, however much it looks like it.
func TestLoadForeign(t *testing.T) {
	n := netns.ForTest(t)
	runNFT(t, n, `
table ip t {
	map m { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
	chain base { type filter hook input priority 0; policy drop; }
	chain c {
		counter
		log prefix "x"
		ip daddr 10.0.0.1 counter drop
		tcp dport 80 drop
		meta mark 0x4000 drop
		meta mark & 0x4000 == 0x2000 drop
		meta mark set meta mark & 0xff | 0x4000
		meta priority set 1:2
		ct state established accept
		ct state new,established accept
		oifname "eth0" drop
		iifname > "eth0" drop
		masquerade
		reject with tcp reset
		reject with icmp type host-unreachable
		dnat to 10.0.0.1
		tcp dport 80 dnat to 10.0.0.1:80
		dnat ip to ip daddr . meta l4proto . th dport map @m random
		return
		fib daddr type broadcast drop
		fib saddr . iif oif missing drop
		numgen inc mod 2 0 drop
		ip daddr & 255.0.255.0 == 10.0.1.0 drop
		ip daddr > 10.0.0.0 drop
		ip ttl 1 drop
	}
}`, "-f", "-")
	tables := load(t, dial(t, n), "t")
	if len(tables) != 1 {
		t.Fatalf("Load() = %d tables; want 1", len(tables))
	}
	for _, s := range tables[0].Sets {
		if !slices.Contains(s.Key, nft.Field{Kind: nft.UnknownField}) {
			t.Errorf("the set %s of nft reads as %v; want an unknown key", s.Name, s)
		}
	}
	for _, c := range tables[0].Chains {
		if c.Base != nil && (c.Base.Type == nft.TypeFilter || c.Base.Type == nft.TypeNAT) {
			t.Errorf("a chain with policy drop reads as one of ours")
		}
		for i, r := range c.Rules {
			if _, ok := r.Stmts[0].(nft.Unknown); !ok || len(r.Stmts) != 1 {
				t.Errorf("rule %d of %d reads as %v; want nft.Unknown", i, len(c.Rules), r.Stmts)
			}
		}
	}
}
