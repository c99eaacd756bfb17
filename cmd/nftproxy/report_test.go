package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
	"github.com/nftproxy/nftproxy/watch"
)

// testReport returns a report with something of everything in it.
func testReport() report {
	started := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	endpoint := netip.MustParseAddrPort
	return report{
		Version: "v1", PID: 7, Node: "node-1", Started: started,
		Status: proxier.Status{
			Services: 2, FrontEnds: 3, Endpoints: 4,
			LastSync: started.Add(time.Minute), LastDuration: 1234567, LastSteps: 9, Syncs: 5, Failures: 1,
			Refused:   []proxier.Refused{{Service: "default/db:", FrontEnd: "10.96.0.2:80/tcp", Reason: "file exists", Since: started.Add(90 * time.Second), Attempts: 3}},
			Conflicts: []proxier.Conflict{{FrontEnd: "192.0.2.1:1/udp", Holder: "default/a:x", Loser: "default/b:y"}},
			Fronts: []proxier.Front{
				{
					Service: "default/web:http", FrontEnd: "10.96.0.1:80/tcp", Family: "ip", Plane: plan.PlaneIPVS, Scheduler: "lc",
					Endpoints: []netip.AddrPort{endpoint("10.244.1.1:8080"), endpoint("10.244.1.2:8080")},
					Local:     []netip.AddrPort{endpoint("10.244.1.1:8080")},
				},
				{Service: "default/none:", FrontEnd: "10.96.0.9:80/tcp", Family: "ip", Refuse: "reject", Plane: plan.PlaneNFTables, Scheduler: model.Random},
			},
			Balanced: map[string]int{"lc": 1}, Fallbacks: map[string]int{"sed": 2, "mh": 1},
			Servers: []proxier.Server{
				{
					Service: "default/web", Address: "TCP 10.96.0.1:80", Scheduler: "lc", Persistence: 3 * time.Hour,
					Destinations: []proxier.Destination{
						{Endpoint: endpoint("10.244.1.1:8080"), Weight: 1, Active: 2, Inactive: 3},
						{Endpoint: endpoint("10.244.1.2:8080"), Weight: 0, Active: 1},
					},
				},
				{Address: "TCP 10.96.0.8:80", Scheduler: "rr"},
			},
		},
		Problems: []problem{{Source: "manifests", Where: "a.yaml:2", Object: "Service default/b", Field: "spec.ports[0].port", Message: "is 70000"}},
	}
}

// A spoken is a source that says some parts, waits for the end and then returns an error.
type spoken struct {
	parts []watch.Part
	err   error
}

// String names the source.
func (s spoken) String() string { return "spoken" }

// Run says the parts. A source without any ends at once.
func (s spoken) Run(ctx context.Context, put func(watch.Part)) error {
	for _, p := range s.parts {
		put(p)
	}
	if len(s.parts) > 0 {
		<-ctx.Done()
	}
	return s.err
}

func TestFirstPart(t *testing.T) {
	fail := errors.New("no netlink")
	part := func(names ...string) (p watch.Part) {
		for _, n := range names {
			p.Addresses = append(p.Addresses, watch.Address{Link: n})
		}
		return p
	}
	tests := []struct {
		name   string
		source spoken
		want   string
		err    error
	}{
		{"OK the first of two", spoken{parts: []watch.Part{part("a"), part("b")}}, "a", nil},
		{"OK what waits does not count", spoken{parts: []watch.Part{{Waiting: true}, part("b")}}, "b", nil},
		{"OK an error after it spoke", spoken{parts: []watch.Part{part("a")}, err: fail}, "a", nil},
		{"bad it ends without a word", spoken{err: fail}, "", fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := firstPart(t.Context(), tt.source)
			if !errors.Is(err, tt.err) {
				t.Fatalf("firstPart() = %v; want %v", err, tt.err)
			}
			if tt.want != "" && (len(got.Addresses) != 1 || got.Addresses[0].Link != tt.want) {
				t.Errorf("firstPart() = %+v; want that of %s", got, tt.want)
			}
		})
	}
}

func TestRemoved(t *testing.T) {
	table := nft.Table{
		Family: nft.IPv6, Name: "nftproxy", Chains: make([]nft.Chain, 3), Sets: make([]nft.Set, 2),
		Elements: map[string][]nft.Element{"a": make([]nft.Element, 4), "b": make([]nft.Element, 1)},
	}
	const want = "deleted table ip6 nftproxy: 3 chains, 2 sets and maps, 5 elements"
	if got := removed(&table); got != want {
		t.Errorf("removed() = %q; want %q", got, want)
	}
}

// TestRun runs command lines in this process: what goes where, and the exit codes.
func TestRun(t *testing.T) {
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"OK version", []string{"version"}, exitOK, "nftproxy ", ""},
		{"bad flag", []string{"run", "--x"}, exitUsage, "", "unknown flag"},
		{"bad socket", []string{"status", "--socket", "/nonexistent/s"}, exitFailed, "", "no daemon answers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			if code := run(tt.args, &stdout, &stderr); code != tt.code {
				t.Errorf("run(%q) = %d; want %d", tt.args, code, tt.code)
			}
			if !strings.HasPrefix(stdout.String(), tt.stdout) || (tt.stdout == "") != (stdout.Len() == 0) {
				t.Errorf("run(%q) prints %q; want %q", tt.args, stdout.String(), tt.stdout)
			}
			if !strings.Contains(stderr.String(), tt.stderr) || (tt.stderr == "") != (stderr.Len() == 0) {
				t.Errorf("run(%q) says %q; want %q", tt.args, stderr.String(), tt.stderr)
			}
		})
	}
}
