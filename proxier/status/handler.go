package status

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"time"
)

// HealthHandler answers /healthz and /livez. The first is for load balancers and tells whether the
// node should get traffic, too; the second is only about the proxy. count is told of each answer.
func HealthHandler(t *Tracker, count func(path string, code int)) http.Handler {
	answer := func(w http.ResponseWriter, path string, h Health, ok bool) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		code := http.StatusServiceUnavailable
		if ok {
			// Old readers expect a recent time from a healthy proxy, even if there was nothing to do.
			code, h.LastUpdated = http.StatusOK, h.CurrentTime
		}
		count(path, code)
		w.WriteHeader(code)
		// An error means that the client went away.
		b, _ := json.Marshal(h)
		_, _ = w.Write(b)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		h, eligible := t.Health(time.Now()), t.Eligible()
		h.NodeEligible = &eligible
		answer(w, "/healthz", h, h.Healthy && eligible)
	})
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) {
		h := t.Health(time.Now())
		answer(w, "/livez", h, h.Healthy)
	})
	return mux
}

// A Pages is what the metrics server shows.
type Pages struct {
	// Metrics answers /metrics.
	Metrics http.Handler
	// Mode is the answer of /proxyMode.
	Mode string
	// Config is the configuration in JSON, under the name of its group.
	Config map[string]json.RawMessage
	// Profiling opens /debug/pprof and /debug/flags/v.
	Profiling bool
	// SetVerbosity sets the verbosity of the log; required with Profiling.
	SetVerbosity func(string) error
}

// Handler answers for the pages.
func (p *Pages) Handler() http.Handler {
	mux := http.NewServeMux()
	text := func(path, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			plain(w)
			fmt.Fprint(w, body)
		})
	}
	text("/healthz", "ok")
	text("/proxyMode", p.Mode)
	mux.Handle("/metrics", p.Metrics)
	mux.HandleFunc("/configz", func(w http.ResponseWriter, _ *http.Request) {
		b, err := json.Marshal(p.Config)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(b)
	})
	if p.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		mux.HandleFunc("PUT /debug/flags/v", p.putVerbosity)
	}
	return mux
}

// putVerbosity sets the verbosity of the log to the body of the request.
func (p *Pages) putVerbosity(w http.ResponseWriter, r *http.Request) {
	const longest = 16
	b, err := io.ReadAll(io.LimitReader(r.Body, longest))
	if err == nil {
		err = p.SetVerbosity(string(b))
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("set the verbosity to %q: %v", b, err), http.StatusBadRequest)
		return
	}
	plain(w)
	fmt.Fprintf(w, "successfully set klog.logging.verbosity to %s", b)
}

// plain says that plain text follows.
func plain(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}
