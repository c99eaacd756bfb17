package nft_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// TestCheckOK checks tables that nft and Linux take.
func TestCheckOK(t *testing.T) {
	if err := nft.Check(nfttest.Tables()); err != nil {
		t.Errorf("Check(tables) = %v; want nil", err)
	}
}

// TestCheck spoils a good table in one place at a time.
func TestCheck(t *testing.T) {
	for _, tt := range badTables() {
		t.Run(tt.name, func(t *testing.T) {
			tables := nfttest.Tables()
			tt.spoil(&tables[0])
			err := nft.Check(tables)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check = %v; want an error with %q", err, tt.want)
			}
		})
	}
}

// A badTable spoils a table and says what Check should find.
type badTable struct {
	name  string
	spoil func(*nft.Table)
	want  string
}

// badTables returns one of each kind.
func badTables() []badTable {
	rules := func(stmts ...nft.Stmt) func(*nft.Table) {
		return func(t *nft.Table) {
			t.Chains = append(t.Chains, nft.Chain{Name: "bad", Rules: []nft.Rule{{Stmts: stmts}}})
		}
	}
	base := func(b nft.Base, stmts ...nft.Stmt) func(*nft.Table) {
		return func(t *nft.Table) {
			t.Chains = append(t.Chains, nft.Chain{Name: "bad", Base: &b, Rules: []nft.Rule{{Stmts: stmts}}})
		}
	}
	set := func(s nft.Set) func(*nft.Table) {
		return func(t *nft.Table) { t.Sets = append(t.Sets, s) }
	}
	element := func(name string, e nft.Element) func(*nft.Table) {
		return func(t *nft.Table) { t.Elements[name] = append(t.Elements[name], e) }
	}
	fe := nft.FrontEndKey()
	frontEnd := nfttest.FrontEnd(nft.IPv4, 77, 80)
	prefix := netip.MustParsePrefix
	source := func(from, to string) nft.Element {
		k := nfttest.FrontEnd(nft.IPv4, 4, 80)
		return nft.Element{Key: k.Addr(netip.MustParseAddr(from)), End: k.Addr(netip.MustParseAddr(to))}
	}
	return []badTable{
		{"bad set name", set(nft.Set{Name: "two words", Key: fe}), "cannot read the name"},
		{"bad set name, too long", set(nft.Set{Name: strings.Repeat("a", 256), Key: fe}), "256 bytes"},
		{"bad set without a name", set(nft.Set{Key: fe}), "no name"},
		{"bad set twice", set(nft.Set{Name: "services", Key: fe}), "there are two"},
		{"bad set without a key", set(nft.Set{Name: "x"}), "no key"},
		{"bad comment, too long", set(nft.Set{Name: "x", Key: fe, Comment: strings.Repeat("a", 128)}), "128 bytes"},
		{"bad comment, a quote", set(nft.Set{Name: "x", Key: fe, Comment: `"`}), "cannot read the comment"},
		{"bad dynamic set without a size", set(nft.Set{Name: "x", Key: fe, Dynamic: true}), "of no size"},
		{"bad timeout", set(nft.Set{Name: "x", Key: fe, Timeout: 1}), "not dynamic"},
		{"bad interval of one field", set(nft.Set{Name: "x", Key: fe[:1], Interval: true}), "single field"},
		{"bad jump to nowhere", rules(nft.Do{Verdict: nft.JumpTo("x")}), "no chain x"},
		{"bad goto to a base chain", rules(nft.Do{Verdict: nft.GoTo("output")}), "hooked in"},
		{"bad loop", rules(nft.Do{Verdict: nft.GoTo("bad")}), "loop"},
		{"bad loop through a map", func(t *nft.Table) {
			element("services", nft.Element{Key: frontEnd, Verdict: nft.GoTo("header")})(t)
		}, "loop"},
		{"bad set reference", rules(nft.Lookup{Key: fe, Set: "x"}), "no @x"},
		{"bad lookup in a map", rules(nft.Lookup{Key: fe, Set: "services"}), "is a map"},
		{"bad vmap of a set", rules(nft.VerdictMap{Key: fe, Map: "firewall"}), "no verdicts"},
		{"bad key, one field less", rules(nft.VerdictMap{Key: fe[:2], Map: "services"}), "has the key"},
		{"bad key, other types", rules(nft.VerdictMap{Key: []nft.Field{fe[0], fe[2], fe[1]}, Map: "services"}), "has the key"},
		{"bad key, a hash for a random number", rules(nft.DNAT{Key: nft.FrontEndKey(nft.Field{Kind: nft.Hash}), Map: "endpoints"}), "has the key"},
		{"bad dnat by verdicts", rules(nft.DNAT{Key: fe, Map: "services"}), "no addresses"},
		{"bad update of a static map", rules(nft.Update{Key: fe, Map: "services"}), "not dynamic"},
		{"bad field to write", rules(nft.SetField{Field: nft.Field{Kind: nft.SAddr}, Key: fe, Map: "affinity-front-ends"}), "cannot be written"},
		{"bad value to write", rules(nft.SetField{Field: nft.Field{Kind: nft.TCPDPort}, Key: fe, Map: "affinity-front-ends"}), "other data"},
		{"bad prefix, family", rules(nft.MatchPrefix{Prefix: prefix("fd00::/8")}), "no prefix of the family"},
		{"bad prefix, bits", rules(nft.MatchPrefix{Prefix: prefix("10.0.0.1/8")}), "bits outside"},
		{"bad interface", rules(nft.MatchInput{Name: "eth*"}), "no name of an interface"},
		{"bad rule, unknown", rules(nft.Unknown{Text: "x"}), "not a rule of ours"},
		{"bad rule, empty", rules(), "no statements"},
		{"bad hook for nat", base(nft.Base{Type: nft.TypeNAT, Hook: nft.Forward}), "no hook forward"},
		{"bad priority for nat", base(nft.Base{Type: nft.TypeNAT, Priority: -200}), "before conntrack"},
		{"bad type", base(nft.Base{Type: "route"}), "none of ours"},
		{"bad masquerade", base(nft.Base{Type: nft.TypeFilter, Hook: nft.Postrouting}, nft.Masquerade{}), "masquerade at"},
		{"bad reject", base(nft.Base{Type: nft.TypeFilter, Hook: nft.Postrouting}, nft.Reject{}), "reject at"},
		{"bad dnat through a map", base(nft.Base{Type: nft.TypeFilter}, nft.VerdictMap{Key: fe, Map: "services"}), "dnat at"},
		{"bad element twice", element("firewall", nft.Element{Key: nfttest.FrontEnd(nft.IPv4, 4, 80)}), "there are two"},
		{"bad element, short key", element("firewall", nft.Element{Key: nft.Value{}.Port(1)}), "key of 4 bytes"},
		{"bad element, no value", element("endpoints", nft.Element{Key: frontEnd.Uint32(1)}), "value of 0 bytes"},
		{"bad element, no verdict", element("services", nft.Element{Key: frontEnd}), "no verdict"},
		{"bad element, verdict to nowhere", element("services", nft.Element{Key: frontEnd, Verdict: nft.GoTo("x")}), "no chain x"},
		{"bad element, verdict in a set", element("firewall", nft.Element{Key: frontEnd, Verdict: nft.GoTo("lb-2")}), "a verdict where none"},
		{"bad element, long comment", element("firewall", nft.Element{Key: frontEnd, Comment: strings.Repeat("a", 128)}), "128 bytes"},
		{"bad element of a dynamic set", element("affinity", nft.Element{}), "packets fill"},
		{"bad element of no set", element("x", nft.Element{}), "no such set"},
		{"bad interval where none belongs", element("firewall", nft.Element{Key: frontEnd, End: frontEnd}), "in a set without"},
		{"bad interval without an end", element("source-ranges", nft.Element{Key: frontEnd.Addr(nfttest.Addr(0, 1))}), "no end"},
		{"bad interval backwards", element("source-ranges", source("10.1.0.2", "10.1.0.1")), "before it begins"},
		{"bad interval overlaps", element("source-ranges", source("203.0.113.127", "203.0.113.128")), "overlap"},
		{"bad size", func(t *nft.Table) { t.Sets[9].Size = 1; element("firewall", nft.Element{Key: frontEnd})(t) }, "the size is 1"},
	}
}

// TestClipComment cuts comments to what nft takes.
func TestClipComment(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"OK short", "default/web:http", "default/web:http"},
		{"OK the longest", strings.Repeat("a", 127), strings.Repeat("a", 127)},
		{"OK cut", strings.Repeat("a", 128), strings.Repeat("a", 124) + "..."},
		{"OK cut between characters", strings.Repeat("a", 123) + strings.Repeat("é", 4), strings.Repeat("a", 123) + "..."},
		{"bad characters", "a\"b\nc\\d\xff", "a'b c/d "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := nft.ClipComment(tt.in); got != tt.want {
				t.Errorf("ClipComment(%q) = %q; want %q", tt.in, got, tt.want)
			}
		})
	}
}
