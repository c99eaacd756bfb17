package cluster

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientevents "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/rest"

	"github.com/nftproxy/nftproxy/proxier/events"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// TestRecorder sends events to a server that keeps them, and expects the requests to be counted.
func TestRecorder(t *testing.T) {
	type sent struct {
		path string
		eventsv1.Event
	}
	got := make(chan sent, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s := sent{path: r.Method + " " + r.URL.Path}
		if err := json.Unmarshal(b, &s.Event); err != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		w.Write(b)
		got <- s
	}))
	defer server.Close()
	registry := prometheus.NewPedanticRegistry()
	NewRequests(registry).Count()
	client, err := clientevents.NewForConfig(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeJSON}})
	if err != nil {
		t.Fatal(err)
	}
	record, err := NewRecorder(t.Context(), client, "node-1")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		event events.Event
		want  string
	}{
		{
			"node",
			events.Event{Reason: events.ReasonStarting, Action: events.ActionStart},
			"POST /apis/events.k8s.io/v1/namespaces/default/events Normal Starting StartKubeProxy Node /node-1 node-1 kube-proxy: ",
		},
		{
			"service",
			events.Event{Service: model.Name{Namespace: "a", Name: "b"}, Warning: true, Reason: events.ReasonNoServiceCheck, Action: events.ActionListen, Note: "100%s taken"},
			"POST /apis/events.k8s.io/v1/namespaces/a/events Warning FailedToStartServiceHealthcheck Listen Service a/b  kube-proxy: 100%s taken",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			record(tt.event)
			e := <-got
			r := e.Regarding
			text := strings.Join([]string{e.path, e.Type, e.Reason, e.Action, r.Kind, r.Namespace + "/" + r.Name, string(r.UID), e.ReportingController}, " ") + ": " + e.Note
			if diff := cmp.Diff(tt.want, text); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
			if !strings.HasPrefix(e.ReportingInstance, "kube-proxy-") {
				t.Errorf("reportingInstance = %q; want kube-proxy-HOST", e.ReportingInstance)
			}
		})
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]bool{}
	for _, f := range families {
		counted[f.GetName()] = true
	}
	for _, name := range []string{"rest_client_requests_total", "rest_client_request_duration_seconds", "rest_client_request_size_bytes", "rest_client_response_size_bytes"} {
		if !counted[name] {
			t.Errorf("no series %s after requests; there are %v", name, counted)
		}
	}
}
