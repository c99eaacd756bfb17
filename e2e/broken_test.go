package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/daemon"
	"github.com/nftproxy/nftproxy/e2e/scenario"
)

// waitLog waits until the daemon has said all of the words, in one line.
func (r *rig) waitLog(t *testing.T, from int, words []string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for ; time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for line := range strings.Lines(r.d.Log()[from:]) {
			if containsAll(line, words) {
				return
			}
		}
	}
	t.Errorf("no line of the log has all of %q; log:\n%s", words, r.d.Log()[from:])
}

// containsAll reports whether s contains all words.
func containsAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

// brokenService returns a Service "broken" with the spec given.
func brokenService(spec string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: broken, namespace: default}\nspec: " + spec + "\n"
}

// brokenSlice returns a slice of the Service "broken" with the fields given.
func brokenSlice(fields string) string {
	return "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n" +
		"metadata: {name: broken-1, namespace: default, labels: {kubernetes.io/service-name: broken}}\n" + fields + "\n"
}

// TestBrokenInput puts broken files beside a good one: the log says what is wrong and where, and all else is
// served.
func TestBrokenInput(t *testing.T) {
	const ok = "{clusterIP: 172.30.0.66, ports: [{name: p, port: 80, protocol: TCP}]}"
	tests := []struct {
		name, file, text string
		// words must be in one line of the log.
		words []string
		// flow, if there is one, must behave.
		flow string
	}{
		{"not YAML", "bad.yaml", "kind: [Service\n", []string{"bad.yaml"}, ""},
		{"a scalar", "bad.yaml", "hello\n", []string{"bad.yaml"}, ""},
		{"a binary file", "bad.yaml", "\x7fELF\x00\x01\x02\xff\xfe", []string{"bad.yaml"}, ""},
		{"not JSON", "bad.json", `{"kind": "Service",`, []string{"bad.json"}, ""},
		{"no kind", "bad.yaml", "metadata: {name: x}\n", []string{"bad.yaml", "kind"}, ""},
		{"an unknown kind", "bad.yaml", "apiVersion: v1\nkind: Servise\nmetadata: {name: x}\n", []string{"bad.yaml", "Servise"}, ""},
		{"no name", "bad.yaml", "apiVersion: v1\nkind: Service\nspec: " + ok + "\n", []string{"bad.yaml", "name"}, ""},
		{"a port that is a word", "bad.yaml", brokenService("{clusterIP: 172.30.0.66, ports: [{port: http}]}"), []string{"bad.yaml", "port"}, ""},
		{"port 0", "bad.yaml", brokenService("{clusterIP: 172.30.0.66, ports: [{port: 0}]}"), []string{"bad.yaml", "default/broken", "spec.ports[0].port"}, ""},
		{"port 70000", "bad.yaml", brokenService("{clusterIP: 172.30.0.66, ports: [{port: 70000}]}"), []string{"bad.yaml", "default/broken", "spec.ports[0].port", "70000"}, ""},
		{"node port -1", "bad.yaml", brokenService("{clusterIP: 172.30.0.66, type: NodePort, ports: [{port: 80, nodePort: -1}]}"), []string{"bad.yaml", "default/broken", "spec.ports[0].nodePort"}, ""},
		{"a protocol that is none", "bad.yaml", brokenService("{clusterIP: 172.30.0.66, ports: [{port: 80, protocol: ICMP}]}"), []string{"bad.yaml", "default/broken", "spec.ports[0].protocol", "ICMP"}, ""},
		{"a cluster IP that is none", "bad.yaml", brokenService("{clusterIP: 172.30.0.666, ports: [{port: 80}]}"), []string{"bad.yaml", "default/broken", "clusterIP", "172.30.0.666"}, ""},
		{"a source range that is none", "bad.yaml", brokenService("{clusterIP: 172.30.0.66, type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/40], ports: [{port: 80}]}"), []string{"bad.yaml", "default/broken", "loadBalancerSourceRanges[0]"}, ""},
		{"an external IP that is none", "bad.yaml", brokenService("{clusterIP: 172.30.0.66, externalIPs: [nowhere], ports: [{port: 80}]}"), []string{"bad.yaml", "default/broken", "externalIPs[0]"}, "pod 10.0.0.2 -> 172.30.0.66:80/tcp => reject"},
		{"an unknown field", "bad.yaml", brokenService("{clusterIP: 172.30.0.66, clusterIp: 1, ports: [{port: 80}]}"), []string{"bad.yaml", "clusterIp"}, "pod 10.0.0.2 -> 172.30.0.66:80/tcp => reject"},
		{"an endpoint that is no address", "bad.yaml", brokenService(ok) + "---\n" + brokenSlice("addressType: IPv4\nports: [{name: p, port: 8080}]\nendpoints: [{addresses: [elsewhere]}, {addresses: [10.0.2.1]}]"), []string{"bad.yaml", "default/broken-1", "endpoints[0]"}, "pod 10.0.0.2 -> 172.30.0.66:80/tcp => 10.0.2.1:8080"},
		{"an endpoint port that is none", "bad.yaml", brokenSlice("addressType: IPv4\nports: [{name: p, port: 99999}]\nendpoints: [{addresses: [10.0.2.1]}]"), []string{"bad.yaml", "default/broken-1", "ports[0].port"}, ""},
		{"the second document", "bad.yaml", brokenService(ok) + "---\nkind: [\n", []string{"bad.yaml", "2"}, "pod 10.0.0.2 -> 172.30.0.66:80/tcp => reject"},
		{"a Service twice", "twice.yaml", strings.TrimPrefix(webDocs, nodeDoc), []string{"twice.yaml", "default/web"}, ""},
		{"a ServiceCIDR that is none", "bad.yaml", "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: wrong}\nspec: {cidrs: [10.0.0.0/99]}\n", []string{"bad.yaml", "wrong", "cidrs[0]"}, ""},
	}
	r := startWeb(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from := len(r.d.Log())
			if err := daemon.WriteFile(r.cfg.Manifests(), tt.file, tt.text); err != nil {
				t.Fatal(err)
			}
			r.apply(t, webDocs)
			r.waitLog(t, from, tt.words)
			flows := webFlows(t)
			if tt.flow != "" {
				flows = append(flows, flow(t, tt.flow))
			}
			r.checkFlows(t, flows)
			if err := os.Remove(filepath.Join(r.cfg.Manifests(), tt.file)); err != nil {
				t.Fatal(err)
			}
			r.apply(t, webDocs)
		})
	}
	t.Run("the same address twice", func(t *testing.T) { r.checkConflict(t) })
	t.Run("the directory vanishes", func(t *testing.T) { r.checkVanishedDirectory(t) })
	r.checkFlows(t, webFlows(t))
	r.checkConverged(t)
}

