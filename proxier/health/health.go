// Package health answers load balancers that ask whether this node has endpoints of a Service.
//
// A Service of type LoadBalancer with the external traffic policy Local has a port of its own for that
// (spec.healthCheckNodePort). The answers are kube-proxy's.
package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/proxier/events"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// retry is how long the server waits before it tries again to listen; slow is how long it waits for a
// request that a client began.
const (
	retry = 5 * time.Second
	slow  = 5 * time.Second
)

// A Config is what a Server needs.
type Config struct {
	// Node is the name of this node, for messages.
	Node string
	// Healthy reports whether the proxy does its work; required.
	Healthy func() bool
	// Report is told of the ports that nobody listens on: all there are, each time that they change.
	Report func([]events.Event)
	Log    *zap.Logger
}

// A Server listens on the ports of Services.
type Server struct {
	config Config
	// wanted has the latest of Set, which said last before.
	wanted chan []opening
	last   []opening

	// The rest belongs to the goroutine of Run.

	open map[place]*listener
	// failures are what was reported last.
	failures []events.Event
	serving  sync.WaitGroup
}

// A listener answers on one place.
type listener struct {
	server *Server
	http   http.Server
	// service and local are what it tells. Only local changes while it listens.
	service model.Name
	local   atomic.Int64
}

// New returns a Server that listens on nothing before Run.
func New(c Config) *Server {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Report == nil {
		c.Report = func([]events.Event) {}
	}
	return &Server{config: c, wanted: make(chan []opening, 1), open: map[place]*listener{}}
}

// Set has the Server answer the checks of a State, on its addresses for node ports. It does not wait.
// It must not be called from two goroutines at once.
func (s *Server) Set(state *plan.State) {
	addrs, all := state.NodePortAddrs()
	w := openings(state.Checks(), addrs, all)
	if slices.Equal(w, s.last) {
		return
	}
	s.last = w
	select {
	case <-s.wanted:
	default:
	}
	s.wanted <- w
}

// Run listens and answers until the context ends. What cannot be listened on is tried again after a while, and when
// something else is to be listened on.
func (s *Server) Run(ctx context.Context) error {
	defer s.serving.Wait()
	defer s.keep(nil)
	var last []opening
	for {
		var again <-chan time.Time
		if len(s.failures) > 0 {
			again = time.After(retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case last = <-s.wanted:
		case <-again:
		}
		s.apply(ctx, last)
	}
}

// apply closes what is no longer wanted, opens what is not open and reports what cannot be.
func (s *Server) apply(ctx context.Context, want []opening) {
	s.keep(want)
	var failures []events.Event
	for _, o := range want {
		if l := s.open[o.place]; l != nil && o.mine(l) {
			l.local.Store(int64(o.check.Local))
			continue
		}
		err := s.listen(ctx, o)
		if err == nil {
			continue
		}
		e := events.Event{
			Service: o.check.Service, Warning: true, Reason: events.ReasonNoServiceCheck, Action: events.ActionListen,
			Note: fmt.Sprintf("node %s failed to start healthcheck %q on port %d: %v", s.config.Node, o.check.Service, o.check.Port, err),
		}
		failures = append(failures, e)
		if !slices.Contains(s.failures, e) {
			s.config.Log.Warn("no health check for a Service; trying again", zap.Stringer("service", e.Service), zap.Stringer("at", o.place), zap.Error(err))
		}
	}
	if !slices.Equal(failures, s.failures) {
		s.failures = failures
		s.config.Report(failures)
	}
}

// keep closes all that is open but not wanted.
func (s *Server) keep(want []opening) {
	holders := make(map[place]model.Name, len(want))
	for i := range want {
		if o := &want[i]; o.holder == (model.Name{}) {
			holders[o.place] = o.check.Service
		}
	}
	for at, l := range s.open {
		if holder, ok := holders[at]; !ok || holder != l.service {
			// It fails only if the listener is closed already.
			_ = l.http.Close()
			delete(s.open, at)
		}
	}
}

// listen begins to answer on one place.
func (s *Server) listen(ctx context.Context, o opening) error {
	if o.holder != (model.Name{}) {
		return fmt.Errorf("%s is that of %s", o.place, o.holder)
	}
	var c net.ListenConfig
	tcp, err := c.Listen(ctx, o.place.network(), o.place.addr.String())
	if err != nil {
		return err
	}
	l := &listener{server: s, service: o.check.Service}
	l.local.Store(int64(o.check.Local))
	l.http.Handler, l.http.ReadHeaderTimeout = l, slow
	s.open[o.place] = l
	s.serving.Go(func() {
		if err := l.http.Serve(tcp); !errors.Is(err, http.ErrServerClosed) {
			s.config.Log.Error("the health check of a Service ended", zap.Stringer("service", l.service), zap.Error(err))
		}
	})
	return nil
}

// ServeHTTP answers any method and path.
func (l *listener) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	local, healthy := l.local.Load(), l.server.config.Healthy()
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(local, 10))
	if local == 0 || !healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintf(w, "{\n\t\"service\": {\n\t\t\"namespace\": %q,\n\t\t\"name\": %q\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %t\n}",
		l.service.Namespace, l.service.Name, local, healthy)
}
