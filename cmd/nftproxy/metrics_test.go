package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	promodel "github.com/prometheus/common/model"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"k8s.io/client-go/tools/metrics"

	"github.com/nftproxy/nftproxy/cmd/nftproxy/options"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/fake"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/events"
	ipvsfake "github.com/nftproxy/nftproxy/proxier/ipvs/fake"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
	"github.com/nftproxy/nftproxy/watch"
)

// scrape does everything that has a series once and returns what Prometheus reads.
func scrape(t *testing.T) (*observer, map[string]*dto.MetricFamily) {
	t.Helper()
	o := options.New()
	if err := o.Complete(pflag.NewFlagSet("", pflag.ContinueOnError)); err != nil {
		t.Fatal(err)
	}
	observer := newObserver(config{Options: o, NodeName: "here", Manifests: "m"}, zap.NewNop(), nil)
	engine := proxier.New(plan.Config{MasqueradeBit: 14}, &fake.Kernel{}, &ipvsfake.Kernel{Without: []string{"lc"}}, zap.NewNop())
	hub := watch.NewHub(watch.Config{NodeName: "here"})
	observer.observe(engine, hub)
	s := model.Snapshot{
		Node: &model.Node{Name: "here", PrimaryIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, Triggered: []time.Time{time.Now()},
	}
	services := s.Services.Edit()
	for name, scheduler := range map[string]string{"balanced": "rr", "fallback": "lc"} {
		services.Set(model.Name{Name: name}, &model.Service{Name: model.Name{Name: name}, Scheduler: scheduler})
	}
	s.Services = services.Map()
	snapshots := make(chan model.Snapshot, 1)
	for range 2 {
		observer.queued(s)
		snapshots <- s
		runUntilSynced(t, engine, snapshots)
		s.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	}
	observer.passed(conntrack.Pass{Family: nft.IPv4, Deleted: 1})
	observer.metrics.Probed("/healthz", 200)
	observer.metrics.Probed("/livez", 503)
	ctx, u := context.Background(), url.URL{Scheme: "https", Host: "10.0.0.1:6443"}
	metrics.RequestResult.Increment(ctx, "200", "GET", u.Host)
	metrics.RequestRetry.IncrementRetry(ctx, "429", "GET", u.Host)
	metrics.RequestLatency.Observe(ctx, "GET", u, time.Second)
	metrics.RateLimiterLatency.Observe(ctx, "GET", u, time.Second)
	metrics.RequestSize.Observe(ctx, "GET", u.Host, 1)
	metrics.ResponseSize.Observe(ctx, "GET", u.Host, 1)

	servers, err := observer.servers(events.Log(zap.NewNop()))
	if err != nil || len(servers) != 2 {
		t.Fatalf("servers() = %d servers, %v; want 2", len(servers), err)
	}
	w := httptest.NewRecorder()
	servers[1].Handler.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	parser := expfmt.NewTextParser(promodel.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatalf("parse /metrics: %v", err)
	}
	return observer, families
}

// runUntilSynced runs an engine until it has taken and done a snapshot.
func runUntilSynced(t *testing.T, engine *proxier.Engine, snapshots chan model.Snapshot) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	before := engine.Status(false).Syncs
	go func() { done <- engine.Run(ctx, snapshots) }()
	for engine.Status(false).Syncs == before {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestMetrics compares METRICS.md with what is served: names, types, labels.
func TestMetrics(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "METRICS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var documented, prefixes []string
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.HasPrefix(line, "| `") {
			continue
		}
		word := func(i int) string { return strings.TrimSpace(strings.ReplaceAll(cells[i], "`", "")) }
		if prefix, ok := strings.CutSuffix(word(1), "*"); ok {
			prefixes = append(prefixes, prefix)
			continue
		}
		labels := strings.Fields(word(3))
		slices.Sort(labels)
		documented = append(documented, fmt.Sprintf("%s %s %v", word(1), word(2), labels))
	}
	slices.Sort(documented)
	observer, families := scrape(t)
	var served, ours []string
	covered := map[string]bool{}
	for name, f := range families {
		if strings.HasPrefix(name, "nftproxy_") {
			ours = append(ours, name)
		}
		if i := slices.IndexFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }); i >= 0 {
			covered[prefixes[i]] = true
			continue
		}
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		served = append(served, fmt.Sprintf("%s %s %v", name, strings.ToLower(f.GetType().String()), labels))
	}
	slices.Sort(served)
	if diff := cmp.Diff(documented, served); diff != "" {
		t.Errorf("METRICS.md and /metrics differ (-documented +served):\n%s", diff)
	}
	if len(covered) != len(prefixes) {
		t.Errorf("/metrics has series of %v; METRICS.md tells of %v", covered, prefixes)
	}
	problems, err := testutil.GatherAndLint(observer.registry, ours...)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint of %v = %v, %v; want nothing", ours, problems, err)
	}
	// What the dashboard of kubernetes-mixin reads.
	for _, name := range []string{
		"kubeproxy_sync_proxy_rules_duration_seconds", "kubeproxy_network_programming_duration_seconds", "rest_client_requests_total",
		"rest_client_request_duration_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total", "go_goroutines",
	} {
		if families[name] == nil {
			t.Errorf("/metrics has no %s", name)
		}
	}
	checkBuckets(t, families)
}

