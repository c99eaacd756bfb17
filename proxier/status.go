package proxier

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/proxier/plan"
)

// A record is what the engine leaves for Status after each sync. It is never changed.
type record struct {
	// state is what was programmed last.
	state    *plan.State
	syncs    uint64
	failures uint64
	steps    int
	duration time.Duration
	lastSync time.Time
	err      string
	refused  []Refused
}

// Status is what an Engine has done, for people and for tests.
type Status struct {
	// Healthy says that the last Snapshot was programmed.
	Healthy bool `json:"healthy"`
	// Services, FrontEnds and Endpoints are numbers of what is programmed. An endpoint counts once
	// for each front end.
	Services  int `json:"services"`
	FrontEnds int `json:"frontEnds"`
	Endpoints int `json:"endpoints"`
	// LastSync is when the kernel was last known to be in line.
	LastSync time.Time `json:"lastSync"`
	// LastDuration and LastSteps are those of the last sync.
	LastDuration time.Duration `json:"lastDurationNanoseconds"`
	LastSteps    int           `json:"lastSteps"`
	// LastError is empty unless the last sync failed.
	LastError string `json:"lastError,omitempty"`
	// Syncs and Failures count since the start.
	Syncs    uint64 `json:"syncs"`
	Failures uint64 `json:"failures"`
	// Refused lists front ends that the kernel refused.
	Refused []Refused `json:"refused"`
	// Conflicts lists front ends that more than one Service claims.
	Conflicts []Conflict `json:"conflicts"`
	// Fronts lists the front ends; only in the status of all.
	Fronts []Front `json:"fronts,omitempty"`
}

// Refused is a front end that the kernel refused.
type Refused struct {
	Service  string    `json:"service"`
	FrontEnd string    `json:"frontEnd"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Attempts int       `json:"attempts"`
}

// Conflict is a front end that more than one Service claims: Holder has it.
type Conflict struct {
	FrontEnd string `json:"frontEnd"`
	Holder   string `json:"holder"`
	Loser    string `json:"loser"`
}

// Front is one front end.
type Front struct {
	Service   string           `json:"service"`
	FrontEnd  string           `json:"frontEnd"`
	Family    string           `json:"family"`
	Endpoints []netip.AddrPort `json:"endpoints"`
	Local     []netip.AddrPort `json:"localEndpoints,omitempty"`
	Refuse    string           `json:"refuse,omitempty"`
}

// publish leaves a copy of the record for Status.
func (e *Engine) publish() {
	r := e.record
	r.refused = nil
	for front, why := range e.refused {
		if r.state == nil {
			break
		}
		service, address := r.state.Service(front)
		r.refused = append(r.refused, Refused{
			Service: service.String(), FrontEnd: address, Reason: why.reason, Since: why.since, Attempts: why.attempts,
		})
	}
	slices.SortFunc(r.refused, func(a, b Refused) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.FrontEnd, b.FrontEnd))
	})
	e.status.Store(&r)
}

// Status returns what the engine has done; with all, every front end is listed. It may be called
// from any goroutine.
func (e *Engine) Status(all bool) Status {
	r := e.status.Load()
	s := Status{
		Healthy:  r.state != nil && r.err == "",
		LastSync: r.lastSync, LastDuration: r.duration, LastSteps: r.steps, LastError: r.err,
		Syncs: r.syncs, Failures: r.failures, Refused: r.refused, Conflicts: []Conflict{},
	}
	if s.Refused == nil {
		s.Refused = []Refused{}
	}
	if r.state == nil {
		return s
	}
	s.Services = r.state.Services()
	for f := range r.state.Fronts() {
		s.FrontEnds++
		s.Endpoints += len(f.Endpoints)
		if all {
			s.Fronts = append(s.Fronts, Front{
				Service: f.Service.String() + ":" + f.Port, FrontEnd: f.Address, Family: f.Family.String(),
				Endpoints: f.Endpoints, Local: f.Local, Refuse: f.Refuse,
			})
		}
	}
	slices.SortFunc(s.Fronts, func(a, b Front) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Family, b.Family), cmp.Compare(a.FrontEnd, b.FrontEnd))
	})
	for _, c := range r.state.Conflicts() {
		s.Conflicts = append(s.Conflicts, Conflict{FrontEnd: c.Address, Holder: c.Holder.String(), Loser: c.Loser.String()})
	}
	return s
}
