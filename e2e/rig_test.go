package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/e2e/daemon"
	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/e2e/world"
)

// patience is how long a test waits for what must happen.
var patience = slow(20 * time.Second)

// controlPort is a port that the node itself answers on and that no Service has.
const controlPort = 7

// A marker is a Service that is written with every change of the manifests, in place of the one before. When
// the new one answers and the old one is gone, all that was written with it is in the kernel: what was
// added, since everything goes in by one transaction, and what was removed, which the daemon believes
// only when the file has been left alone for a moment.
const markerDocs = `---
apiVersion: v1
kind: Service
metadata: {name: marker-%[1]d, namespace: e2e, annotations: {nftproxy.io/scheduler: random}}
spec: {clusterIP: %[2]s, ports: [{name: m, port: 7, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: marker-%[1]d, namespace: e2e, labels: {kubernetes.io/service-name: marker-%[1]d}}
addressType: IPv4
endpoints: [{addresses: [10.255.255.254], nodeName: elsewhere}]
ports: [{name: m, port: 7, protocol: TCP}]
`

// markerAddr returns the cluster IP of a marker. Outside answers there when the node does not.
func markerAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{172, 31, 255, byte(n % 4)}) }

// A rig is a world whose node runs the daemon.
type rig struct {
	w       *world.World
	cfg     daemon.Config
	d       *daemon.Daemon
	node    scenario.Node
	marker  int // the number of the marker that was written last
	fresh   int // how many clients were used up by tests of affinity
	scratch *netns.NetNS
	ports   ports
}

