package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/daemon"
	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/e2e/world"
)

const (
	// churnChanges is how often endpoints come or go.
	churnChanges = 1000
	// churnEndpoints is how many endpoints come and go; one more is always there.
	churnEndpoints = 8
)

// churnEndpoint returns the address of an endpoint; the last one always is there.
func churnEndpoint(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}) }

// An endpointSet is a set of endpoints: bit i is endpoint i.
type endpointSet uint16

// docs returns the manifests of a Service with the endpoints of the set.
func (s endpointSet) docs() string {
	var b strings.Builder
	b.WriteString(nodeDoc + `---
apiVersion: v1
kind: Service
metadata: {name: churn, namespace: default}
spec:
  type: NodePort
  clusterIP: 172.30.0.41
  ports:
  - {name: t, port: 80, protocol: TCP, nodePort: 30080}
  - {name: u, port: 80, protocol: UDP, nodePort: 30080}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: churn-1, namespace: default, labels: {kubernetes.io/service-name: churn}}
addressType: IPv4
ports: [{name: t, port: 8080, protocol: TCP}, {name: u, port: 8080, protocol: UDP}]
endpoints:
`)
	for i := range churnEndpoints + 1 {
		if s&(1<<i) != 0 {
			fmt.Fprintf(&b, "- {addresses: [%s], nodeName: node-2}\n", churnEndpoint(i))
		}
	}
	return b.String()
}

// nodeDoc is the Node object of testNode.
const nodeDoc = `---
apiVersion: v1
kind: Node
metadata: {name: node-1}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}, {type: InternalIP, address: "2001:db8::1"}]}
`

// testNode returns the node of the tests that are not about settings.
func testNode() scenario.Node {
	return scenario.Node{
		Name:      "node-1",
		Addresses: []netip.Addr{netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("2001:db8::1")},
		Flags:     []string{"--cluster-cidr=10.0.0.0/8,fd00:10::/32"},
	}
}

// A history is what the endpoints were, in order. Connections are judged by it: one may reach the endpoints of
// every state from the last one that was known to be in the kernel when it began to the last one that
// was written when it ended.
type history struct {
	mu     sync.Mutex
	states []endpointSet // guarded by mu
	acked  int           // guarded by mu: the state that the kernel is known to hold
}

// begin returns the number of the state that the kernel is known to hold.
func (h *history) begin() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acked
}

// allowed returns what may be reached by a connection that began at a state and has ended now.
func (h *history) allowed(begin int) endpointSet {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all endpointSet
	for _, s := range h.states[begin:] {
		all |= s
	}
	return all
}

// write notes a state that is about to be written.
func (h *history) write(s endpointSet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states = append(h.states, s)
}

// ack notes that the kernel holds the state that was written last.
func (h *history) ack() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked = len(h.states) - 1
}

// TestChurn connects without pause while endpoints come and go.
func TestChurn(t *testing.T) {
	r := newRig(t, world.Config{})
	always := endpointSet(1) << churnEndpoints
	h := &history{states: []endpointSet{always}}
	r.write(t, always.docs())
	r.start(t, testNode())
	var remote []netip.Addr
	for i := range churnEndpoints + 1 {
		remote = append(remote, churnEndpoint(i))
	}
	pod := netip.MustParseAddr("10.0.0.2")
	r.place(t, []scenario.Flow{{Kind: scenario.Pod, Src: pod, Dst: netip.MustParseAddrPort("172.30.0.41:80")}}, nil, remote)
	r.settle(t)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var counts [5]atomic.Int64
	for i, c := range []struct {
		host       *world.Host
		src        netip.Addr
		proto, dst string
	}{
		{r.w.Pod(pod), pod, "tcp", "172.30.0.41:80"},
		{r.w.Clients, freshClient(0, true), "tcp", "192.168.0.2:30080"},
		{r.w.Pod(pod), pod, "udp", "172.30.0.41:80"},
		{r.w.Clients, freshClient(1, true), "udp", "192.168.0.2:30080"},
		{r.w.Node, r.nodeAddr(true), "tcp", "172.30.0.41:80"},
	} {
		wg.Go(func() {
			err := c.host.Do(func() error {
				return hammer(h, stop, &counts[i], c.proto, c.src, netip.MustParseAddrPort(c.dst))
			})
			if err != nil {
				t.Errorf("%s from %s: %v", c.proto, c.src, err)
			}
		})
	}
	state := always
	random := rand.New(rand.NewPCG(1, 2))
	for i := range churnChanges {
		state ^= 1 << random.IntN(churnEndpoints)
		h.write(state)
		r.applyUpdate(t, state.docs(), uint16(10000+i))
		h.ack()
	}
	close(stop)
	wg.Wait()
	r.checkListing(t)
	r.checkConverged(t)
	total := int64(0)
	for i := range counts {
		total += counts[i].Load()
		if counts[i].Load() == 0 {
			t.Errorf("client %d made no connection", i)
		}
	}
	t.Logf("%d changes, %d connections", churnChanges, total)
}

// applyUpdate is apply for manifests in which no object comes or goes: it waits for the new port of a Service
// that is always there.
func (r *rig) applyUpdate(t *testing.T, docs string, port uint16) {
	t.Helper()
	addr := netip.MustParseAddr("172.31.254.1")
	docs += fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: updates, namespace: e2e, annotations: {nftproxy.io/scheduler: random}}
spec: {clusterIP: %s, ports: [{name: m, port: %d, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: updates-1, namespace: e2e, labels: {kubernetes.io/service-name: updates}}
addressType: IPv4
endpoints: [{addresses: [10.255.255.254], nodeName: elsewhere}]
ports: [{name: m, port: 7, protocol: TCP}]
`, addr, port)
	if err := daemon.WriteFile(r.cfg.Manifests(), "manifests.yaml", docs); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		res, err := r.w.Node.Ask("tcp", r.nodeAddr(true), netip.AddrPortFrom(addr, port), slow(20*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if res.Outcome == world.Answered {
			return
		}
	}
	t.Fatalf("the manifests were not in the kernel after %v; the daemon's log:\n%s", patience, tail(r.d.Log(), 4000))
}

// hammer connects until stop is closed and returns an error for the first connection that does not reach
// an endpoint that it may reach. It never uses a source port twice, so that conntrack does not remember
// an earlier connection.
func hammer(h *history, stop <-chan struct{}, count *atomic.Int64, proto string, src netip.Addr, dst netip.AddrPort) error {
	for port := uint16(1025); port < 65000; port++ {
		select {
		case <-stop:
			return nil
		default:
		}
		begin := h.begin()
		res, err := world.Ask(proto, netip.AddrPortFrom(src, port), dst, slow(5*time.Second))
		if errors.Is(err, unix.EADDRINUSE) {
			continue // a server listens there
		}
		if err != nil {
			return err
		}
		count.Add(1)
		if err := judge(res, h.allowed(begin)); err != nil {
			return fmt.Errorf("connection %d: %w", count.Load(), err)
		}
	}
	<-stop
	return nil
}

// judge returns an error unless the result is an answer of an endpoint in the set.
func judge(res world.Result, allowed endpointSet) error {
	if res.Outcome != world.Answered {
		return fmt.Errorf("%s; want an answer", res)
	}
	for i := range churnEndpoints + 1 {
		if allowed&(1<<i) != 0 && res.Answer.Dst.Addr() == churnEndpoint(i) {
			return nil
		}
	}
	return fmt.Errorf("%s, which is no endpoint now (%09b)", res, allowed)
}
