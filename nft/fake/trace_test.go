package fake_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/fake"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// text returns what matters of a result in one line.
func text(r fake.Result) string {
	s := r.Verdict.String()
	if r.Verdict == fake.DNAT {
		s += " " + r.Endpoint.String()
	}
	if r.Masquerade {
		s += " masquerade"
	}
	if r.Mark != 0 && r.Verdict != fake.Drop {
		s += fmt.Sprintf(" mark %#x", r.Mark)
	}
	if r.Priority != 0 {
		s += fmt.Sprintf(" priority %#x", r.Priority)
	}
	return s
}

// outcomes returns the texts of all results, each once.
func outcomes(t *fake.Tracer, p fake.Packet, from nft.Hook) []string {
	var r []string
	for _, x := range t.Outcomes(p, from) {
		r = append(r, text(x))
	}
	slices.Sort(r)
	return slices.Compact(r)
}

// host is a host that has address 9 of each family.
func host() fake.Host {
	return fake.Host{Addresses: []netip.Addr{nfttest.Addr(nft.IPv4, 9), nfttest.Addr(nft.IPv6, 9)}}
}

// TestTrace sends one packet at a time through the tables of nfttest.
func TestTrace(t *testing.T) {
	const tcp, udp, sctp = 6, 17, 132
	tests := []struct {
		name     string
		src, dst byte // numbers of addresses
		proto    uint8
		port     uint16
		in       string
		from     nft.Hook
		want     []string // with A and B for the endpoints
	}{
		{"OK a front end", 50, 2, tcp, 80, "cbr0", nft.Prerouting, []string{"dnat A", "dnat B"}},
		{"OK a marked one", 50, 1, tcp, 80, "cbr0", nft.Prerouting, []string{"dnat A masquerade", "dnat B masquerade"}},
		{"OK from another interface", 50, 2, tcp, 80, "eth0", nft.Prerouting, []string{"dnat A masquerade", "dnat B masquerade"}},
		{"OK from an interface by prefix", 50, 2, tcp, 80, "veth12", nft.Prerouting, []string{"dnat A masquerade", "dnat B masquerade"}},
		{"OK from this host", 9, 2, tcp, 80, "", nft.Output, []string{"dnat A", "dnat B"}},
		{"OK hairpin", 101, 2, tcp, 80, "cbr0", nft.Prerouting, []string{"dnat A masquerade", "dnat B"}},
		{"OK through the header", 50, 3, tcp, 80, "cbr0", nft.Prerouting, []string{"dnat A", "dnat B"}},
		{"OK a port through the header", 50, 2, tcp, 30080, "cbr0", nft.Prerouting, []string{"dnat A", "dnat B"}},
		{"OK a port of another protocol stays", 50, 2, udp, 30080, "cbr0", nft.Prerouting, []string{"reject"}},
		{"bad port", 50, 2, tcp, 81, "cbr0", nft.Prerouting, []string{"reject"}},
		{"bad port from this host", 9, 2, tcp, 81, "", nft.Output, []string{"none"}},
		{"bad verdict drop", 50, 1, sctp, 3868, "cbr0", nft.Prerouting, []string{"drop"}},
		{"bad verdict drop from this host", 9, 1, sctp, 3868, "", nft.Output, []string{"drop"}},
		{"bad source", 50, 4, tcp, 80, "cbr0", nft.Prerouting, []string{"drop"}},
		{"OK source", 9, 4, tcp, 80, "cbr0", nft.Prerouting, []string{"none"}},
		{"OK nothing of ours", 50, 60, tcp, 80, "cbr0", nft.Prerouting, []string{"none"}},
		{"OK to this host", 50, 9, tcp, 30080, "cbr0", nft.Prerouting, []string{"none"}},
		{"OK to this host, marked", 50, 9, tcp, 30080, "eth0", nft.Prerouting, []string{"none mark 0x4000"}},
	}
	for _, f := range nft.Families() {
		for _, tt := range tests {
			t.Run(f.String()+" "+tt.name, func(t *testing.T) {
				tracer := fake.NewTracer(nfttest.Tables(), host())
				p := fake.Packet{
					Src: nfttest.Addr(f, tt.src), Dst: nfttest.Addr(f, tt.dst), SrcPort: 40000, DstPort: tt.port, Proto: tt.proto, In: tt.in,
				}
				var want []string
				for _, w := range tt.want {
					w = strings.Replace(w, "A", netip.AddrPortFrom(nfttest.Addr(f, 101), 8080).String(), 1)
					want = append(want, strings.Replace(w, "B", netip.AddrPortFrom(nfttest.Addr(f, 102), 8080).String(), 1))
				}
				slices.Sort(want)
				if diff := cmp.Diff(want, outcomes(tracer, p, tt.from)); diff != "" {
					t.Errorf("Outcomes (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestTracePath looks at the rules that a packet passed.
func TestTracePath(t *testing.T) {
	p := fake.Packet{Src: nfttest.Addr(nft.IPv4, 50), Dst: nfttest.Addr(nft.IPv4, 1), DstPort: 80, Proto: 6, In: "cbr0"}
	got := fake.Trace(nfttest.Tables(), host(), p, nft.Prerouting, func(uint32) uint32 { return 1 }).Path
	want := []string{
		"prerouting: ip daddr 10.0.1.1 meta mark set meta mark | 0x00004000",
		"prerouting: ip daddr . meta l4proto . th dport vmap @services",
		"lb-2: dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints",
		`postrouting: meta mark & 0x00004000 == 0x00004000 meta mark set meta mark ^ 0x00004000 masquerade fully-random comment "marked"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Path (-want +got):\n%s", diff)
	}
}

// TestTraceFallback picks an endpoint that has gone: the second rule finds another.
func TestTraceFallback(t *testing.T) {
	tables := nfttest.Tables()
	tables[0].Elements["endpoints"] = tables[0].Elements["endpoints"][:1]
	p := fake.Packet{Src: nfttest.Addr(nft.IPv4, 50), Dst: nfttest.Addr(nft.IPv4, 1), DstPort: 80, Proto: 6, In: "cbr0"}
	want := []string{"dnat 10.0.101.1:8080 masquerade"}
	if diff := cmp.Diff(want, outcomes(fake.NewTracer(tables, host()), p, nft.Prerouting)); diff != "" {
		t.Errorf("Outcomes (-want +got):\n%s", diff)
	}
}

// TestTraceAffinity sends a client to where it went before, until it stays away too long or the
// endpoint goes.
func TestTraceAffinity(t *testing.T) {
	for _, f := range nft.Families() {
		t.Run(f.String(), func(t *testing.T) {
			tables := nfttest.Tables()
			tracer := fake.NewTracer(tables, host())
			send := func(n uint32, dst byte, want byte) {
				t.Helper()
				p := fake.Packet{Src: nfttest.Addr(f, 50), Dst: nfttest.Addr(f, dst), DstPort: 80, Proto: 6, In: "cbr0"}
				r := tracer.Trace(p, nft.Prerouting, func(uint32) uint32 { return n })
				if got := r.Endpoint.Addr(); got != nfttest.Addr(f, want) {
					t.Errorf("picking %d at %v the packet went to %v; want %v", n, tracer.Now, got, nfttest.Addr(f, want))
				}
				if r.Priority != 0 {
					t.Errorf("the packet left with priority %#x; want 0", r.Priority)
				}
			}
			send(0, 2, 101)
			tracer.Now += 2 * time.Hour
			send(1, 2, 101) // renews
			tracer.Now += 2 * time.Hour
			send(1, 3, 101) // another address of the same Service
			tracer.Now += 3 * time.Hour
			send(1, 2, 102) // too late
			send(0, 2, 102)
			// Endpoint 102 goes.
			i := int(f)
			tables[i].Elements["affinity-endpoints"] = tables[i].Elements["affinity-endpoints"][:1]
			tables[i].Elements["affinity-slots"] = tables[i].Elements["affinity-slots"][:1]
			tracer.Set(tables, host())
			send(0, 2, 101)
			send(0, 2, 101)
		})
	}
}

// TestTraceAffinityFull fills the map of clients: one more client is served, but not remembered.
func TestTraceAffinityFull(t *testing.T) {
	tables := nfttest.Tables()
	tables[0].Sets[3].Size = 1
	tracer := fake.NewTracer(tables, host())
	for _, tt := range []struct {
		src, want byte
		pick      uint32
	}{{50, 101, 0}, {51, 102, 1}, {51, 101, 0}, {50, 101, 1}} {
		p := fake.Packet{Src: nfttest.Addr(nft.IPv4, tt.src), Dst: nfttest.Addr(nft.IPv4, 2), DstPort: 80, Proto: 6, In: "cbr0"}
		got := tracer.Trace(p, nft.Prerouting, func(uint32) uint32 { return tt.pick }).Endpoint.Addr()
		if want := nfttest.Addr(nft.IPv4, tt.want); got != want {
			t.Errorf("client %d, picking %d, went to %v; want %v", tt.src, tt.pick, got, want)
		}
	}
}

// small returns the IPv4 table of nfttest with the rules of one chain at prerouting alone.
func small(stmts ...nft.Stmt) []nft.Table {
	t := nfttest.Tables()[0]
	c := nft.Chain{Name: "small", Base: &nft.Base{Type: nft.TypeNAT, Hook: nft.Prerouting, Priority: -100}}
	for _, s := range stmts {
		c.Rules = append(c.Rules, nft.Rule{Stmts: []nft.Stmt{s}})
	}
	t.Chains = []nft.Chain{c}
	return []nft.Table{t}
}

// TestTraceUpdate renews an entry with another value: the old one stays.
func TestTraceUpdate(t *testing.T) {
	priority, key := nft.Field{Kind: nft.Priority}, nfttest.AffinityKey(nft.IPv4)
	tracer := fake.NewTracer(small(
		nft.SetField{Field: priority, Key: nft.FrontEndKey(nft.Field{Kind: nft.Random, N: 2}), Map: "affinity-slots"},
		nft.Update{Map: "affinity", Key: key, Data: priority, Timeout: time.Hour},
		nft.SetField{Field: priority, Key: key, Map: "affinity"},
	), host())
	p := fake.Packet{Src: nfttest.Addr(nft.IPv4, 50), Dst: nfttest.Addr(nft.IPv4, 2), DstPort: 80, Proto: 6}
	for i := range uint32(2) {
		r := tracer.Trace(p, nft.Prerouting, func(uint32) uint32 { return i })
		if r.Priority != 0xaf000001 {
			t.Errorf("packet %d has priority %#x; want 0xaf000001", i, r.Priority)
		}
	}
}

// TestOutcomes counts the ways of a packet that may meet two random choices, the second only after
// some of the first.
func TestOutcomes(t *testing.T) {
	dnat := func(n uint32) nft.Stmt {
		return nft.DNAT{Key: nft.FrontEndKey(nft.Field{Kind: nft.Random, N: n}), Map: "endpoints"}
	}
	p := fake.Packet{Src: nfttest.Addr(nft.IPv4, 50), Dst: nfttest.Addr(nft.IPv4, 1), DstPort: 80, Proto: 6}
	var got []string
	for _, r := range fake.NewTracer(small(dnat(4), dnat(3)), host()).Outcomes(p, nft.Prerouting) {
		got = append(got, text(r))
	}
	a, b := "dnat 10.0.101.1:8080", "dnat 10.0.102.1:8080"
	if diff := cmp.Diff([]string{a, b, a, b, "none", a, b, "none"}, got); diff != "" {
		t.Errorf("Outcomes (-want +got):\n%s", diff)
	}
}
