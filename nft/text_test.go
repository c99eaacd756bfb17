package nft_test

import (
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// golden is where the text of the tables of nfttest is kept.
const golden = "testdata/everything.nft"

// TestMain knows the flag -update, which writes the golden file again.
func TestMain(m *testing.M) {
	update := flag.Bool("update", false, "write "+golden)
	flag.Parse()
	if *update {
		if err := os.WriteFile(golden, []byte(text(nfttest.Tables())), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// TestTableGolden compares the text with that which nft 1.0.6 listed when the file was written.
func TestTableGolden(t *testing.T) {
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(text(nfttest.Tables()), "\n")); diff != "" {
		t.Errorf("String() (-want +got):\n%s", diff)
	}
}

// TestStmtText looks at statements that are nowhere else.
func TestStmtText(t *testing.T) {
	addr := nft.Field{Kind: nft.DAddr}
	update := func(d time.Duration) nft.Stmt {
		return nft.Update{Map: "m", Key: []nft.Field{addr}, Data: nft.Field{Kind: nft.Priority}, Timeout: d}
	}
	tests := []struct {
		stmt nft.Stmt
		f    nft.Family
		want string
	}{
		{nft.Unknown{Text: "counter\nlog"}, nft.IPv4, "# counter log"},
		{nft.MatchInput{Name: "veth", Prefix: true, Not: true}, nft.IPv4, `iifname != "veth*"`},
		{nft.MatchPrefix{Field: addr, Prefix: netip.MustParsePrefix("0.0.0.0/0")}, nft.IPv4, "ip daddr 0.0.0.0/0"},
		{nft.MatchPrefix{Field: addr, Prefix: netip.MustParsePrefix("fd00::1/128"), Not: true}, nft.IPv6, "ip6 daddr != fd00::1"},
		{nft.MatchPriority{Mask: 0xffff, Value: 1}, nft.IPv4, "meta priority & 0:ffff == 0:1"},
		{nft.Do{Verdict: nft.JumpTo("x")}, nft.IPv4, "jump x"},
		{update(90 * time.Second), nft.IPv4, "update @m { ip daddr timeout 1m30s : meta priority }"},
		{update(25*time.Hour + time.Minute + time.Second), nft.IPv6, "update @m { ip6 daddr timeout 1d1h1m1s : meta priority }"},
		{update(3 * time.Hour), nft.IPv6, "update @m { ip6 daddr timeout 3h : meta priority }"},
		{update(500 * time.Millisecond), nft.IPv6, "update @m { ip6 daddr timeout 500ms : meta priority }"},
	}
	for _, tt := range tests {
		if got := nft.StmtText(tt.f, tt.stmt); got != tt.want {
			t.Errorf("StmtText(%v, %#v) = %q; want %q", tt.f, tt.stmt, got, tt.want)
		}
	}
}

// TestBaseText prints priorities as nft does: by name only at the hooks where the name exists.
func TestBaseText(t *testing.T) {
	tests := []struct {
		hook     nft.Hook
		priority int32
		want     string
	}{
		{nft.Prerouting, -100, "dstnat"},
		{nft.Prerouting, -110, "dstnat - 10"},
		{nft.Prerouting, -111, "-111"},
		{nft.Prerouting, -90, "dstnat + 10"},
		{nft.Prerouting, -300, "raw"},
		{nft.Prerouting, -150, "mangle"},
		{nft.Output, -100, "-100"},
		{nft.Output, -110, "-110"},
		{nft.Output, -10, "filter - 10"},
		{nft.Input, 5, "filter + 5"},
		{nft.Forward, 0, "filter"},
		{nft.Input, 100, "100"},
		{nft.Postrouting, 100, "srcnat"},
		{nft.Postrouting, 90, "srcnat - 10"},
		{nft.Postrouting, 50, "security"},
		{nft.Postrouting, -100, "-100"},
		{nft.Postrouting, 201, "201"},
	}
	for _, tt := range tests {
		want := "type filter hook " + tt.hook.String() + " priority " + tt.want + "; policy accept;"
		if got := (nft.Base{Type: nft.TypeFilter, Hook: tt.hook, Priority: tt.priority}).String(); got != want {
			t.Errorf("Base{%v, %d} = %q; want %q", tt.hook, tt.priority, got, want)
		}
	}
}

// TestElementString prints prefixes and ranges.
func TestElementString(t *testing.T) {
	set := nft.Set{Name: "s", Key: []nft.Field{{Kind: nft.L4Proto}, {Kind: nft.SAddr}}, Interval: true}
	tests := []struct{ from, to, want string }{
		{"10.0.0.1", "10.0.0.1", "tcp . 10.0.0.1"},
		{"10.0.0.0", "10.255.255.255", "tcp . 10.0.0.0/8"},
		{"10.0.0.128", "10.0.0.255", "tcp . 10.0.0.128/25"},
		{"10.0.0.0", "10.0.1.255", "tcp . 10.0.0.0/23"},
		{"0.0.0.0", "255.255.255.255", "tcp . 0.0.0.0/0"},
		{"10.0.0.1", "10.0.0.2", "tcp . 10.0.0.1-10.0.0.2"},
		{"10.0.0.128", "10.0.1.127", "tcp . 10.0.0.128-10.0.1.127"},
		{"10.0.0.0", "10.0.2.255", "tcp . 10.0.0.0-10.0.2.255"},
		{"fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "tcp . fd00::/8"},
		{"::", "::ffff:ffff", "tcp . ::/96"},
	}
	for _, tt := range tests {
		from, to := netip.MustParseAddr(tt.from), netip.MustParseAddr(tt.to)
		f := nft.IPv4
		if from.Is6() {
			f = nft.IPv6
		}
		k := nft.Value{}.Proto(6)
		e := nft.Element{Key: k.Addr(from), End: k.Addr(to)}
		if got := set.ElementString(f, &e); got != tt.want {
			t.Errorf("ElementString(%s to %s) = %q; want %q", tt.from, tt.to, got, tt.want)
		}
	}
}

// TestElementStringBroken prints elements that do not fit their set, as an error message would.
func TestElementStringBroken(t *testing.T) {
	set := nft.Set{Name: "s", Key: nft.FrontEndKey(), Data: nft.EndpointData(), Interval: true}
	e := nft.Element{Key: nft.Value{}.Port(1), End: nft.Value{}.Port(1)}
	if got, want := set.ElementString(nft.IPv6, &e), "? . ? . 1 : ? . ?"; got != want {
		t.Errorf("ElementString = %q; want %q", got, want)
	}
}

// TestRefused looks at the message of an error.
func TestRefused(t *testing.T) {
	tables := nfttest.Tables()
	err := &nft.RefusedError{
		Op:  nft.Op{Name: "t", Set: &tables[0].Sets[0], Element: &tables[0].Elements["services"][0]},
		Err: os.ErrExist, Text: "why",
	}
	want := `add element ip t services { 10.0.1.1 . tcp . 80 comment "default/web:http" : goto lb-2 }: file already exists (why)`
	if got := err.Error(); got != want {
		t.Errorf("Error() = %q; want %q", got, want)
	}
}

// BenchmarkTableWrite writes a table of 100,000 elements.
func BenchmarkTableWrite(b *testing.B) {
	table := nfttest.Tables()[0]
	var list []nft.Element
	for i := range 100000 {
		list = append(list, nft.Element{
			Key: nfttest.FrontEnd(nft.IPv4, byte(i), uint16(i>>8)).Uint32(0), Data: nfttest.Endpoint(nft.IPv4, byte(i), 8080),
		})
	}
	table.Elements["endpoints"] = list
	b.ReportAllocs()
	for b.Loop() {
		if err := table.Write(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
