package plan

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// endpoint returns a ready endpoint on a node, changed by some options.
func endpoint(addr, node string, options ...func(*model.Endpoint)) model.Endpoint {
	e := model.Endpoint{Addr: netip.MustParseAddrPort(addr), Node: node, Ready: true, Serving: true, Weight: 1}
	for _, o := range options {
		o(&e)
	}
	return e
}

// leaving makes an endpoint terminate while it still serves; gone, without serving.
func leaving(e *model.Endpoint) { e.Ready, e.Terminating = false, true }
func gone(e *model.Endpoint)    { e.Ready, e.Serving, e.Terminating = false, false, true }
func unready(e *model.Endpoint) { e.Ready = false }

// zones and nodes give an endpoint hints.
func zones(names ...string) func(*model.Endpoint) {
	return func(e *model.Endpoint) { e.Hints = &model.Hints{Zones: names} }
}

func nodes(names ...string) func(*model.Endpoint) {
	return func(e *model.Endpoint) { e.Hints = &model.Hints{Nodes: names, Zones: []string{"zone-a"}} }
}

func TestChoose(t *testing.T) {
	tests := []struct {
		name           string
		endpoints      []model.Endpoint
		cluster, local []string
		any            bool
		hairpin        []string
	}{
		{name: "nothing"},
		{
			name:      "ready ones, of this node and of others",
			endpoints: []model.Endpoint{endpoint("10.1.0.1:80", "here"), endpoint("10.1.0.2:80", "there")},
			cluster:   []string{"10.1.0.1:80", "10.1.0.2:80"}, local: []string{"10.1.0.1:80"}, any: true, hairpin: []string{"10.1.0.1"},
		},
		{
			name:      "the other family does not count",
			endpoints: []model.Endpoint{endpoint("[fd00::1]:80", "here")},
		},
		{
			name:      "a ready one keeps those that leave out",
			endpoints: []model.Endpoint{endpoint("10.1.0.1:80", "here", leaving), endpoint("10.1.0.2:80", "there")},
			cluster:   []string{"10.1.0.2:80"}, local: []string{"10.1.0.1:80"}, any: true, hairpin: []string{"10.1.0.1"},
		},
		{
			name:      "only those that leave and serve",
			endpoints: []model.Endpoint{endpoint("10.1.0.1:80", "there", leaving), endpoint("10.1.0.2:80", "there", gone)},
			cluster:   []string{"10.1.0.1:80"}, any: true,
		},
		{
			name:      "serving but neither ready nor terminating is of no use",
			endpoints: []model.Endpoint{endpoint("10.1.0.1:80", "here", unready)},
		},
		{
			name: "zone",
			endpoints: []model.Endpoint{
				endpoint("10.1.0.1:80", "there", zones("zone-a")), endpoint("10.1.0.2:80", "there", zones("zone-b")),
				endpoint("10.1.0.3:80", "there", zones("zone-b", "zone-a")),
			},
			cluster: []string{"10.1.0.1:80", "10.1.0.3:80"}, any: true,
		},
		{
			name:      "one ready endpoint without a hint",
			endpoints: []model.Endpoint{endpoint("10.1.0.1:80", "there", zones("zone-a")), endpoint("10.1.0.2:80", "there")},
			cluster:   []string{"10.1.0.1:80", "10.1.0.2:80"}, any: true,
		},
		{
			name:      "no hint names our zone",
			endpoints: []model.Endpoint{endpoint("10.1.0.1:80", "there", zones("zone-b")), endpoint("10.1.0.2:80", "there", zones("zone-c"))},
			cluster:   []string{"10.1.0.1:80", "10.1.0.2:80"}, any: true,
		},
		{
			name:      "a hint of an endpoint that is not ready does not count",
			endpoints: []model.Endpoint{endpoint("10.1.0.1:80", "there", zones("zone-a"), unready), endpoint("10.1.0.2:80", "there", zones("zone-b"))},
			cluster:   []string{"10.1.0.2:80"}, any: true,
		},
		{
			name:      "node before zone",
			endpoints: []model.Endpoint{endpoint("10.1.0.1:80", "there", nodes("here")), endpoint("10.1.0.2:80", "there", nodes("there"))},
			cluster:   []string{"10.1.0.1:80"}, any: true,
		},
		{
			name:      "no hint names our node: zone",
			endpoints: []model.Endpoint{endpoint("10.1.0.1:80", "there", nodes("there")), endpoint("10.1.0.2:80", "there", nodes("elsewhere"))},
			cluster:   []string{"10.1.0.1:80", "10.1.0.2:80"}, any: true,
		},
		{
			name:      "topology does not bind those that leave",
			endpoints: []model.Endpoint{endpoint("10.1.0.1:80", "there", leaving, zones("zone-b"))},
			cluster:   []string{"10.1.0.1:80"}, any: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := &view{node: "here", zone: "zone-a"}
			got := choose(v, tt.endpoints, nft.IPv4)
			check := func(what string, got []netip.AddrPort, want []string) {
				if diff := cmp.Diff(want, texts(got)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
			check("cluster", got.cluster, tt.cluster)
			check("local", got.local, tt.local)
			if got.any != tt.any {
				t.Errorf("any = %v; want %v", got.any, tt.any)
			}
			if diff := cmp.Diff(tt.hairpin, texts(got.hairpin)); diff != "" {
				t.Errorf("hairpin (-want +got):\n%s", diff)
			}
		})
	}
}

// texts returns the text of each value.
func texts[T interface{ String() string }](list []T) []string {
	var s []string
	for _, v := range list {
		s = append(s, v.String())
	}
	return s
}

// TestAssign draws lists and expects a permutation in which everything that can stay does.
func TestAssign(t *testing.T) {
	addr := rapid.Map(rapid.IntRange(1, 12), func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)
	})
	rapid.Check(t, func(t *rapid.T) {
		last := rapid.SliceOfDistinct(addr, rapid.ID).Draw(t, "last")
		want := rapid.SliceOfDistinct(addr, rapid.ID).Draw(t, "want")
		got := assign(last, want)
		a, b := slices.Clone(got), slices.Clone(want)
		slices.SortFunc(a, netip.AddrPort.Compare)
		slices.SortFunc(b, netip.AddrPort.Compare)
		if !slices.Equal(a, b) {
			t.Fatalf("assign(%v, %v) = %v; want a permutation of the latter", last, want, got)
		}
		for i, ap := range last {
			if i < len(got) && slices.Contains(want, ap) && got[i] != ap {
				t.Fatalf("assign(%v, %v) = %v; want %v to stay in place %d", last, want, got, ap, i)
			}
		}
	})
}

func TestEndpointNumbers(t *testing.T) {
	var list []netip.AddrPort
	for i := range 5000 {
		list = append(list, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80))
	}
	numbers := endpointNumbers(list)
	seen := map[uint32]bool{}
	for i, n := range numbers {
		if seen[n] || n&affinityMask != affinityBits {
			t.Fatalf("endpoint %v has number %#x; want one of its own with %#x in front", list[i], n, affinityBits)
		}
		seen[n] = true
	}
	slices.Reverse(list)
	again := endpointNumbers(list)
	slices.Reverse(again)
	if !slices.Equal(numbers, again) {
		t.Error("the numbers depend on the order of the endpoints")
	}
}
