package metrics

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// web returns a Service with endpoints at the last bytes given, on another node.
func web(port uint16, endpoints ...byte) *model.Service {
	s := &model.Service{
		Name: model.Name{Namespace: "default", Name: "web"}, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
		InternalLocal: true, Ports: []model.Port{{Name: "http", Protocol: model.TCP, Port: port}},
	}
	for _, b := range endpoints {
		s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, model.Endpoint{
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, b}), 8080), Node: "there", Ready: true, Serving: true,
		})
	}
	return s
}

// after returns what follows on a snapshot when its one Service becomes another; nil for none.
func after(s model.Snapshot, service *model.Service) model.Snapshot {
	e := s.Services.Edit()
	if service == nil {
		e.Delete(model.Name{Namespace: "default", Name: "web"})
	} else {
		e.Set(service.Name, service)
	}
	s.Services = e.Map()
	return s
}

func TestChanges(t *testing.T) {
	hinted := web(80, 1)
	hinted.Ports[0].Endpoints[0].Hints = &model.Hints{Zones: []string{"a"}}
	older := web(80, 1)
	older.Created = time.Unix(1, 0)
	tests := []struct {
		name                string
		before, after       *model.Service
		services, endpoints int
	}{
		{"nothing", web(80, 1), web(80, 1), 0, 0},
		{"new", nil, web(80, 1), 1, 1},
		{"new without endpoints", nil, web(80), 1, 0},
		{"gone", web(80, 1), nil, 1, 1},
		{"port", web(80, 1), web(81, 1), 1, 0},
		{"field", web(80, 1), older, 1, 0},
		{"endpoints", web(80, 1), web(80, 2), 0, 1},
		{"hint", web(80, 1), hinted, 0, 1},
		{"both", web(80, 1), web(81, 1, 2), 1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := after(model.Snapshot{}, tt.before)
			if services, endpoints := changes(before, after(before, tt.after)); services != tt.services || endpoints != tt.endpoints {
				t.Errorf("changes() = %d, %d; want %d, %d", services, endpoints, tt.services, tt.endpoints)
			}
		})
	}
}

// A rig is Metrics at work.
type rig struct {
	*Metrics
	t        *testing.T
	registry *prometheus.Registry
	now      time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	return &rig{New(r, Config{IPv6: true, Problems: func() int { return 3 }}), t, r, time.Unix(1000, 0)}
}

// want compares values: each line is a name, the values of the labels, and the value.
func (r *rig) want(lines string) {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += "," + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for line := range strings.Lines(lines) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		v, there := got[name]
		if text := prometheusValue(v); !there || text != value {
			r.t.Errorf("%s = %s, there: %t; want %s", name, text, there, value)
		}
	}
}

// synced has the Metrics hear that the kernel was programmed.
func (r *rig) synced(s model.Snapshot, looked bool, err error) {
	sync := proxier.Sync{Snapshot: s, Err: err, Looked: looked, Steps: 7, Cleanups: 1}
	if err == nil {
		sync.State = plan.Compile(plan.Config{}, s, nil)
	}
	r.Synced(sync, r.now)
}

// TestSynced counts what syncs do.
func TestSynced(t *testing.T) {
	r := newRig(t)
	s := after(model.Snapshot{Node: &model.Node{Name: "here"}}, web(80, 1, 2))
	r.Queued(s, r.now)
	r.want(`
		kubeproxy_sync_proxy_rules_service_changes_total 1
		kubeproxy_sync_proxy_rules_service_changes_pending 1
		kubeproxy_sync_proxy_rules_endpoint_changes_pending 1
		kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds,IPv6 1000
		kubeproxy_sync_proxy_rules_nftables_sync_failures_total,IPv4 0
		nftproxy_transactions_total,failed 0
		nftproxy_input_problems 3`)
	r.synced(s, true, errors.New("busy"))
	r.want(`
		kubeproxy_sync_proxy_rules_service_changes_pending 1
		kubeproxy_sync_proxy_rules_nftables_sync_failures_total,IPv4 1
		kubeproxy_sync_proxy_rules_duration_seconds,IPv4 1
		kubeproxy_sync_full_proxy_rules_duration_seconds,IPv6 1
		nftproxy_kernel_reads_total 1
		nftproxy_transactions_total,failed 1
		nftproxy_transaction_steps_total 0`)
	r.now = r.now.Add(time.Minute)
	r.synced(s, false, nil)
	r.want(`
		kubeproxy_sync_proxy_rules_service_changes_pending 0
		kubeproxy_sync_proxy_rules_endpoint_changes_pending 0
		kubeproxy_sync_proxy_rules_endpoint_changes_total 1
		kubeproxy_sync_proxy_rules_last_timestamp_seconds,IPv4 1060
		kubeproxy_sync_proxy_rules_no_local_endpoints_total,IPv4,internal 1
		kubeproxy_sync_proxy_rules_no_local_endpoints_total,IPv4,external 0
		kubeproxy_sync_proxy_rules_duration_seconds,IPv4 2
		kubeproxy_sync_partial_proxy_rules_duration_seconds,IPv6 1
		kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total,IPv4 2
		nftproxy_kernel_reads_total 1
		nftproxy_transactions_total,done 1
		nftproxy_transaction_steps_total 7
		nftproxy_services 1
		nftproxy_front_ends,IPv4 1
		nftproxy_endpoints,IPv4 0
		nftproxy_front_ends_contested 0
		nftproxy_front_ends_refused 0`)
	later := after(s, web(80, 1))
	r.Queued(later, r.now)
	r.synced(s, false, nil)
	r.want(`
		kubeproxy_sync_proxy_rules_endpoint_changes_pending 1
		kubeproxy_sync_proxy_rules_endpoint_changes_total 2`)
}

// TestProgramming measures each trigger time once, when it is programmed.
func TestProgramming(t *testing.T) {
	r := newRig(t)
	const programmed = "kubeproxy_network_programming_duration_seconds,"
	s := model.Snapshot{Node: &model.Node{PrimaryIPs: []netip.Addr{netip.MustParseAddr("2001:db8::1")}}, Triggered: []time.Time{r.now, r.now}}
	r.synced(s, false, errors.New("busy"))
	r.synced(s, false, errors.New("busy"))
	next := after(s, web(80, 1))
	next.Triggered = []time.Time{r.now}
	r.now = r.now.Add(2 * time.Second)
	r.synced(next, false, nil)
	r.want(programmed + "IPv6 3")
	r.synced(next, false, nil)
	r.want(programmed + "IPv6 3")
	again := next
	again.Triggered = []time.Time{r.now}
	r.synced(again, false, nil)
	r.want(programmed + "IPv6 4")
}

// prometheusValue returns a value as Prometheus writes it.
func prometheusValue(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
