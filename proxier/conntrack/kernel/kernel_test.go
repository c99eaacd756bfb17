package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
)

// dial connects to the connection tracking of a namespace for as long as the test lives.
func dial(t testing.TB, n *netns.NetNS) *Conn {
	t.Helper()
	c, err := Dial(Config{NetNS: n.FD()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A flow is an entry to make.
type flow struct {
	proto              uint8
	client, to, answer string
	zone               uint16
}

// newEntry appends the message that makes an entry.
func newEntry(b []byte, f flow) []byte {
	client, to, answer := netip.MustParseAddrPort(f.client), netip.MustParseAddrPort(f.to), netip.MustParseAddrPort(f.answer)
	family := protocol(nft.IPv4)
	if !to.Addr().Is4() {
		family = protocol(nft.IPv6)
	}
	begin := len(b)
	b = appendHeader(b, msgNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, family)
	b = wire.AppendBytes(b, ctaTupleOrig|unix.NLA_F_NESTED, newTuple(f.proto, client, to))
	b = wire.AppendBytes(b, ctaTupleReply|unix.NLA_F_NESTED, newTuple(f.proto, answer, client))
	b = wire.AppendUint32(b, 7 /* CTA_TIMEOUT */, 600)
	if f.proto == unix.IPPROTO_TCP {
		state := wire.AppendBytes(nil, 1 /* CTA_PROTOINFO_TCP_STATE */, []byte{3 /* established */})
		b = wire.AppendBytes(b, 4 /* CTA_PROTOINFO */ |unix.NLA_F_NESTED, wire.AppendBytes(nil, 1|unix.NLA_F_NESTED, state))
	}
	if f.zone != 0 {
		b = wire.AppendUint16(b, ctaZone, f.zone)
	}
	wire.CloseMessage(b, begin)
	return b
}

// newTuple returns the attributes of one direction.
func newTuple(proto uint8, src, dst netip.AddrPort) []byte {
	typ := uint16(1)
	if !src.Addr().Is4() {
		typ = 3
	}
	ip := wire.AppendAddr(wire.AppendAddr(nil, typ, src.Addr()), typ+1, dst.Addr())
	p := wire.AppendBytes(nil, ctaProtoNum, []byte{proto})
	p = wire.AppendUint16(p, ctaProtoSrcPort, src.Port())
	p = wire.AppendUint16(p, ctaProtoDstPort, dst.Port())
	return wire.AppendBytes(wire.AppendBytes(nil, ctaTupleIP|unix.NLA_F_NESTED, ip), ctaTupleProto|unix.NLA_F_NESTED, p)
}

// create makes entries.
func create(t testing.TB, c *Conn, flows ...flow) {
	t.Helper()
	for some := range slices.Chunk(flows, 200) {
		var b []byte
		for _, f := range some {
			b = newEntry(b, f)
		}
		if err := c.edit.Send(b); err != nil {
			t.Fatal(err)
		}
		for {
			part, err := c.edit.Receive()
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for msg := range wire.Messages(part) {
				if err := msg.Err(); err != nil {
					t.Fatalf("make an entry: %v", err)
				}
			}
		}
	}
}

// list returns the entries as the program conntrack lists them: protocol, destination and who answers.
func list(t testing.TB, n *netns.NetNS) []string {
	t.Helper()
	var lines []string
	for _, family := range []string{"ipv4", "ipv6"} {
		out, err := n.Output(exec.Command("conntrack", "-L", "-f", family))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out) {
			words := strings.Fields(line)
			var dst, src []string
			zone := ""
			for _, w := range words {
				if v, ok := strings.CutPrefix(w, "dst="); ok {
					dst = append(dst, v)
				} else if v, ok := strings.CutPrefix(w, "src="); ok {
					src = append(src, v)
				} else if strings.HasPrefix(w, "zone=") {
					zone = " " + w
				}
			}
			lines = append(lines, fmt.Sprintf("%s %s %s%s", words[0], dst[0], src[1], zone))
		}
	}
	slices.Sort(lines)
	return lines
}

// flows are entries of all kinds.
func flows() []flow {
	const udp, tcp = unix.IPPROTO_UDP, unix.IPPROTO_TCP
	return []flow{
		{udp, "10.0.0.1:1", "10.96.0.10:53", "10.1.0.1:53", 0},
		{udp, "10.0.0.1:2", "10.96.0.10:53", "10.1.0.2:53", 0},
		{udp, "10.0.0.1:3", "10.96.0.10:53", "10.96.0.10:53", 0},
		{udp, "10.0.0.1:7", "10.96.0.11:53", "10.1.0.1:53", 0},
		{udp, "10.0.0.1:4", "10.96.0.10:53", "10.1.0.1:53", 5},
		{tcp, "10.0.0.1:1", "10.96.0.10:53", "10.1.0.1:53", 0},
		{udp, "[fd00::1]:1", "[fd00:96::a]:53", "[fd00:1::1]:53", 0},
		{udp, "[fd00::1]:2", "[fd00:96::a]:53", "[fd00:1::2]:53", 0},
	}
}

func TestDeleteUDP(t *testing.T) {
	tests := []struct {
		name   string
		family nft.Family
		only   []netip.AddrPort
		stale  func(conntrack.Entry) bool
		want   []string // what goes
	}{
		{"none", nft.IPv4, nil, func(conntrack.Entry) bool { return false }, nil},
		{"one endpoint", nft.IPv4, nil, func(e conntrack.Entry) bool {
			return e.Responder.String() == "10.1.0.1:53" && e.Destination.String() == "10.96.0.10:53"
		}, []string{
			"udp 10.96.0.10 10.1.0.1",
		}},
		{"all IPv4", nft.IPv4, nil, func(conntrack.Entry) bool { return true }, []string{
			"udp 10.96.0.10 10.1.0.1", "udp 10.96.0.10 10.1.0.2", "udp 10.96.0.10 10.96.0.10", "udp 10.96.0.11 10.1.0.1",
		}},
		{"one of IPv6", nft.IPv6, nil, func(e conntrack.Entry) bool { return e.Responder.String() == "[fd00:1::2]:53" }, []string{
			"udp fd00:96::a fd00:1::2",
		}},
		{"all to one front end", nft.IPv4, []netip.AddrPort{netip.MustParseAddrPort("10.96.0.11:53")}, func(conntrack.Entry) bool { return true }, []string{
			"udp 10.96.0.11 10.1.0.1",
		}},
		{"all to two front ends", nft.IPv6, []netip.AddrPort{netip.MustParseAddrPort("[fd00:96::b]:54"), netip.MustParseAddrPort("[fd00:96::a]:53")}, func(conntrack.Entry) bool { return true }, []string{
			"udp fd00:96::a fd00:1::1", "udp fd00:96::a fd00:1::2",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := netns.ForTest(t)
			c := dial(t, n)
			create(t, c, flows()...)
			before := list(t, n)
			if len(before) != len(flows()) {
				t.Fatalf("made %d entries; there are %q", len(flows()), before)
			}
			got, err := c.DeleteUDP(t.Context(), tt.family, tt.only, tt.stale)
			if err != nil || got != len(tt.want) {
				t.Errorf("DeleteUDP() = %d, %v; want %d", got, err, len(tt.want))
			}
			want := slices.DeleteFunc(before, func(s string) bool { return slices.Contains(tt.want, s) })
			if diff := cmp.Diff(want, list(t, n)); diff != "" {
				t.Errorf("what is left (-want +got):\n%s", diff)
			}
		})
	}
}

// The kernel hands over nothing but what is asked for: a million other entries cost next to nothing.
func TestKernelFilters(t *testing.T) {
	n := netns.ForTest(t)
	c := dial(t, n)
	create(t, c, flows()...)
	tests := []struct {
		family nft.Family
		to     string
		want   int
	}{
		{nft.IPv4, "", 5},
		{nft.IPv6, "", 2},
		{nft.IPv4, "10.96.0.10:53", 4},
		{nft.IPv4, "10.96.0.11:53", 1},
		{nft.IPv4, "10.96.0.11:54", 0},
		{nft.IPv4, "0.0.0.0:53", 5},
		{nft.IPv4, "0.0.0.0:54", 0},
		{nft.IPv6, "[fd00:96::a]:53", 2},
		{nft.IPv6, "[fd00:96::b]:53", 2}, // addresses of IPv6 are not compared
		{nft.IPv6, "[fd00:96::a]:54", 0},
		{nft.IPv6, "[::]:53", 2},
	}
	for _, tt := range tests {
		var to netip.AddrPort
		if tt.to != "" {
			to = netip.MustParseAddrPort(tt.to)
		}
		got := 0
		if err := c.each(t.Context(), tt.family, to, func(wire.Message) { got++ }, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("%s, to %q: the kernel handed over %d entries; want the %d of UDP", tt.family, tt.to, got, tt.want)
		}
	}
}

// An entry that took the place of the one that was looked at stays.
func TestDeleteIsExact(t *testing.T) {
	n := netns.ForTest(t)
	c, other := dial(t, n), dial(t, n)
	f := flow{unix.IPPROTO_UDP, "10.0.0.1:1", "10.96.0.10:53", "10.1.0.1:53", 0}
	create(t, c, f)
	got, err := c.DeleteUDP(t.Context(), nft.IPv4, nil, func(conntrack.Entry) bool {
		if _, err := other.DeleteUDP(t.Context(), nft.IPv4, nil, func(conntrack.Entry) bool { return true }); err != nil {
			t.Error(err)
		}
		f.answer = "10.1.0.2:53"
		create(t, other, f)
		return true
	})
	if err != nil || got != 0 {
		t.Errorf("DeleteUDP() = %d, %v; want 0, since the entry is gone", got, err)
	}
	if diff := cmp.Diff([]string{"udp 10.96.0.10 10.1.0.2"}, list(t, n)); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
}

// An answer that was under way when its entry was deleted makes it anew the other way round: that goes, too.
func TestDeleteLateAnswers(t *testing.T) {
	n := netns.ForTest(t)
	c := dial(t, n)
	create(t, c, flow{unix.IPPROTO_UDP, "10.0.0.1:1", "10.96.0.10:53", "10.96.0.10:53", 0})
	if got, err := c.DeleteUDP(t.Context(), nft.IPv4, nil, func(conntrack.Entry) bool { return true }); err != nil || got != 1 {
		t.Fatalf("DeleteUDP() = %d, %v; want 1", got, err)
	}
	create(t, c, flow{unix.IPPROTO_UDP, "10.96.0.10:53", "10.0.0.1:1", "10.0.0.1:1", 0}, flow{unix.IPPROTO_UDP, "10.96.0.10:53", "10.0.0.1:2", "10.0.0.1:2", 0})
	for _, want := range []int{1, 0} {
		if got, err := c.DeleteUDP(t.Context(), nft.IPv4, nil, func(conntrack.Entry) bool { return false }); err != nil || got != want {
			t.Errorf("DeleteUDP() = %d, %v; want %d", got, err, want)
		}
	}
	if got := list(t, n); len(got) != 1 {
		t.Errorf("what is left: %q; want the entry of another client", got)
	}
}

// A pass that is broken off leaves nothing that confuses the next one.
func TestDeleteAfterCancel(t *testing.T) {
	n := netns.ForTest(t)
	c := dial(t, n)
	create(t, c, many(2000)...)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.DeleteUDP(ctx, nft.IPv4, nil, func(conntrack.Entry) bool { cancel(); return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("DeleteUDP(cancelled) = %v; want context.Canceled", err)
	}
	if got, err := c.DeleteUDP(t.Context(), nft.IPv4, nil, func(conntrack.Entry) bool { return true }); err != nil || got != 2000 {
		t.Errorf("DeleteUDP() = %d, %v; want 2000", got, err)
	}
}

// many returns entries of a front end.
func many(n int) []flow {
	flows := make([]flow, n)
	for i := range flows {
		flows[i] = flow{unix.IPPROTO_UDP, fmt.Sprintf("10.%d.%d.1:%d", 2+i>>18, i>>10&255, 1024+i&1023), "10.96.0.10:53", fmt.Sprintf("10.1.0.%d:53", i%10), 0}
	}
	return flows
}

// TestMemoryIsFlat looks at many entries and deletes a tenth: no memory is needed for them.
func TestMemoryIsFlat(t *testing.T) {
	const entries = 200_000
	n := netns.ForTest(t)
	c := dial(t, n)
	create(t, c, many(entries)...)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	gone := netip.MustParseAddrPort("10.1.0.3:53")
	seen, began := 0, time.Now()
	got, err := c.DeleteUDP(t.Context(), nft.IPv4, nil, func(e conntrack.Entry) bool { seen++; return e.Responder == gone })
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	if err != nil || got != entries/10 || seen != entries {
		t.Errorf("DeleteUDP() = %d, %v, having seen %d; want %d, nil, %d", got, err, seen, entries/10, entries)
	}
	allocated := after.TotalAlloc - before.TotalAlloc
	t.Logf("looked at %d entries and deleted %d in %v; allocated %d bytes in %d pieces", seen, got, took, allocated, after.Mallocs-before.Mallocs)
	began = time.Now()
	if _, err := c.DeleteUDP(t.Context(), nft.IPv4, []netip.AddrPort{netip.MustParseAddrPort("10.96.0.11:53")}, func(conntrack.Entry) bool { return false }); err != nil {
		t.Error(err)
	}
	t.Logf("looked for another front end among them in %v", time.Since(began))
	if allocated > 1<<20 {
		t.Errorf("allocated %d bytes for %d entries; want less than 1 MiB", allocated, entries)
	}
}

func TestDecode(t *testing.T) {
	good := newEntry(nil, flow{unix.IPPROTO_UDP, "10.0.0.1:1", "10.96.0.10:53", "10.1.0.1:5353", 0})
	good = wire.AppendBytes(good, ctaID, []byte{1, 2, 3, 4})
	wire.CloseMessage(good, 0)
	e, ok := decode(good)
	want := conntrack.Entry{Destination: netip.MustParseAddrPort("10.96.0.10:53"), Responder: netip.MustParseAddrPort("10.1.0.1:5353"), Source: netip.MustParseAddrPort("10.0.0.1:1")}
	if !ok || e.Entry != want {
		t.Errorf("decode() = %v, %t; want %v, true", e.Entry, ok, want)
	}
	for n := range good { // nothing that is cut off is an entry, nor does it panic
		if _, ok := decode(good[:n]); ok {
			t.Errorf("decode(the first %d of %d bytes) = true; want false", n, len(good))
		}
	}
	if n := testing.AllocsPerRun(100, func() { decode(good) }); n > 0 {
		t.Errorf("decode() allocates %v times; want none", n)
	}
}
