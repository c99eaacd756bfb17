// Package events decides what the cluster is told of: problems of Services, once each.
package events

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// An Event is something that an operator of the cluster should know.
type Event struct {
	// Service is what it is about; if empty, this node.
	Service model.Name
	Warning bool
	// Reason and Action are words for machines, Note is for people.
	Reason, Action, Note string
}

// The events, with kube-proxy's words where it has them.
const (
	ReasonStarting        = "Starting"
	ReasonNoHealthServer  = "FailedToStartProxierHealthcheck"
	ReasonNoMetricsServer = "FailedToStartMetricServer"
	ReasonNoServiceCheck  = "FailedToStartServiceHealthcheck"
	ReasonRefused         = "FrontEndRefused"
	ReasonConflict        = "FrontEndConflict"
	ReasonInvalid         = "InvalidField"
	ReasonNoScheduler     = "SchedulerUnavailable"
	ActionStart           = "StartKubeProxy"
	ActionListen          = "Listen"
	ActionProgram         = "Program"
	ActionRead            = "Read"
)

// How often a Reporter looks, and how many events go out at once and thereafter.
const (
	look   = 5 * time.Second
	burst  = 25
	refill = 10 * time.Second
)

// maxNote is how long a note may be: the API takes no longer ones.
const maxNote = 1024

// A Recorder passes events on. It must not wait, and may be called from any goroutine.
type Recorder func(Event)

// Log returns a Recorder that logs.
func Log(log *zap.Logger) Recorder {
	return func(e Event) {
		say := log.Info
		if e.Warning {
			say = log.Warn
		}
		object := "node"
		if e.Service != (model.Name{}) {
			object = e.Service.String()
		}
		say("event", zap.String("object", object), zap.String("reason", e.Reason), zap.String("note", e.Note))
	}
}

// A Reporter records each problem when it comes up. It looks now and then at what there is: a problem
// that is gone by then is not reported.
type Reporter struct {
	record Recorder
	// problems returns the problems that there are.
	problems func() []Event
}

// NewReporter returns a Reporter of what problems returns.
func NewReporter(record Recorder, problems func() []Event) *Reporter {
	return &Reporter{record: record, problems: problems}
}

// Run reports until the context ends.
func (r *Reporter) Run(ctx context.Context) error {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var known Known
	for {
		for _, e := range known.New(r.problems(), time.Now()) {
			r.record(e)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Known are the problems that were reported and are not gone. The zero value knows none.
type Known struct {
	reported map[Event]struct{}
	// spent is how many events went out that refill has not made good for, at the time then.
	spent int
	then  time.Time
}

// New returns the problems to report now, out of all that there are. After a burst one goes out every
// ten seconds: the API server has other things to do. The others are not forgotten.
func (k *Known) New(problems []Event, now time.Time) []Event {
	if good := int(now.Sub(k.then) / refill); good > 0 {
		k.spent = max(0, k.spent-good)
		k.then = k.then.Add(time.Duration(good) * refill)
		if k.spent == 0 {
			k.then = now
		}
	}
	still := make(map[Event]struct{}, len(problems))
	var out []Event
	for _, e := range problems {
		e.Note = clip(e.Note)
		if _, twice := still[e]; twice {
			continue
		}
		_, old := k.reported[e]
		if !old && k.spent >= burst {
			continue
		}
		still[e] = struct{}{}
		if !old {
			k.spent++
			out = append(out, e)
		}
	}
	k.reported = still
	return out
}

// clip shortens a note to what the API takes.
func clip(note string) string {
	if len(note) <= maxNote {
		return note
	}
	const more = "..."
	return strings.ToValidUTF8(note[:maxNote-len(more)], "") + more
}

// A Board is where tasks leave their problems for a [Reporter].
type Board struct {
	mu    sync.Mutex
	notes map[string][]Event
}

// NewBoard returns an empty Board.
func NewBoard() *Board { return &Board{notes: map[string][]Event{}} }

// Put replaces the problems of one task.
func (b *Board) Put(task string, problems []Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notes[task] = problems
}

// All returns the problems of all tasks.
func (b *Board) All() []Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Event
	for _, task := range slices.Sorted(maps.Keys(b.notes)) {
		all = append(all, b.notes[task]...)
	}
	return all
}