// checkConflict adds a younger Service with the cluster IP of another: the older one has it, and the status
// names both.
func (r *rig) checkConflict(t *testing.T) {
	t.Helper()
	young := strings.NewReplacer("name: web,", "name: zz,", "nodePort: 30080", "nodePort: 30081").Replace(strings.TrimPrefix(webDocs, nodeDoc))
	r.apply(t, webDocs+strings.ReplaceAll(strings.ReplaceAll(young, "service-name: web", "service-name: zz"), "web-1", "zz-1"))
	s := r.waitStatus(t, "the conflict", func(s status) bool { return len(s.Conflicts) > 0 })
	if got := s.Conflicts[0]; !containsAll(got.Holder+" "+got.Loser+" "+got.FrontEnd, []string{"default/web", "default/zz", "172.30.0.41"}) {
		t.Errorf("conflict = %+v; want the two Services and the front end", got)
	}
	r.checkFlows(t, webFlows(t))
	r.apply(t, webDocs)
}

// checkVanishedDirectory takes the directory of manifests away: what was in it stays served, and when it is
// back, so are changes.
func (r *rig) checkVanishedDirectory(t *testing.T) {
	t.Helper()
	from := len(r.d.Log())
	if err := os.RemoveAll(r.cfg.Manifests()); err != nil {
		t.Fatal(err)
	}
	r.waitLog(t, from, []string{r.cfg.Manifests()})
	r.checkFlows(t, webFlows(t))
	if err := os.Mkdir(r.cfg.Manifests(), 0o755); err != nil {
		t.Fatal(err)
	}
	r.apply(t, strings.ReplaceAll(webDocs, "10.0.2.1", "10.0.2.2"))
	r.checkFlows(t, []scenario.Flow{flow(t, "pod 10.0.0.2 -> 172.30.0.41:80/tcp => 10.0.1.1:8080 10.0.2.2:8080")})
	r.apply(t, webDocs)
}
