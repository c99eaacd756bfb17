package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/e2e/world"
)

// checkedDocs is a load balancer with a health check and one endpoint on the node, and a younger
// Service that wants its node port.
const checkedDocs = `---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 30990
  clusterIP: 172.30.0.41
  ports: [{name: http, port: 80, protocol: TCP, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: thief, namespace: default, creationTimestamp: "2026-01-02T00:00:00Z"}
spec:
  type: NodePort
  clusterIP: 172.30.0.42
  externalIPs: [not-an-ip]
  ports: [{name: http, port: 80, protocol: TCP, nodePort: 30080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.0.1.1], nodeName: node-1}, {addresses: [10.0.2.1], nodeName: node-2}]
`

// get asks from inside a namespace; an answer that does not come is code 0.
func get(ns *netns.NetNS, address, path string) (code int, header http.Header, body string) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var c net.Conn
		err := ns.Do(func() error {
			var d net.Dialer
			var err error
			c, err = d.DialContext(ctx, network, address)
			return err
		})
		return c, err
	}}
	client := http.Client{Transport: transport, Timeout: 2 * time.Second}
	res, err := client.Get("http://test" + path)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil, err.Error()
	}
	return res.StatusCode, res.Header, string(b)
}

// waitGet asks on the node until the answer has a code and a text.
func (r *rig) waitGet(t *testing.T, address, path string, code int, text string) http.Header {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, header, body := get(r.w.Node.NetNS, address, path)
		if got == code && (code == 0 || strings.Contains(body, text)) {
			return header
		}
		if time.Now().After(deadline) {
			t.Fatalf("http://%s%s = %d %s; want %d with %q; log:\n%s", address, path, got, body, code, text, tail(r.d.Log(), 3000))
		}
	}
}

// TestHTTP asks a daemon all that others ask of it: probes, Prometheus, load balancers.
func TestHTTP(t *testing.T) {
	const healthz, metrics = "127.0.0.1:10256", "127.0.0.1:10249"
	r := newRig(t, world.Config{})
	r.write(t, nodeDoc+checkedDocs)
	r.start(t, testNode())
	r.waitGet(t, healthz, "/healthz", 200, `"nodeEligible":true,"healthy":true,"status":{"IPv4":`)
	r.waitGet(t, healthz, "/livez", 200, `"healthy":true`)
	r.waitGet(t, "[::1]:10256", "/healthz", 200, `"healthy":true`)
	for path, want := range map[string]string{
		"/healthz": "ok", "/proxyMode": "nftables", "/configz": `{"kubeproxy.config.k8s.io":{"kind":"KubeProxyConfiguration"`,
		"/metrics": "nftproxy_front_ends_contested 1",
	} {
		r.waitGet(t, metrics, path, 200, want)
	}
	r.waitGet(t, metrics, "/debug/pprof/", 404, "")
	r.waitGet(t, "192.168.0.2:30990", "/any", 200, "\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": true")
	r.waitGet(t, "127.0.0.1:30990", "/", 0, "")

	r.write(t, nodeDoc+strings.ReplaceAll(checkedDocs, "nodeName: node-1", "nodeName: node-3"))
	h := r.waitGet(t, "192.168.0.2:30990", "/", 503, `"localEndpoints": 0`)
	if got := h.Get("X-Load-Balancing-Endpoint-Weight"); got != "0" {
		t.Errorf("weight without endpoints here = %q; want 0", got)
	}
	r.waitGet(t, metrics, "/metrics", 200, `kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"} 1`)

	leaving := strings.Replace(nodeDoc, "status:", "spec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}\nstatus:", 1)
	r.write(t, leaving+checkedDocs)
	r.waitGet(t, healthz, "/healthz", 503, `"nodeEligible":false,"healthy":true`)
	r.waitGet(t, healthz, "/livez", 200, `"healthy":true`)

	r.write(t, nodeDoc+strings.ReplaceAll(checkedDocs, "30990", "30991"))
	r.waitGet(t, "192.168.0.2:30991", "/", 200, `"web"`)
	r.waitGet(t, "192.168.0.2:30990", "/", 0, "")

	for _, want := range []string{
		`{"object": "node", "reason": "Starting", "note": ""}`,
		`{"object": "default/thief", "reason": "InvalidField", "note": "spec.externalIPs[0]: \"not-an-ip\" is no IP address"}`,
		`{"object": "default/thief", "reason": "FrontEndConflict", "note": "node port 30080/tcp is not served for this Service: the older default/web has it"}`,
	} {
		for deadline := time.Now().Add(patience); !strings.Contains(r.d.Log(), want); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no event %s; log:\n%s", want, tail(r.d.Log(), 3000))
			}
		}
	}
}

// TestHTTPBeforeFirstSync has no manifests to read, so that nothing was programmed.
func TestHTTPBeforeFirstSync(t *testing.T) {
	r := newRig(t, world.Config{})
	r.cfg.Dir = t.TempDir()
	r.start(t, testNode())
	for _, path := range []string{"/healthz", "/livez"} {
		r.waitGet(t, "127.0.0.1:10256", path, 503, `"healthy":false`)
	}
}

// TestHTTPPortTaken has a port that somebody else listens on, for a time.
func TestHTTPPortTaken(t *testing.T) {
	r := newRig(t, world.Config{})
	var taken []net.Listener
	listen := func(address string) error {
		return r.w.Node.Do(func() error {
			l, err := net.Listen("tcp4", address)
			taken = append(taken, l)
			return err
		})
	}
	for _, port := range []int{10256, 30990} {
		if err := listen(fmt.Sprintf("0.0.0.0:%d", port)); err != nil {
			t.Fatal(err)
		}
	}
	r.write(t, nodeDoc+checkedDocs)
	r.start(t, testNode())
	for _, want := range []string{"FailedToStartProxierHealthcheck", `"object": "default/web", "reason": "FailedToStartServiceHealthcheck"`} {
		for deadline := time.Now().Add(patience); !strings.Contains(r.d.Log(), want); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no event %s; log:\n%s", want, tail(r.d.Log(), 3000))
			}
		}
	}
	for _, l := range taken {
		l.Close()
	}
	r.waitGet(t, "127.0.0.1:10256", "/healthz", 200, `"healthy":true`)
	r.waitGet(t, "192.168.0.2:30990", "/", 200, `"web"`)
}

// TestHTTPHardFail has a port that somebody else listens on: the daemon ends and says why.
func TestHTTPHardFail(t *testing.T) {
	r := newRig(t, world.Config{})
	var taken net.Listener
	if err := r.w.Node.Do(func() (err error) {
		taken, err = net.Listen("tcp4", "127.0.0.1:10249")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.write(t, nodeDoc+checkedDocs)
	node := testNode()
	node.Flags = append(node.Flags, "--bind-address-hard-fail")
	r.start(t, node)
	select {
	case <-r.d.Ended():
	case <-time.After(patience):
		t.Fatal("the daemon runs; want it to end")
	}
	if err := r.d.Wait(); err == nil || !strings.Contains(r.d.Log(), "nftproxy: metrics server: listen tcp 127.0.0.1:10249: bind: address already in use") ||
		!strings.Contains(r.d.Log(), "FailedToStartMetricServer") {
		t.Errorf("ended with %v; want an error that names the address; log:\n%s", err, tail(r.d.Log(), 3000))
	}
	r.d = nil
}
