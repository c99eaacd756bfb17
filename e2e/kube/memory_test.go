package kube

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/netns"
)

// The size of the cluster of TestMemory.
const (
	manyServices    = 10000
	endpointsOfEach = 10
	changes         = 20
)

// TestMemory runs nftproxy and kube-proxy beside each other on a cluster with many Services, which are
// copies of one that the real controllers made, and compares their resident memory.
func TestMemory(t *testing.T) {
	service, slice := recordTemplate(t)
	c, err := StartEtcd(shared.tools, t.TempDir(), users())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Load(t.Context(), Copies(service, slice, manyServices, endpointsOfEach)); err != nil {
		t.Fatal(err)
	}
	if err := c.StartAPI(); err != nil {
		t.Fatal(err)
	}
	if err := setUp(c); err != nil {
		t.Fatal(err)
	}
	// The two rigs are nodes with nothing but loopback: no packet is sent.
	ours, theirs := bareNode(t, c), bareNode(t, c)
	kubeProxy := theirs.startKubeProxy(t, "nftables", theirs.node, c)
	ours.start(t)

	waitFor(t, ours.p, "nftproxy", func() string { return ours.lists("nftproxy", "services") })
	t.Logf("nftproxy has programmed %d Services: %s", manyServices, memoryOf(t, ours.p))
	waitFor(t, kubeProxy, "kube-proxy", func() string { return theirs.lists("kube-proxy", "service-ips") })
	t.Logf("kube-proxy has programmed %d Services: %s", manyServices, memoryOf(t, kubeProxy))
	// Endpoints come and go, as they do.
	for i := range changes {
		patch := fmt.Sprintf(`{"endpoints": [{"addresses": ["10.0.3.%d"], "nodeName": "node-2"}]}`, i+1)
		if err := c.Do(t.Context(), "PATCH", fmt.Sprintf("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/service-%05d", i*100),
			"application/merge-patch+json", []byte(patch), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	last := fmt.Sprintf(" 10.0.3.%d ", changes)
	waitFor(t, ours.p, "nftproxy", func() string { return ours.holds("nftproxy", last) })
	waitFor(t, kubeProxy, "kube-proxy", func() string { return theirs.holds("kube-proxy", last) })

	we, they := memoryOf(t, ours.p), memoryOf(t, kubeProxy)
	t.Logf("nftproxy: %s; kube-proxy: %s; ratio: %.2f steady, %.2f peak", we, they,
		float64(we.steady)/float64(they.steady), float64(we.peak)/float64(they.peak))
	if we.steady*3 > they.steady {
		t.Errorf("nftproxy has %d KiB resident, kube-proxy %d; want at most a third", we.steady, they.steady)
	}
}

// recordTemplate makes a Service with endpoints in the shared cluster and returns it and the slice that
// the controllers made for it, as JSON.
func recordTemplate(t *testing.T) (service, slice []byte) {
	t.Helper()
	r := newRig(t)
	docs := fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: template, namespace: default, labels: {app: template}}
spec: {clusterIP: %s, selector: {app: template}, ports: [{name: http, port: 80, targetPort: 8080}]}
`, templateIP)
	for i := range endpointsOfEach {
		docs += pod(fmt.Sprintf("template-%d", i), "template", fmt.Sprintf("10.0.2.%d", i+1), true)
	}
	r.apply(t, docs)
	var list struct{ Items []json.RawMessage }
	r.eventually(t, "the slice", func() string {
		err := r.c.Get(t.Context(), "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name=template", &list)
		if err != nil || len(list.Items) != 1 || strings.Count(string(list.Items[0]), `"10.0.2.`) != endpointsOfEach {
			return fmt.Sprintf("%d slices, %v", len(list.Items), err)
		}
		return ""
	})
	var object json.RawMessage
	if err := r.c.Get(t.Context(), "/api/v1/namespaces/default/services/template", &object); err != nil {
		t.Fatal(err)
	}
	return stored(t, object, "v1", "Service"), stored(t, list.Items[0], "discovery.k8s.io/v1", "EndpointSlice")
}

// stored returns an object as the store has it: with its kind, without the version that the store itself
// keeps. Its slice is named like its Service, without the random end.
func stored(t *testing.T, text []byte, version, kind string) []byte {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatal(err)
	}
	o["apiVersion"], o["kind"] = version, kind
	meta := o["metadata"].(map[string]any)
	delete(meta, "resourceVersion")
	delete(meta, "generateName")
	meta["name"] = "template"
	out, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A bare is a node that has nothing but loopback and a gate.
type bare struct {
	rig
	node *netns.NetNS
	p    *process
}

// bareNode makes a node.
func bareNode(t *testing.T, c *Cluster) *bare {
	t.Helper()
	bin, err := shared.binary()
	if err != nil {
		t.Fatal(err)
	}
	b := &bare{rig: rig{c: c, bin: bin, socket: t.TempDir() + "/nftproxy.sock"}}
	if b.node, err = netns.New("node"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.node.Close() })
	if err := loopback(b.node); err != nil {
		t.Fatal(err)
	}
	if b.gate, err = OpenGate(b.node, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.gate.Shut)
	return b
}

// start starts nftproxy.
func (b *bare) start(t *testing.T) {
	t.Helper()
	cmd, err := b.command(proxyToken)
	if err != nil {
		t.Fatal(err)
	}
	if b.p, err = startProcess(b.node, cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.p.kill)
}

// lists says what is missing unless a map of a table has all Services.
func (b *bare) lists(table, name string) string {
	out, err := b.node.Output(exec.Command("nft", "list", "map", "ip", table, name))
	// A colon for each element, whatever it leads to, and one in the declaration.
	if n := strings.Count(out, " : ") - 1; err != nil || n < manyServices {
		return fmt.Sprintf("%d Services, %v", n, err)
	}
	return ""
}

// holds says what is missing unless a table has a text.
func (b *bare) holds(table, text string) string {
	out, err := b.node.Output(exec.Command("nft", "list", "table", "ip", table))
	if err != nil || !strings.Contains(out, text) {
		return fmt.Sprintf("no%sin table %s: %v", text, table, err)
	}
	return ""
}

// waitFor waits until check has nothing to say, or the process has ended.
func waitFor(t *testing.T, p *process, what string, check func() string) {
	t.Helper()
	say := ""
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		if say = check(); say == "" {
			return
		}
		if closed(p.done) {
			t.Fatalf("%s ended: %s", what, tail(p.log.String()))
		}
	}
	t.Fatalf("waited for %s: %s\n%s", what, say, tail(p.log.String()))
}

// A memory is the resident memory of a process in KiB.
type memory struct{ steady, peak int }

// String returns it in MiB.
func (m memory) String() string {
	return fmt.Sprintf("%d MiB resident, %d at the peak", m.steady>>10, m.peak>>10)
}

// memoryOf returns the resident memory of a process.
func memoryOf(t *testing.T, p *process) memory {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	field := func(name string) int {
		m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(b)
		if m == nil {
			t.Fatalf("no %s in %s", name, b)
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return memory{steady: field("VmRSS"), peak: field("VmHWM")}
}
