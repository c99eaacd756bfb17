package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// TestHealth walks through the life of a proxy.
func TestHealth(t *testing.T) {
	errBusy := errors.New("busy")
	node := &model.Node{Name: "here", Known: true}
	first, second := model.Snapshot{Node: node}, model.Snapshot{Node: &model.Node{Name: "here", Known: true}}
	type step func(*Tracker, time.Time)
	queue := func(s model.Snapshot) step { return func(t *Tracker, now time.Time) { t.Queued(s, now) } }
	sync := func(s model.Snapshot, err error) step {
		return func(t *Tracker, now time.Time) {
			t.Synced(proxier.Sync{Snapshot: s, Err: err, Started: now.Add(-time.Second)}, now)
		}
	}
	tests := []struct {
		name  string
		steps []step
		// after is how long after the last step is asked.
		after time.Duration
		want  bool
	}{
		{"bad nothing was said", nil, 0, false},
		{"bad nothing was programmed", []step{queue(first)}, 0, false},
		{"bad the first sync failed", []step{queue(first), sync(first, errBusy)}, 0, false},
		{"OK programmed", []step{queue(first), sync(first, nil)}, time.Hour, true},
		{"OK a change waits", []step{queue(first), sync(first, nil), queue(second)}, 59 * time.Second, true},
		{"bad a change waits for long", []step{queue(first), sync(first, nil), queue(second)}, 60 * time.Second, false},
		{"bad it waits since an earlier change", []step{queue(first), sync(first, nil), queue(first), queue(second)}, 51 * time.Second, false},
		{"OK it was programmed", []step{queue(first), sync(first, nil), queue(second), sync(second, nil)}, time.Hour, true},
		{"OK it failed a moment ago", []step{queue(first), sync(first, nil), sync(first, errBusy)}, 50 * time.Second, true},
		{"bad it fails for long", []step{queue(first), sync(first, nil), sync(first, errBusy), sync(first, errBusy)}, 50 * time.Second, false},
		{"OK it failed and was mended", []step{queue(first), sync(first, errBusy), sync(first, nil)}, time.Hour, true},
		{"bad what was programmed is not the last", []step{queue(first), sync(first, nil), queue(second), sync(first, nil)}, 60 * time.Second, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tracker := NewTracker(Config{Grace: time.Minute, Families: []string{"IPv4", "IPv6"}, NeedNode: true})
			now := time.Unix(1000, 0)
			for _, s := range tt.steps {
				now = now.Add(10 * time.Second)
				s(tracker, now)
			}
			h := tracker.Health(now.Add(tt.after))
			if h.Healthy != tt.want || h.Status["IPv4"].Healthy != tt.want || h.Status["IPv6"].Healthy != tt.want {
				t.Errorf("Health() = %+v; want healthy %t everywhere", h, tt.want)
			}
		})
	}
}

func TestEligible(t *testing.T) {
	tests := []struct {
		name     string
		node     *model.Node
		needNode bool
		want     bool
	}{
		{"bad nothing known", nil, false, false},
		{"bad no Node object", &model.Node{}, true, false},
		{"OK no Node object is needed", &model.Node{}, false, true},
		{"OK", &model.Node{Known: true}, true, true},
		{"bad leaving", &model.Node{Known: true, Leaving: true}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tracker := NewTracker(Config{NeedNode: tt.needNode})
			tracker.Queued(model.Snapshot{Node: tt.node}, time.Unix(1, 0))
			if got := tracker.Eligible(); got != tt.want {
				t.Errorf("Eligible() = %t; want %t", got, tt.want)
			}
		})
	}
}

// TestHealthHandler reads what a probe is told.
func TestHealthHandler(t *testing.T) {
	tests := []struct {
		name       string
		node       *model.Node
		synced     bool
		path       string
		code       int
		fields     string
		recentTime bool
	}{
		{"OK healthz", &model.Node{Known: true}, true, "/healthz", 200, "currentTime healthy lastUpdated nodeEligible status", true},
		{"OK livez", &model.Node{Known: true}, true, "/livez", 200, "currentTime healthy lastUpdated status", true},
		{"bad healthz of a node that leaves", &model.Node{Known: true, Leaving: true}, true, "/healthz", 503, "currentTime healthy lastUpdated nodeEligible status", false},
		{"OK livez of a node that leaves", &model.Node{Known: true, Leaving: true}, true, "/livez", 200, "currentTime healthy lastUpdated status", true},
		{"bad healthz before the first sync", &model.Node{Known: true}, false, "/healthz", 503, "currentTime healthy lastUpdated nodeEligible status", false},
		{"bad livez before the first sync", &model.Node{Known: true}, false, "/livez", 503, "currentTime healthy lastUpdated status", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tracker := NewTracker(Config{Grace: time.Minute, Families: []string{"IPv4"}})
			s := model.Snapshot{Node: tt.node}
			tracker.Queued(s, time.Now().Add(-time.Hour))
			if tt.synced {
				tracker.Synced(proxier.Sync{Snapshot: s}, time.Now().Add(-time.Hour))
			}
			var counted []string
			h := HealthHandler(tracker, func(path string, code int) { counted = append(counted, fmt.Sprint(path, " ", code)) })
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", tt.path, nil))
			if w.Code != tt.code || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s = %d %v; want %d, application/json, nosniff", tt.path, w.Code, w.Header(), tt.code)
			}
			if want := []string{fmt.Sprint(tt.path, " ", tt.code)}; !cmp.Equal(want, counted) {
				t.Errorf("counted %v; want %v", counted, want)
			}
			var body map[string]json.RawMessage
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			for _, f := range strings.Fields(tt.fields) {
				if _, ok := body[f]; !ok {
					t.Errorf("%s has no %s", w.Body, f)
				}
				delete(body, f)
			}
			if len(body) > 0 {
				t.Errorf("the body has %v, too", body)
			}
			var health Health
			if err := json.Unmarshal(w.Body.Bytes(), &health); err != nil {
				t.Fatal(err)
			}
			if recent := health.LastUpdated.Equal(health.CurrentTime); recent != tt.recentTime {
				t.Errorf("lastUpdated %s, currentTime %s; want the same: %t", health.LastUpdated, health.CurrentTime, tt.recentTime)
			}
		})
	}
}

