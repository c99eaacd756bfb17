package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/e2e/world"
)

const (
	scaleServices  = 10_000
	scaleEndpoints = 10
)

// scaleAddr returns the cluster IP of Service i.
func scaleAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 28, byte(i >> 8), byte(i)}) }

// scaleEndpoint returns the address of endpoint j of Service i.
func scaleEndpoint(i, j int) netip.Addr {
	n := i*scaleEndpoints + j
	return netip.AddrFrom4([4]byte{10, byte(64 + n>>16), byte(n >> 8), byte(n)})
}

// scaleDocs returns the manifests.
func scaleDocs() string {
	var b strings.Builder
	b.WriteString(nodeDoc)
	for i := range scaleServices {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata: {name: s%d, namespace: scale}
spec: {clusterIP: %s, ports: [{name: p, port: 80, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s%d-1, namespace: scale, labels: {kubernetes.io/service-name: s%d}}
addressType: IPv4
ports: [{name: p, port: 8080, protocol: TCP}]
endpoints:
`, i, scaleAddr(i), i, i)
		for j := range scaleEndpoints {
			fmt.Fprintf(&b, "- {addresses: [%s], nodeName: node-%d}\n", scaleEndpoint(i, j), 2+j)
		}
	}
	return b.String()
}

// TestScale loads many Services: in a few transactions, so that nobody has to wait long for nftables, and with
// a number of chains that does not depend on how many they are. A restart needs no transaction.
func TestScale(t *testing.T) {
	r := newRig(t, world.Config{})
	const last = scaleServices - 1
	f := scenario.Flow{
		Name: "the last Service", Kind: scenario.Pod, Src: netip.MustParseAddr("10.0.0.2"), Proto: "tcp",
		Dst: netip.AddrPortFrom(scaleAddr(last), 80), Want: scenario.DNAT,
	}
	var remote []netip.Addr
	for j := range scaleEndpoints {
		a := scaleEndpoint(last, j)
		remote = append(remote, a)
		f.Endpoints = append(f.Endpoints, netip.AddrPortFrom(a, 8080))
	}
	r.write(t, scaleDocs())
	node := testNode()
	r.node = node
	r.place(t, []scenario.Flow{f}, nil, remote)
	before := r.generation(t)
	begin := time.Now()
	r.start(t, node)
	r.waitStatus(t, "the first load", func(s status) bool { return s.Healthy && s.Services > scaleServices })
	t.Logf("from the start to %d Services x %d endpoints served: %v", scaleServices, scaleEndpoints, time.Since(begin).Round(time.Millisecond))
	// About 20,000 steps each, and a Service is 12: its front end, its cluster IP and its endpoints.
	const most = scaleServices*(scaleEndpoints+2)/20_000 + 2
	if got := r.generation(t) - before; got < 2 || got > most {
		t.Errorf("the first load was %d transactions; want 2 to %d", got, most)
	}
	r.checkFlows(t, []scenario.Flow{f})

	chains := map[string]int{}
	table := ""
	for line := range strings.Lines(r.nft(t, "-t", "list", "ruleset")) {
		if name, ok := strings.CutPrefix(line, "table "); ok {
			table = strings.Fields(name)[0]
		}
		if strings.HasPrefix(strings.TrimSpace(line), "chain ") {
			chains[table]++
		}
	}
	t.Logf("chains: %v", chains)
	for family, n := range chains {
		if n >= 150 {
			t.Errorf("table %s nftproxy has %d chains; want less than 150", family, n)
		}
	}
	before = r.generation(t)
	begin = time.Now()
	r.stop(t)
	r.start(t, node)
	r.waitStatus(t, "the restart", func(s status) bool { return s.Healthy && s.Services > scaleServices })
	t.Logf("from a restart to in line: %v", time.Since(begin).Round(time.Millisecond))
	if got := r.generation(t) - before; got != 0 {
		t.Errorf("a restart made %d transactions; want none", got)
	}
	r.checkConverged(t)
}
