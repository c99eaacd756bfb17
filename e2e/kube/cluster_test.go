package kube

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/world"
)

func TestServices(t *testing.T) {
	r := newRig(t)
	r.start(t, proxyToken)
	r.apply(t, service("web", "10.96.0.10", 30080)+pod("web-1", "web", "10.0.1.1", true)+pod("web-2", "web", "10.0.2.1", true))
	both := []string{"10.0.1.1:8080", "10.0.2.1:8080"}
	r.settles(t, "10.96.0.10:80", both...)
	r.serves(t, "10.96.0.10:80", both...)
	r.servesOutside(t, nodeAddr+":30080", both...)

	// A pod that is not ready, and one that is deleted.
	r.apply(t, pod("web-1", "web", "10.0.1.1", false))
	r.settles(t, "10.96.0.10:80", "10.0.2.1:8080")
	r.apply(t, pod("web-1", "web", "10.0.1.1", true))
	r.remove(t, "pods", "web-2")
	r.settles(t, "10.96.0.10:80", "10.0.1.1:8080")

	// Other ports, of all kinds.
	changed := strings.NewReplacer("port: 80,", "port: 81,", "targetPort: 8080", "targetPort: 8081", "30080", "30081").
		Replace(service("web", "10.96.0.10", 30080))
	r.apply(t, changed)
	r.settles(t, "10.96.0.10:81", "10.0.1.1:8081")
	r.settles(t, "10.96.0.10:80")
	r.serves(t, "10.96.0.10:81", "10.0.1.1:8081")
	r.serves(t, "10.96.0.10:80") // refused
	r.servesOutside(t, nodeAddr+":30081", "10.0.1.1:8081")

	// A Service without selector, whose slice somebody else writes.
	r.apply(t, manual)
	r.settles(t, "10.96.0.11:80", "10.0.2.2:8080")
	r.serves(t, "10.96.0.11:80", "10.0.2.2:8080")

	// No endpoint is left: refused, then nothing is left of the Service.
	r.remove(t, "pods", "web-1")
	r.settles(t, "10.96.0.10:81")
	r.serves(t, "10.96.0.10:81")
	r.remove(t, "services", "web")
	r.eventually(t, "the end of the Service", func() string {
		out, err := r.nft("list", "table", "ip", "nftproxy")
		if err != nil || strings.Contains(out, "default/web") {
			return fmt.Sprintf("default/web is in the table: %v", err)
		}
		return ""
	})
	r.serves(t, "10.96.0.11:80", "10.0.2.2:8080")
}

// manual is a Service without selector and its slice.
const manual = `---
apiVersion: v1
kind: Service
metadata: {name: manual, namespace: default}
spec: {clusterIP: 10.96.0.11, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: manual-1, namespace: default, labels: {kubernetes.io/service-name: manual}}
addressType: IPv4
endpoints: [{addresses: [10.0.2.2], nodeName: node-2}]
ports: [{name: http, port: 8080, protocol: TCP}]
`

func TestScale(t *testing.T) {
	r := newRig(t)
	var all []string
	for i := range 200 {
		all = append(all, fmt.Sprintf("10.0.2.%d", i+1))
	}
	r.place(t, nil, all)
	r.start(t, proxyToken)
	r.apply(t, service("web", "10.96.0.10", 30080))
	r.scale(t, all[:100], nil)
	r.settles(t, "10.96.0.10:80", withPort(all[:100])...)
	r.serves(t, "10.96.0.10:80", withPort(all[:100])...)
	r.scale(t, nil, all[10:100])
	r.settles(t, "10.96.0.10:80", withPort(all[:10])...)
	r.serves(t, "10.96.0.10:80", withPort(all[:10])...)
	r.scale(t, all[100:], all[:10])
	r.settles(t, "10.96.0.10:80", withPort(all[100:])...)
	r.serves(t, "10.96.0.10:80", withPort(all[100:])...)
	r.scale(t, nil, all[100:])
	r.settles(t, "10.96.0.10:80")
	r.serves(t, "10.96.0.10:80")
	if out, err := r.nft("list", "table", "ip", "nftproxy"); err != nil || strings.Contains(out, "10.0.2.") {
		t.Errorf("after all pods are gone the table has some: %v\n%s", err, tail(out))
	}
}

