package health

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/proxier/events"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// service returns a Service with a check, and a number of endpoints on this node.
func service(name string, created int64, port uint16, local int) *model.Service {
	s := &model.Service{
		Name: model.Name{Namespace: "a", Name: name}, Created: time.Unix(created, 0), HealthCheckNodePort: port,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
		Ports:      []model.Port{{Protocol: model.TCP, Port: 80}},
	}
	for i := range local {
		s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, model.Endpoint{
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 8080), Node: "here", Ready: true, Serving: true,
		})
	}
	return s
}

// state returns the State of a node with addresses of 127.0.0.0/8 that count as its primary ones.
func state(all bool, primary string, services ...*model.Service) *plan.State {
	var m model.Map[model.Name, *model.Service]
	e := m.Edit()
	for _, s := range services {
		e.Set(s.Name, s)
	}
	node := &model.Node{Name: "here"}
	if primary != "" {
		node.PrimaryIPs = []netip.Addr{netip.MustParseAddr(primary)}
	}
	config := plan.Config{NodePortAddresses: plan.NodePortAddresses{All: all}}
	return plan.Compile(config, model.Snapshot{Services: e.Map(), Node: node}, nil)
}

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// A rig is a Server at work.
type rig struct {
	*Server
	healthy  atomic.Bool
	reported chan []events.Event
}

// start runs a Server until the test ends.
func start(t *testing.T) *rig {
	t.Helper()
	r := &rig{reported: make(chan []events.Event, 10)}
	r.healthy.Store(true)
	r.Server = New(Config{Node: "here", Healthy: r.healthy.Load, Report: func(e []events.Event) { r.reported <- e }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run() = %v; want nil", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// get asks until the answer has a status, or 0 for no answer at all, and returns it with its body.
func get(t *testing.T, url string, status int) (*http.Response, string) {
	t.Helper()
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.Now().Add(10 * time.Second)
	for {
		res, err := client.Get(url)
		switch {
		case err != nil && status == 0:
			return nil, ""
		case err == nil && res.StatusCode == status:
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return res, string(b)
		case err == nil:
			res.Body.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: no answer %d in time; the last was %v, %v", url, status, res, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	tests := []struct {
		name    string
		local   int
		healthy bool
		status  int
	}{
		{"bad no endpoints", 0, true, 503},
		{"OK", 18, true, 200},
		{"bad proxy", 7, false, 503},
	}
	r := start(t)
	port := freePort(t)
	url := fmt.Sprintf("http://127.0.0.1:%d/any/path?really", port)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.healthy.Store(tt.healthy)
			r.Set(state(true, "", service("b", 0, port, tt.local)))
			want := fmt.Sprintf("{\n\t\"service\": {\n\t\t\"namespace\": \"a\",\n\t\t\"name\": \"b\"\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %t\n}", tt.local, tt.healthy)
			// What Set says is done a moment later.
			for {
				res, body := get(t, url, tt.status)
				if !strings.Contains(body, fmt.Sprintf(": %d,", tt.local)) {
					continue
				}
				if diff := cmp.Diff(want, body); diff != "" {
					t.Errorf("body (-want +got):\n%s", diff)
				}
				if !json.Valid([]byte(body)) {
					t.Errorf("body = %s; want JSON", body)
				}
				for k, v := range map[string]string{
					"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "X-Load-Balancing-Endpoint-Weight": fmt.Sprint(tt.local),
				} {
					if got := res.Header.Get(k); got != v {
						t.Errorf("header %s = %q; want %q", k, got, v)
					}
				}
				return
			}
		})
	}
}

// TestMoves follows the port of a Service, the addresses of the node, and the end of the Service.
func TestMoves(t *testing.T) {
	r := start(t)
	first, second := freePort(t), freePort(t)
	at := func(addr string, port uint16) string { return fmt.Sprintf("http://%s:%d/", addr, port) }
	r.Set(state(true, "", service("b", 0, first, 1)))
	get(t, at("127.0.0.1", first), 200)
	r.Set(state(true, "", service("b", 0, second, 1)))
	get(t, at("127.0.0.1", second), 200)
	get(t, at("127.0.0.1", first), 0)
	r.Set(state(true, ""))
	get(t, at("127.0.0.1", second), 0)
}

// TestPortTaken has a port that somebody else listens on, for a time, and one that two Services want.
func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	port := taken.Addr().(*net.TCPAddr).AddrPort().Port()
	r := start(t)
	r.Set(state(true, "", service("b", 0, port, 1)))
	got := <-r.reported
	want := events.Event{
		Service: model.Name{Namespace: "a", Name: "b"}, Warning: true, Reason: "FailedToStartServiceHealthcheck", Action: "Listen",
		Note: fmt.Sprintf("node here failed to start healthcheck \"a/b\" on port %d: listen tcp4 0.0.0.0:%d: bind: address already in use", port, port),
	}
	if diff := cmp.Diff([]events.Event{want}, got); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
	taken.Close()
	r.Set(state(true, "", service("b", 2, port, 1)))
	if got := <-r.reported; len(got) != 0 {
		t.Errorf("reported %v; want nothing now that the port is free", got)
	}
	get(t, fmt.Sprintf("http://127.0.0.1:%d/", port), 200)

	r.Set(state(true, "", service("b", 2, port, 1), service("older", 1, port, 2)))
	if got := <-r.reported; len(got) != 1 || got[0].Service.Name != "b" || !strings.Contains(got[0].Note, "is that of a/older") {
		t.Errorf("reported %v; want that a/older has the port of a/b", got)
	}
	if _, body := get(t, fmt.Sprintf("http://127.0.0.1:%d/", port), 200); !strings.Contains(body, `"older"`) {
		t.Errorf("the port of two Services answers %s; want the older one's", body)
	}
}

// TestOpenings lists where checks are answered.
func TestOpenings(t *testing.T) {
	b := service("b", 0, 30001, 0)
	b.ClusterIPs = append(b.ClusterIPs, netip.MustParseAddr("fd00::1"))
	four := service("four", 1, 30002, 0)
	tests := []struct {
		name  string
		state *plan.State
		want  string
	}{
		{"all addresses", state(true, "", b, four), "a/b 0.0.0.0:30001, a/b [::]:30001, a/four 0.0.0.0:30002"},
		{"one address", state(false, "192.0.2.1", b, four), "a/b 192.0.2.1:30001, a/four 192.0.2.1:30002"},
		{"no address", state(false, "", b), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addrs, all := tt.state.NodePortAddrs()
			var got []string
			for _, o := range openings(tt.state.Checks(), addrs, all) {
				got = append(got, o.check.Service.String()+" "+o.place.String())
			}
			if got := strings.Join(got, ", "); got != tt.want {
				t.Errorf("openings = %s; want %s", got, tt.want)
			}
		})
	}
}
