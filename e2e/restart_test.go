package e2e

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/daemon"
	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/e2e/world"
)

// A status is what the tests read of "nftproxy status -o json".
type status struct {
	Healthy   bool   `json:"healthy"`
	Services  int    `json:"services"`
	Syncs     uint64 `json:"syncs"`
	LastError string `json:"lastError"`
	Refused   []struct {
		Service  string `json:"service"`
		FrontEnd string `json:"frontEnd"`
		Reason   string `json:"reason"`
	} `json:"refused"`
	Conflicts []struct {
		FrontEnd string `json:"frontEnd"`
		Holder   string `json:"holder"`
		Loser    string `json:"loser"`
	} `json:"conflicts"`
}

// waitStatus polls the status until it is as wanted.
func (r *rig) waitStatus(t *testing.T, what string, want func(status) bool) status {
	t.Helper()
	var s status
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		s = status{}
		if err = r.d.Status(&s); err == nil && want(s) {
			return s
		}
	}
	t.Fatalf("waited for %s; status %+v, %v; log:\n%s", what, s, err, tail(r.d.Log(), 3000))
	return s
}

// flow returns a flow of a line of a scenario.
func flow(t *testing.T, line string) scenario.Flow {
	t.Helper()
	f, err := scenario.ParseFlow(line)
	if err != nil {
		t.Fatal(err)
	}
	f.Name = "flow"
	return f
}

// addrs parses addresses.
func addrs(words ...string) []netip.Addr {
	var list []netip.Addr
	for _, w := range words {
		list = append(list, netip.MustParseAddr(w))
	}
	return list
}

// webDocs is a Service with two endpoints.
const webDocs = nodeDoc + `---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  clusterIP: 172.30.0.41
  ports: [{name: http, port: 80, protocol: TCP, nodePort: 30080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.0.1.1], nodeName: node-1}, {addresses: [10.0.2.1], nodeName: node-2}]
`

// webFlows are flows of webDocs.
func webFlows(t *testing.T) []scenario.Flow {
	return []scenario.Flow{
		flow(t, "pod 10.0.0.2 -> 172.30.0.41:80/tcp => 10.0.1.1:8080 10.0.2.1:8080"),
		flow(t, "external 203.0.113.2 -> 192.168.0.2:30080/tcp => 10.0.1.1:8080 10.0.2.1:8080 masq"),
	}
}

// startWeb starts a daemon that serves webDocs.
func startWeb(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, world.Config{})
	r.write(t, webDocs)
	r.start(t, testNode())
	r.place(t, webFlows(t), addrs("10.0.1.1"), addrs("10.0.2.1", "10.0.2.2"))
	r.settle(t)
	r.checkFlows(t, webFlows(t))
	return r
}

func TestRestart(t *testing.T) {
	r := startWeb(t)
	r.stop(t)
	r.checkFlows(t, webFlows(t)) // the rules stay
	r.checkListing(t)

	before := r.generation(t)
	r.start(t, testNode())
	r.waitStatus(t, "the first sync", func(s status) bool { return s.Healthy && s.Syncs > 0 })
	if got := r.generation(t); got != before {
		t.Errorf("a restart on unchanged manifests made %d transactions; want none", got-before)
	}
	r.checkFlows(t, webFlows(t))

	// Manifests that change while no daemon runs: only the difference is sent, in one transaction.
	r.stop(t)
	r.write(t, strings.ReplaceAll(webDocs, "10.0.2.1", "10.0.2.2"))
	before = r.generation(t)
	r.start(t, testNode())
	r.settle(t)
	if got := r.generation(t); got != before+1 {
		t.Errorf("a restart on changed manifests made %d transactions; want 1", got-before)
	}
	r.checkFlows(t, []scenario.Flow{flow(t, "pod 10.0.0.2 -> 172.30.0.41:80/tcp => 10.0.1.1:8080 10.0.2.2:8080")})
}

func TestKilled(t *testing.T) {
	r := startWeb(t)
	if err := syscall.Kill(r.d.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = r.d.Wait()
	r.d = nil
	r.checkFlows(t, webFlows(t))
	r.start(t, testNode()) // what is left of the killed daemon's socket is no obstacle
	r.waitStatus(t, "the first sync", func(s status) bool { return s.Healthy && s.Syncs > 0 })
	r.apply(t, webDocs)
	r.checkFlows(t, webFlows(t))
}

func TestSecondDaemon(t *testing.T) {
	r := startWeb(t)
	cfg := r.cfg
	cfg.Dir = t.TempDir() // a socket of its own: what the two share is the node
	second, err := daemon.Start(r.w.Node.NetNS, cfg)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-second.Ended():
	case <-time.After(patience):
		_ = second.Stop()
		t.Fatal("a second daemon on the node runs; want it to refuse")
	}
	if second.Wait() == nil || !strings.Contains(second.Log(), "already") {
		t.Errorf("a second daemon ended with %v and said %q; want an error that says why", second.Wait(), second.Log())
	}
	r.checkFlows(t, webFlows(t))
	r.apply(t, webDocs) // the first one is alive
}

func TestCleanup(t *testing.T) {
	r := startWeb(t)
	r.stop(t)
	foreign := "add table ip foreign; add chain ip foreign c"
	r.nft(t, foreign)
	r.cleanup(t)
	if got, want := strings.TrimSpace(r.nft(t, "list", "tables")), "table ip foreign"; got != want {
		t.Errorf("after nftproxy cleanup nft list tables = %q; want %q", got, want)
	}
	r.cleanup(t) // again, on nothing
}

// TestNodeAddress gives the node another address: node ports are served there without a restart.
func TestNodeAddress(t *testing.T) {
	r := newRig(t, world.Config{})
	node := testNode()
	node.Flags = append(node.Flags, "--nodeport-addresses=192.168.0.0/16")
	r.write(t, webDocs)
	r.start(t, node)
	f := flow(t, "external 203.0.113.2 -> 192.168.7.2:30080/tcp => 10.0.1.1:8080 10.0.2.1:8080 masq")
	r.node.Addresses = append(r.node.Addresses, f.Dst.Addr())
	r.place(t, append(webFlows(t), f), addrs("10.0.1.1"), addrs("10.0.2.1"))
	r.settle(t)
	if err := r.w.SetNodeAddrs(r.node.Addresses); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for r.checkFlow(f) != nil && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	r.checkFlows(t, append(webFlows(t), f))
}