// scale adds pods of web and removes others.
func (r *rig) scale(t *testing.T, add, remove []string) {
	t.Helper()
	name := func(addr string) string { return "web-" + strings.ReplaceAll(addr, ".", "-") }
	for _, a := range add {
		r.apply(t, pod(name(a), "web", a, true))
	}
	for _, a := range remove {
		r.remove(t, "pods", name(a))
	}
}

// withPort returns addresses with the port that pods listen on.
func withPort(addrs []string) []string {
	var list []string
	for _, a := range addrs {
		list = append(list, a+":8080")
	}
	return list
}

func TestAPIServerKilled(t *testing.T) {
	r := newRig(t)
	r.start(t, proxyToken)
	docs := service("web", "10.96.0.10", 30080) + pod("web-1", "web", "10.0.1.1", true) +
		service("old", "10.96.0.12", 30082) + pod("old-1", "old", "10.0.2.3", true)
	r.apply(t, docs)
	r.settles(t, "10.96.0.10:80", "10.0.1.1:8080")
	r.settles(t, "10.96.0.12:80", "10.0.2.3:8080")

	r.c.KillAPI()
	r.gate.Shut()
	r.keeps(t, time.Minute, "10.96.0.10:80", "10.0.1.1:8080")
	if err := r.c.StartAPI(); err != nil {
		t.Fatal(err)
	}
	// What changes while nftproxy cannot see it: an endpoint, a Service less, a Service more.
	r.apply(t, pod("web-2", "web", "10.0.2.1", true)+manual)
	r.remove(t, "pods", "web-1")
	r.remove(t, "services", "old")
	r.keeps(t, 5*time.Second, "10.96.0.12:80", "10.0.2.3:8080")
	if err := r.gate.Open(); err != nil {
		t.Fatal(err)
	}
	r.settles(t, "10.96.0.10:80", "10.0.2.1:8080")
	r.settles(t, "10.96.0.11:80", "10.0.2.2:8080")
	r.settles(t, "10.96.0.12:80")
	r.serves(t, "10.96.0.10:80", "10.0.2.1:8080")

	// A daemon that starts while there is no API server leaves the rules that it finds.
	r.gate.Shut()
	r.stop(t)
	r.start(t, proxyToken)
	r.keeps(t, 5*time.Second, "10.96.0.10:80", "10.0.2.1:8080")
	r.remove(t, "services", "manual")
	if err := r.gate.Open(); err != nil {
		t.Fatal(err)
	}
	r.settles(t, "10.96.0.11:80")
	r.settles(t, "10.96.0.10:80", "10.0.2.1:8080")
}

// keeps asks for a while and fails if a front end is ever not answered by these endpoints.
func (r *rig) keeps(t *testing.T, long time.Duration, frontEnd string, want ...string) {
	t.Helper()
	host := r.w.Pod(netip.MustParseAddr(podAddr))
	for end := time.Now().Add(long); time.Now().Before(end); {
		if say := r.ask(host, podAddr, frontEnd, want...); say != "" {
			t.Fatal(say)
		}
	}
}

func TestWatchBroken(t *testing.T) {
	r := newRig(t)
	r.start(t, proxyToken)
	r.apply(t, service("web", "10.96.0.10", 30080)+pod("web-0", "web", "10.0.1.1", true))
	r.settles(t, "10.96.0.10:80", "10.0.1.1:8080")
	cut := 0
	for i := range 5 {
		// One change before the cut, one after, and both may be lost with the connection.
		addr := fmt.Sprintf("10.0.2.%d", i%3+1)
		r.apply(t, pod(fmt.Sprintf("web-%d", i+1), "web", addr, true))
		cut += r.gate.Cut()
		r.remove(t, "pods", fmt.Sprintf("web-%d", i))
		r.settles(t, "10.96.0.10:80", addr+":8080")
	}
	if cut == 0 {
		t.Error("no connection was there to be cut")
	}
	r.serves(t, "10.96.0.10:80", "10.0.2.2:8080")
}

