package kube

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// get asks from the node and returns the code and what is told, or the error.
func (r *rig) get(address, path string) string {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
			err = r.w.Node.Do(func() error {
				var d net.Dialer
				var err error
				c, err = d.DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}}
	res, err := client.Get("http://test" + path)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(res.StatusCode, " ", string(b))
}

// tells waits until an answer contains all of the words.
func (r *rig) tells(t *testing.T, address, path string, words ...string) {
	t.Helper()
	r.eventually(t, "http://"+address+path, func() string {
		got := r.get(address, path)
		for _, w := range words {
			if !strings.Contains(got, w) {
				return fmt.Sprintf("no %q in %s", w, tail(got))
			}
		}
		return ""
	})
}

// events waits until the API server has events, each as "type reason kind/name reporter".
func (r *rig) events(t *testing.T, want ...string) {
	t.Helper()
	r.eventually(t, "events", func() string {
		var list struct {
			Items []struct {
				Type, Reason, ReportingController string
				Regarding                         struct{ Kind, Name string }
			}
		}
		if err := r.c.Get(context.Background(), "/apis/events.k8s.io/v1/events", &list); err != nil {
			return err.Error()
		}
		var got []string
		for _, e := range list.Items {
			got = append(got, fmt.Sprintf("%s %s %s/%s %s", e.Type, e.Reason, e.Regarding.Kind, e.Regarding.Name, e.ReportingController))
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				return fmt.Sprintf("no event %q in %q", w, got)
			}
		}
		return ""
	})
}

// TestObserved has the daemon tell of itself in the cluster, with the rights that deploy/ gives it: events,
// health, the requests it makes, and how long a change takes.
func TestObserved(t *testing.T) {
	r := newRig(t)
	var taken net.Listener
	if err := r.w.Node.Do(func() (err error) {
		taken, err = net.Listen("tcp4", "0.0.0.0:30990")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	balanced := strings.Replace(service("observed", "10.96.0.60", 30060), "type: NodePort",
		"type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: 30990", 1)
	r.apply(t, balanced+pod("observed-1", "observed", "10.0.1.1", true))
	r.start(t, proxyToken)
	r.settles(t, "10.96.0.60:80", "10.0.1.1:8080")
	r.events(t, "Normal Starting Node/node-1 kube-proxy", "Warning FailedToStartServiceHealthcheck Service/observed kube-proxy")
	r.tells(t, "127.0.0.1:10256", "/healthz", "200 ", `"nodeEligible":true,"healthy":true`)
	r.tells(t, "127.0.0.1:10256", "/livez", "200 ", `"healthy":true`)

	taken.Close()
	r.tells(t, nodeAddr+":30990", "/", "200 ", `"localEndpoints": 1`)
	// The controller tells when the change was triggered if the pod tells when it became ready.
	ready := fmt.Sprintf(`status: "True", lastTransitionTime: %q`, time.Now().UTC().Format(time.RFC3339))
	r.apply(t, strings.Replace(pod("observed-2", "observed", "10.0.1.2", true), `status: "True"`, ready, 1))
	r.tells(t, nodeAddr+":30990", "/", "200 ", `"localEndpoints": 2`)
	r.tells(t, "127.0.0.1:10249", "/metrics", `rest_client_requests_total{code="200",host="127.0.0.1:6443",method="GET"}`,
		`rest_client_request_duration_seconds_bucket{host="127.0.0.1:6443",verb="`, `kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"} `)
	r.remove(t, "pods", "observed-1")
	r.remove(t, "pods", "observed-2")
	r.tells(t, nodeAddr+":30990", "/", "503 ", `"localEndpoints": 0`)
}