// newRig makes a world for a test. The daemon does not run yet.
func newRig(t *testing.T, cfg world.Config) *rig {
	t.Helper()
	r := &rig{cfg: daemon.Config{Binary: built(t), Dir: t.TempDir()}}
	if err := os.Mkdir(r.cfg.Manifests(), 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := world.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.w = w
	if r.scratch, err = netns.New("scratch"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.d != nil {
			if err := r.d.Stop(); err != nil {
				t.Errorf("stop the daemon: %v", err)
			}
			if t.Failed() && testing.Verbose() {
				t.Logf("the daemon's log:\n%s", tail(r.d.Log(), 4000))
			}
		}
		if err := r.scratch.Close(); err != nil {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// tail returns the last n bytes of s.
func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// start gives the node its addresses and starts the daemon on the manifests that are there.
func (r *rig) start(t *testing.T, node scenario.Node) {
	t.Helper()
	if err := r.w.SetNodeAddrs(node.Addresses); err != nil {
		t.Fatal(err)
	}
	r.node = node
	r.cfg.NodeName, r.cfg.Flags = node.Name, slices.Clone(node.Flags)
	if *scheduler != "" {
		r.cfg.Flags = append(r.cfg.Flags, "--proxy-mode=ipvs", "--ipvs-scheduler="+*scheduler)
		if !slices.ContainsFunc(node.Flags, func(f string) bool { return strings.HasPrefix(f, "--nodeport-addresses=") }) {
			// The default of the mode nftables; that of the mode ipvs is all.
			r.cfg.Flags = append(r.cfg.Flags, "--nodeport-addresses=primary")
		}
	}
	d, err := daemon.Start(r.w.Node.NetNS, r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.d = d
}

// stop ends the daemon; its rules stay.
func (r *rig) stop(t *testing.T) {
	t.Helper()
	if r.d == nil {
		return
	}
	if err := r.d.Stop(); err != nil {
		t.Errorf("stop the daemon: %v\n%s", err, tail(r.d.Log(), 2000))
	}
	r.d = nil
}

// write puts the manifests and a new marker into the directory, as one file.
func (r *rig) write(t *testing.T, docs string) {
	t.Helper()
	r.marker++
	if err := daemon.WriteFile(r.cfg.Manifests(), "manifests.yaml", docs+fmt.Sprintf(markerDocs, r.marker, markerAddr(r.marker))); err != nil {
		t.Fatal(err)
	}
}

// apply puts the manifests into the directory and waits until they are in the kernel.
func (r *rig) apply(t *testing.T, docs string) {
	t.Helper()
	r.write(t, docs)
	r.settle(t)
}

// settle waits until what was written last is in the kernel.
func (r *rig) settle(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if r.answersAs(t, markerAddr(r.marker), "remote") && r.answersAs(t, markerAddr(r.marker-1), "outside") {
			return
		}
		select {
		case <-r.d.Ended():
			t.Fatalf("the daemon ended: %v\n%s", r.d.Wait(), tail(r.d.Log(), 4000))
		default:
		}
	}
	t.Fatalf("the manifests were not in the kernel after %v; the daemon's log:\n%s", patience, tail(r.d.Log(), 4000))
}

// answersAs reports whether a host answers at the address of a marker.
func (r *rig) answersAs(t *testing.T, marker netip.Addr, host string) bool {
	t.Helper()
	res, err := r.w.Node.Ask("tcp", r.nodeAddr(true), netip.AddrPortFrom(marker, controlPort), slow(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	return res.Outcome == world.Answered && res.Answer.Host == host
}

// nodeAddr returns the node's first address of a family.
func (r *rig) nodeAddr(ipv4 bool) netip.Addr {
	for _, a := range r.node.Addresses {
		if a.Is4() == ipv4 {
			return a
		}
	}
	return netip.Addr{}
}

// place puts everything where the flows need it: sources, endpoints, and an outside that answers where the
// proxy has no business. The addresses of local are on the node.
func (r *rig) place(t *testing.T, flows []scenario.Flow, local, remote []netip.Addr) {
	t.Helper()
	p := world.Placement{
		Pods:    slices.Clone(local),
		Remote:  append(slices.Clone(remote), netip.MustParseAddr("10.255.255.254")),
		Outside: []netip.Addr{markerAddr(0), markerAddr(1), markerAddr(2), markerAddr(3)},
	}
	ports := []uint16{controlPort, 80, 81, 443, 8080}
	add := func(list *[]netip.Addr, a netip.Addr) {
		if !slices.Contains(*list, a) {
			*list = append(*list, a)
		}
	}
	for _, f := range flows {
		switch f.Kind {
		case scenario.Pod:
			add(&p.Pods, f.Src)
		case scenario.External:
			add(&p.Clients, f.Src)
		case scenario.NodeSelf:
		}
		if !slices.Contains(r.node.Addresses, f.Dst.Addr()) && !f.Dst.Addr().IsLoopback() {
			add(&p.Outside, f.Dst.Addr())
		}
		ports = append(ports, f.Dst.Port())
		for _, e := range f.Endpoints {
			ports = append(ports, e.Port())
		}
	}
	// Clients for tests of affinity.
	for i := range clientCount {
		add(&p.Clients, freshClient(r.fresh+i, true))
		add(&p.Clients, freshClient(r.fresh+i, false))
	}
	if err := r.w.Place(p); err != nil {
		t.Fatal(err)
	}
	if err := r.w.Serve(ports...); err != nil {
		t.Fatal(err)
	}
}

// clientCount is how many clients there are for tests of affinity: that all of them choose the same of two
// endpoints by chance has a probability of 2^-39.
const clientCount = 40

// freshClient returns the address of a client that no flow is from.
func freshClient(i int, ipv4 bool) netip.Addr {
	if ipv4 {
		return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
	}
	return netip.AddrFrom16([16]byte{0x26, 0, 0x52, 0, 0, 1, 14: byte(i >> 8), 15: byte(i)})
}

// nft runs nft in the node's namespace and returns what it prints.
func (r *rig) nft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.w.Node.Output(exec.Command("nft", args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// expires matches what is left of the lifetime of an element, which changes while we look, and the lifetime,
// which Linux 6.1 lists for elements that a packet made but not for those that nft loads, if it is that of the
// set.
var expires = regexp.MustCompile(`( timeout [0-9dhms]+)? expires [0-9dhms]+`)

// checkListing lists the ruleset with nft, loads what it printed elsewhere and lists it again.
func (r *rig) checkListing(t *testing.T) {
	t.Helper()
	text := r.nft(t, "list", "ruleset")
	if i := strings.Index(text, "unknown"); i >= 0 {
		t.Errorf("nft list ruleset has something unknown: %s", text[max(0, i-200):min(len(text), i+100)])
	}
	load := exec.Command("nft", "-f", "-")
	load.Stdin = strings.NewReader("flush ruleset\n" + text)
	if _, err := r.scratch.Output(load); err != nil {
		t.Errorf("load the saved ruleset: %v\n%s", err, text)
		return
	}
	again, err := r.scratch.Output(exec.Command("nft", "list", "ruleset"))
	if err != nil {
		t.Fatal(err)
	}
	strip := func(s string) string { return expires.ReplaceAllString(s, "") }
	if diff := cmp.Diff(strip(text), strip(again)); diff != "" {
		t.Errorf("the ruleset lists differently after saving, flushing and loading (-saved +loaded):\n%s", diff)
	}
}

// checkConverged asks the binary whether the kernel equals a fresh compile of the manifests. It may take a
// moment: chains that nothing refers to any more are deleted when nothing else is to be done.
func (r *rig) checkConverged(t *testing.T) {
	t.Helper()
	var out string
	var err error
	for deadline := time.Now().Add(slow(10 * time.Second)); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		out, err = r.w.Node.Output(r.cfg.Command("diff"))
		if err == nil && strings.TrimSpace(out) == "" {
			return
		}
	}
	t.Errorf("nftproxy diff = %v; want no difference:\n%s", err, tail(out, 4000))
}

// cleanup removes all that the proxy left in the kernel.
func (r *rig) cleanup(t *testing.T) {
	t.Helper()
	if _, err := r.w.Node.Output(exec.Command(r.cfg.Binary, "cleanup")); err != nil {
		t.Fatal(err)
	}
}