func TestDenied(t *testing.T) {
	r := newRig(t)
	r.apply(t, blindDocs)
	r.apply(t, service("web", "10.96.0.10", 30080)+pod("web-1", "web", "10.0.1.1", true))
	r.start(t, blindToken)
	r.eventually(t, "a message that names what is denied", func() string {
		log := r.d.log.String()
		if strings.Contains(log, "endpointslices") && strings.Contains(log, "forbidden") {
			return ""
		}
		return log
	})
	if out, err := r.nft("list", "ruleset"); err != nil || strings.Contains(out, "10.96.0.10") {
		t.Errorf("rules of a Service whose slices cannot be read, %v:\n%s", err, out)
	}
	// Nobody has to restart it when the right is given.
	r.apply(t, strings.Replace(blindDocs, "rules:\n", "rules:\n- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}\n", 1))
	r.settles(t, "10.96.0.10:80", "10.0.1.1:8080")
	r.serves(t, "10.96.0.10:80", "10.0.1.1:8080")
	// Nor does anything go when it is taken away again.
	r.apply(t, blindDocs)
	r.gate.Cut()
	r.keeps(t, 5*time.Second, "10.96.0.10:80", "10.0.1.1:8080")
}

// TestNodeChanges changes what is read of this node while the daemon runs.
func TestNodeChanges(t *testing.T) {
	r := newRig(t)
	r.start(t, proxyToken)
	zone := strings.ReplaceAll(manual, "endpoints: [{addresses: [10.0.2.2], nodeName: node-2}]",
		`endpoints:
- {addresses: [10.0.2.1], nodeName: node-2, hints: {forZones: [{name: a}]}}
- {addresses: [10.0.2.2], nodeName: node-2, hints: {forZones: [{name: b}]}}`)
	label := func(zone string) {
		body := fmt.Sprintf(`{"metadata": {"labels": {"topology.kubernetes.io/zone": %s}}}`, zone)
		if err := r.c.Do(context.Background(), "PATCH", "/api/v1/nodes/node-1", "application/merge-patch+json", []byte(body), nil); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { label("null") })
	r.apply(t, zone)
	r.settles(t, "10.96.0.11:80", "10.0.2.1:8080", "10.0.2.2:8080")
	label(`"a"`)
	r.settles(t, "10.96.0.11:80", "10.0.2.1:8080")
	label(`"b"`)
	r.settles(t, "10.96.0.11:80", "10.0.2.2:8080")
	r.serves(t, "10.96.0.11:80", "10.0.2.2:8080")

	// A further range of cluster IPs: what is not allocated in it is dropped, not sent outside.
	dst := netip.MustParseAddrPort("10.97.0.1:8080")
	host := r.w.Pod(netip.MustParseAddr(podAddr))
	if err := r.w.Place(world.Placement{Clients: addrs(outsideAddr), Pods: addrs(podAddr), Remote: addrs("10.0.2.1", "10.0.2.2"), Outside: addrs("10.97.0.1")}); err != nil {
		t.Fatal(err)
	}
	if say := r.ask(host, podAddr, dst.String(), dst.String()); say != "" {
		t.Fatal(say)
	}
	r.apply(t, "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: more}\nspec: {cidrs: [10.97.0.0/16]}\n")
	t.Cleanup(func() { _ = r.c.Delete(context.Background(), "/apis/networking.k8s.io/v1/servicecidrs/more") })
	r.eventually(t, "the drop of what is not allocated", func() string {
		got, err := host.Ask("tcp", netip.MustParseAddr(podAddr), dst, 200*time.Millisecond)
		if err != nil || got.Outcome != world.Silent {
			return fmt.Sprintf("%s, %v", got, err)
		}
		return ""
	})
}
