package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/daemon"
	"github.com/nftproxy/nftproxy/e2e/world"
)

const (
	walkEdits       = 10_000
	walkBatch       = 10 // edits of one file before it is written
	walkFiles       = 12
	walkPerFile     = 5  // Services a file has room for
	walkCheckpoints = 20 // times that the kernel is compared with a fresh compile
)

// A walkService is a Service, with its endpoints, that is edited at random.
type walkService struct {
	exists    bool
	created   int // hour
	typ       string
	ip        int
	port      int
	protocol  string
	nodePort  int
	second    bool // has a second port
	dual      bool
	external  string
	internal  string
	affinity  int
	ranges    string
	ingress   string
	extIP     string
	endpoints []walkEndpoint
	sliced    int // in how many slices the endpoints are
}

// A walkEndpoint is an endpoint of a walkService.
type walkEndpoint struct {
	addr       int
	node       string
	conditions string
	hints      string
}

// one returns one of the words.
func one(r *rand.Rand, words ...string) string { return words[r.IntN(len(words))] }

// edit changes one thing about s.
func (s *walkService) edit(r *rand.Rand) {
	if !s.exists {
		*s = walkService{exists: true, created: r.IntN(1000), ip: r.IntN(200), port: 80, protocol: "TCP", sliced: 1}
	}
	switch r.IntN(20) {
	case 0:
		*s = walkService{}
	case 1:
		s.typ = one(r, "ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "")
	case 2:
		s.ip = r.IntN(200) // now and then that of another
	case 3:
		s.port = 1 + r.IntN(100)
	case 4:
		s.protocol = one(r, "TCP", "UDP", "SCTP")
	case 5:
		s.nodePort = r.IntN(2) * (30000 + r.IntN(50))
	case 6:
		s.second = !s.second
	case 7:
		s.dual = !s.dual
	case 8:
		s.external = one(r, "", "Local", "Cluster")
	case 9:
		s.internal = one(r, "", "Local", "Cluster")
	case 10:
		s.affinity = r.IntN(3) * 300
	case 11:
		s.ranges = one(r, "", "203.0.113.0/25", "0.0.0.0/0, 10.0.0.0/8", "203.0.113.0/24, 203.0.113.0/25, 10.0.0.0/9", "fd00::/8")
	case 12:
		s.ingress = one(r, "", "{ip: 1.2.3.4}", "{ip: 1.2.3.5, ipMode: Proxy}", fmt.Sprintf("{ip: 1.2.4.%d}, {hostname: lb}", r.IntN(20)))
	case 13:
		s.extIP = one(r, "", "192.168.99.33", fmt.Sprintf("192.168.99.%d", r.IntN(30)))
	case 14:
		s.sliced = 1 + r.IntN(3)
	default:
		s.editEndpoints(r)
	}
}

// editEndpoints changes one endpoint of s.
func (s *walkService) editEndpoints(r *rand.Rand) {
	n := len(s.endpoints)
	if k := r.IntN(6); n == 0 || k < 2 && n < 12 {
		s.endpoints = append(s.endpoints, walkEndpoint{addr: r.IntN(400), node: one(r, "node-1", "node-2")})
		return
	} else if k == 2 {
		i := r.IntN(n)
		s.endpoints = slices.Delete(s.endpoints, i, i+1)
		return
	}
	e := &s.endpoints[r.IntN(n)]
	switch r.IntN(4) {
	case 0:
		e.addr = r.IntN(400)
	case 1:
		e.node = one(r, "node-1", "node-2")
	case 2:
		e.conditions = one(r, "", "ready: false", "ready: false, serving: true, terminating: true", "ready: true")
	case 3:
		e.hints = one(r, "", "forZones: [{name: zone-a}]", "forZones: [{name: zone-b}]", "forNodes: [{name: node-1}]")
	}
}

// docs returns s as manifests.
func (s *walkService) docs(name string) string {
	if !s.exists {
		return ""
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("---\napiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: walk, creationTimestamp: %q}\nspec:", name,
		time.Unix(int64(s.created)*3600, 0).UTC().Format(time.RFC3339))
	for _, kv := range [][2]string{{"type", s.typ}, {"externalTrafficPolicy", s.external}, {"internalTrafficPolicy", s.internal}} {
		if kv[1] != "" {
			line("  %s: %s", kv[0], kv[1])
		}
	}
	ips, families := fmt.Sprintf("172.30.1.%d", s.ip), "IPv4"
	if s.dual {
		ips, families = fmt.Sprintf("%s, 'fd00:96::%x'", ips, s.ip), "IPv4, IPv6"
	}
	line("  clusterIP: 172.30.1.%d\n  clusterIPs: [%s]\n  ipFamilies: [%s]", s.ip, ips, families)
	line("  loadBalancerSourceRanges: [%s]\n  externalIPs: [%s]", s.ranges, s.extIP)
	if s.affinity > 0 {
		line("  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: %d}}", s.affinity)
	}
	line("  ports:\n  - {name: a, port: %d, protocol: %s, nodePort: %d}", s.port, s.protocol, s.nodePort)
	if s.second {
		line("  - {name: b, port: 8443, protocol: TCP}")
	}
	line("status: {loadBalancer: {ingress: [%s]}}", s.ingress)
	for i := range s.sliced {
		s.slice(&b, name, i, "IPv4")
		if s.dual {
			s.slice(&b, name, i, "IPv6")
		}
	}
	return b.String()
}

// slice writes slice i of a family.
func (s *walkService) slice(b *strings.Builder, name string, i int, family string) {
	fmt.Fprintf(b, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"+
		"metadata: {name: %s-%s-%d, namespace: walk, labels: {kubernetes.io/service-name: %s}}\naddressType: %s\n"+
		"ports: [{name: a, port: 8080, protocol: %s}, {name: b, port: 8443, protocol: TCP}]\nendpoints:\n",
		name, strings.ToLower(family), i, name, family, s.protocol)
	for j, e := range s.endpoints {
		// Slices overlap a little: every third endpoint is in all of them.
		if j%s.sliced != i && j%3 != 0 {
			continue
		}
		addr := fmt.Sprintf("10.1.%d.%d", e.addr/250, 1+e.addr%250)
		if family == "IPv6" {
			addr = fmt.Sprintf("'fd00:10::%x'", e.addr+1)
		}
		fmt.Fprintf(b, "- {addresses: [%s], nodeName: %s, conditions: {%s}", addr, e.node, e.conditions)
		if e.hints != "" {
			fmt.Fprintf(b, ", hints: {%s}", e.hints)
		}
		b.WriteString("}\n")
	}
}

// A walkFile is a file of the directory.
type walkFile struct {
	name     string
	services [walkPerFile]walkService
}

// write puts the file into the directory: well, or broken in one of several ways.
func (f *walkFile) write(t *testing.T, dir string, r *rand.Rand, broken bool) {
	t.Helper()
	var b strings.Builder
	for i := range f.services {
		b.WriteString(f.services[i].docs(fmt.Sprintf("%s-%d", strings.TrimSuffix(f.name, ".yaml"), i)))
	}
	text := b.String()
	if broken {
		switch r.IntN(5) {
		case 0:
			text = text[:r.IntN(len(text)+1)] // torn
		case 1:
			text += "---\nkind: [\n"
		case 2:
			text = strings.Replace(text, "port: ", "port: 1000", 1)
		case 3:
			text = strings.Replace(text, "172.30.", "172.300.", 1)
		case 4:
			if err := os.Remove(filepath.Join(dir, f.name)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			return
		}
	}
	if err := daemon.WriteFile(dir, f.name, text); err != nil {
		t.Fatal(err)
	}
}

// TestWalk edits a directory of manifests at random, also into what cannot be read. Whenever all of it can
// be read, the kernel comes to equal a fresh compile.
func TestWalk(t *testing.T) {
	r := newRig(t, world.Config{})
	r.write(t, nodeDoc)
	r.start(t, testNode())
	r.place(t, nil, nil, nil)
	r.settle(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var files [walkFiles]walkFile
	for i := range files {
		files[i].name = fmt.Sprintf("walk%d.yaml", i)
	}
	const batches = walkEdits / walkBatch
	for batch := range batches {
		f := &files[random.IntN(walkFiles)]
		for range walkBatch {
			f.services[random.IntN(walkPerFile)].edit(random)
		}
		f.write(t, r.cfg.Manifests(), random, random.IntN(10) == 0)
		if (batch+1)%(batches/walkCheckpoints) != 0 {
			continue
		}
		for i := range files {
			files[i].write(t, r.cfg.Manifests(), random, false)
		}
		r.apply(t, nodeDoc)
		r.checkConverged(t)
		if t.Failed() {
			t.Fatalf("after %d edits", (batch+1)*walkBatch)
		}
	}
	r.checkListing(t)
}