// TestPages reads the pages of the metrics server.
func TestPages(t *testing.T) {
	var verbosity string
	pages := Pages{
		Metrics: http.NotFoundHandler(), Mode: "nftables", Config: map[string]json.RawMessage{"a": json.RawMessage(`{"b":1}`)},
		SetVerbosity: func(v string) error {
			if v == "x" {
				return errors.New("no number")
			}
			verbosity = v
			return nil
		},
	}
	profiling := pages
	profiling.Profiling = true
	tests := []struct {
		name               string
		pages              *Pages
		method, path, body string
		code               int
		kind, want         string
	}{
		{"OK healthz", &pages, "GET", "/healthz", "", 200, "text/plain; charset=utf-8", "ok"},
		{"OK proxyMode", &pages, "GET", "/proxyMode", "", 200, "text/plain; charset=utf-8", "nftables"},
		{"OK configz", &pages, "GET", "/configz", "", 200, "application/json", `{"a":{"b":1}}`},
		{"bad other path", &pages, "GET", "/other", "", 404, "text/plain; charset=utf-8", ""},
		{"bad profiles without profiling", &pages, "GET", "/debug/pprof/", "", 404, "text/plain; charset=utf-8", ""},
		{"bad flags without profiling", &pages, "PUT", "/debug/flags/v", "4", 404, "text/plain; charset=utf-8", ""},
		{"OK profiles", &profiling, "GET", "/debug/pprof/", "", 200, "text/html; charset=utf-8", ""},
		{"OK flags", &profiling, "PUT", "/debug/flags/v", "4", 200, "text/plain; charset=utf-8", "successfully set klog.logging.verbosity to 4"},
		{"bad flags", &profiling, "PUT", "/debug/flags/v", "x", 400, "text/plain; charset=utf-8", "set the verbosity to \"x\": no number\n"},
		{"bad flags read", &profiling, "GET", "/debug/flags/v", "", 405, "text/plain; charset=utf-8", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			tt.pages.Handler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
			if w.Code != tt.code || w.Header().Get("Content-Type") != tt.kind || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s = %d %v; want %d, %s, nosniff", tt.method, tt.path, w.Code, w.Header(), tt.code, tt.kind)
			}
			if tt.want != "" && w.Body.String() != tt.want {
				t.Errorf("%s %s = %q; want %q", tt.method, tt.path, w.Body, tt.want)
			}
		})
	}
	if verbosity != "4" {
		t.Errorf("verbosity = %q; want 4", verbosity)
	}
}

// TestServerRetry has a port that is taken at first.
func TestServerRetry(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed, done := make(chan error, 10), make(chan error, 1)
	s := Server{Name: "test", Address: taken.Addr().String(), Handler: http.NotFoundHandler(), Failed: func(err error) { failed <- err }, Log: zap.NewNop(), retry: time.Millisecond}
	go func() { done <- s.Run(ctx) }()
	if err := <-failed; !strings.Contains(err.Error(), "test server: listen tcp "+s.Address) {
		t.Errorf("told of %v; want the address that cannot be listened on", err)
	}
	taken.Close()
	for {
		if res, err := http.Get("http://" + s.Address); err == nil {
			res.Body.Close()
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run() = %v; want nil", err)
	}
	if len(failed) > 0 {
		t.Errorf("told again of %v; want it told once", <-failed)
	}
}

// TestServerHardFail does not try again.
func TestServerHardFail(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := Server{Name: "test", Address: taken.Addr().String(), HardFail: true, Log: zap.NewNop()}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Run() = %v; want that the address is in use", err)
	}
}

// TestServerEnds has the context end while the server waits to try again.
func TestServerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		failed, done := make(chan error, 1), make(chan error, 1)
		s := Server{Name: "test", Address: "no address", Failed: func(err error) { failed <- err }, Log: zap.NewNop()}
		go func() { done <- s.Run(ctx) }()
		<-failed
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v; want nil", err)
		}
	})
}
