package world

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot skips the test, or fails it where nothing may be skipped, unless namespaces can be made.
func needRoot(t *testing.T) {
	t.Helper()
	if unix.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all" {
		t.Fatal("this test makes network namespaces: it needs root")
	}
	t.Skip("this test makes network namespaces: it needs root")
}

func TestWorld(t *testing.T) {
	needRoot(t)
	for _, cfg := range []Config{{}, {Bridge: "cbr0"}} {
		t.Run("bridge "+cfg.Bridge, func(t *testing.T) { testWorld(t, cfg) })
	}
}

// testWorld asks around in a world without a proxy.
func testWorld(t *testing.T, cfg Config) {
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	addr := netip.MustParseAddr
	if err := w.SetNodeAddrs([]netip.Addr{addr("192.168.0.2"), addr("2001:db8::1")}); err != nil {
		t.Fatal(err)
	}
	if err := w.Place(Placement{
		Pods:    []netip.Addr{addr("10.0.0.2"), addr("10.0.0.3"), addr("fd00:10::2"), addr("fd00:10::3")},
		Remote:  []netip.Addr{addr("10.1.0.2"), addr("fd00:11::2")},
		Clients: []netip.Addr{addr("203.0.113.2"), addr("2600::1")},
		Outside: []netip.Addr{addr("1.2.3.4"), addr("2600:99::1")},
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Serve(80, 8080); err != nil {
		t.Fatal(err)
	}
	pod := func(a string) *Host { return w.Pod(addr(a)) }
	tests := []struct {
		from     *Host
		src, dst string
		want     Outcome
		host     string
	}{
		{pod("10.0.0.2"), "10.0.0.2", "10.0.0.3:80", Answered, "pod 10.0.0.3"},
		{pod("10.0.0.2"), "10.0.0.2", "10.1.0.2:80", Answered, "remote"},
		{pod("10.0.0.2"), "10.0.0.2", "192.168.0.2:80", Answered, "node"},
		{pod("10.0.0.2"), "10.0.0.2", "1.2.3.4:80", Answered, "outside"},
		{w.Node, "192.168.0.2", "10.0.0.2:80", Answered, "pod 10.0.0.2"},
		{w.Node, "192.168.0.2", "1.2.3.4:80", Answered, "outside"},
		{w.Node, "127.0.0.1", "127.0.0.1:80", Answered, "node"},
		{w.Clients, "203.0.113.2", "10.0.0.2:80", Answered, "pod 10.0.0.2"},
		{w.Clients, "203.0.113.2", "192.168.0.2:8080", Answered, "node"},
		{w.Clients, "203.0.113.2", "192.168.0.2:81", Refused, ""},
		{w.Clients, "203.0.113.2", "10.0.0.2:81", Silent, ""},
		{w.Clients, "203.0.113.2", "10.9.9.9:80", Silent, ""},
		{pod("fd00:10::2"), "fd00:10::2", "[fd00:10::3]:80", Answered, "pod fd00:10::3"},
		{pod("fd00:10::2"), "fd00:10::2", "[fd00:11::2]:80", Answered, "remote"},
		{w.Node, "2001:db8::1", "[fd00:10::2]:80", Answered, "pod fd00:10::2"},
		{w.Clients, "2600::1", "[fd00:10::2]:80", Answered, "pod fd00:10::2"},
		{w.Clients, "2600::1", "[2001:db8::1]:80", Answered, "node"},
		{w.Clients, "2600::1", "[2001:db8::1]:81", Refused, ""},
		{w.Clients, "2600::1", "[2600:99::1]:80", Answered, "outside"},
	}
	for _, tt := range tests {
		for _, proto := range []string{"tcp", "udp"} {
			dst := netip.MustParseAddrPort(tt.dst)
			r, err := tt.from.Ask(proto, addr(tt.src), dst, 500*time.Millisecond)
			if err != nil {
				t.Error(err)
				continue
			}
			want := Answer{}
			if tt.want == Answered {
				want = Answer{Host: tt.host, Dst: dst, Src: netip.AddrPortFrom(addr(tt.src), r.Answer.Src.Port())}
			}
			if r.Outcome != tt.want || r.Answer != want {
				t.Errorf("%s -> %s/%s: %s; want %s %s", tt.src, tt.dst, proto, r, tt.want, tt.host)
			}
		}
	}
}
