package watch

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// A Config is what the operator may choose about the hub.
type Config struct {
	// NodeName is the name of this node; required.
	NodeName string
	// Log is where problems are reported; nil for nowhere.
	Log *zap.Logger
	// AllowExternalIPs is whether spec.externalIPs of Services counts.
	AllowExternalIPs bool
	// NodeIP, if it is valid, stands for the primary address of its family, and that family for the
	// primary one (--bind-address).
	NodeIP netip.Addr
	// Queued is told of each snapshot before it is sent, and must not wait; nil for nobody.
	Queued func(model.Snapshot)
	// Since is when the program started; now if it is zero. What was triggered before is not measured:
	// it waited for the program.
	Since time.Time
}

// A Hub runs sources and sends a snapshot each time that what they say together changes.
type Hub struct {
	log       *zap.Logger
	queued    func(model.Snapshot)
	sources   []Source
	snapshots chan model.Snapshot
	ready     chan struct{}

	// mu guards what follows. It is held while parts are joined, so that puts take turns.
	mu     sync.Mutex
	joiner *joiner
	// silent are the sources that have not spoken yet.
	silent map[int]struct{}
	// known are the problems that were reported and are not gone.
	known []Problem
}

// NewHub returns a Hub. Where two sources hold the same object the first source's counts.
func NewHub(cfg Config, sources ...Source) *Hub {
	h := &Hub{
		log:       cfg.Log,
		queued:    cfg.Queued,
		sources:   sources,
		snapshots: make(chan model.Snapshot, 1),
		ready:     make(chan struct{}),
		joiner:    newJoiner(cfg, len(sources)),
		silent:    make(map[int]struct{}, len(sources)),
	}
	if cfg.Since.IsZero() {
		h.joiner.cfg.Since = time.Now()
	}
	if h.log == nil {
		h.log = zap.NewNop()
	}
	for i := range sources {
		h.silent[i] = struct{}{}
	}
	return h
}

// Run runs the sources until the context ends or one of them fails.
func (h *Hub) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, s := range h.sources {
		group.Go(func() error {
			if err := s.Run(ctx, func(p Part) { h.put(i, p) }); err != nil && ctx.Err() == nil {
				return fmt.Errorf("watch %s: %w", s, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// String names the hub among the tasks of the program.
func (h *Hub) String() string { return "hub" }

// Snapshots returns where the snapshots are sent. It holds the latest one only: a reader that was
// busy misses what was in between.
func (h *Hub) Snapshots() <-chan model.Snapshot { return h.snapshots }

// Ready returns a channel that is closed when every source has spoken.
func (h *Hub) Ready() <-chan struct{} { return h.ready }

// Problems returns what is wrong now, sorted.
func (h *Hub) Problems() []Problem {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Problem(nil), h.known...)
}

// put takes a part of a source and sends what follows from it. Nothing is sent before every source
// has spoken: what one source did not say yet would look like something that is gone.
func (h *Hub) put(i int, p Part) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.joiner.set(i, p)
	h.report(h.joiner.problems())
	if _, ok := h.silent[i]; ok && !p.Waiting {
		delete(h.silent, i)
		if len(h.silent) == 0 {
			close(h.ready)
		}
	}
	if len(h.silent) > 0 {
		return
	}
	s, changed := h.joiner.snapshot()
	if !changed {
		return
	}
	if h.queued != nil {
		h.queued(s)
	}
	select {
	case missed := <-h.snapshots:
		s.Triggered = slices.Concat(missed.Triggered, s.Triggered)
	default:
	}
	h.snapshots <- s
}

// report logs the problems that came and those that are gone. Both lists are sorted.
func (h *Hub) report(now []Problem) {
	was := h.known
	h.known = now
	for len(was) > 0 || len(now) > 0 {
		switch {
		case len(was) == 0 || len(now) > 0 && now[0].Compare(was[0]) < 0:
			log := h.log.Warn
			if now[0].Minor {
				log = h.log.Info
			}
			log("problem in the input", now[0].fields()...)
			now = now[1:]
		case len(now) == 0 || was[0].Compare(now[0]) < 0:
			h.log.Info("problem in the input is gone", was[0].fields()...)
			was = was[1:]
		default:
			was, now = was[1:], now[1:]
		}
	}
}

// fields returns the problem as fields of a log line.
func (p Problem) fields() []zap.Field {
	var out []zap.Field
	for _, f := range []struct{ key, value string }{
		{"source", p.Source}, {"where", p.Where}, {"object", p.Object}, {"field", p.Field}, {"problem", p.Message},
	} {
		if f.value != "" {
			out = append(out, zap.String(f.key, f.value))
		}
	}
	return out
}