// checkBuckets compares the buckets with those of kube-proxy.
func checkBuckets(t *testing.T, families map[string]*dto.MetricFamily) {
	t.Helper()
	for name, want := range map[string]struct {
		n           int
		first, last float64
	}{
		"kubeproxy_sync_proxy_rules_duration_seconds":          {15, 0.001, 16.384},
		"kubeproxy_sync_full_proxy_rules_duration_seconds":     {15, 0.001, 16.384},
		"kubeproxy_sync_partial_proxy_rules_duration_seconds":  {15, 0.001, 16.384},
		"kubeproxy_conntrack_reconciler_sync_duration_seconds": {15, 0.001, 16.384},
		"kubeproxy_network_programming_duration_seconds":       {80, 0.25, 300},
		"rest_client_request_duration_seconds":                 {12, 0.005, 60},
	} {
		f := families[name]
		if f == nil {
			t.Errorf("/metrics has no %s", name)
			continue
		}
		// The last one is +Inf.
		b := f.Metric[0].Histogram.Bucket
		if n := len(b) - 1; n != want.n || b[0].GetUpperBound() != want.first || b[n-1].GetUpperBound() != want.last {
			t.Errorf("%s has %d buckets, %v to %v; want %+v", name, n, b[0].GetUpperBound(), b[n-1].GetUpperBound(), want)
		}
	}
}

// TestEvents turns what goes wrong with Services into events.
func TestEvents(t *testing.T) {
	web := model.Name{Namespace: "default", Name: "web"}
	got := slices.Concat(
		inputEvents([]watch.Problem{
			{Object: "Service default/web", Field: "spec.type", Message: "is odd"}, {Object: "EndpointSlice default/web-1", Message: "is odd"}, {Message: "is odd"},
		}),
		refusedEvents([]proxier.Refused{{Service: "default/web", FrontEnd: "10.96.0.1:80/tcp", Reason: "busy"}}),
		conflictEvents([]plan.Conflict{
			{Address: "10.96.0.1:80/tcp", Holder: model.Name{Namespace: "a", Name: "b"}, Loser: web}, {Address: "10.96.0.1:80/tcp", Holder: web, Loser: web},
		}),
	)
	want := []events.Event{
		{Service: web, Warning: true, Reason: "InvalidField", Action: "Read", Note: "spec.type: is odd"},
		{Service: web, Warning: true, Reason: "FrontEndRefused", Action: "Program", Note: "the kernel refused 10.96.0.1:80/tcp: busy"},
		{Service: web, Warning: true, Reason: "FrontEndConflict", Action: "Program", Note: "10.96.0.1:80/tcp is not served for this Service: the older a/b has it"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}
