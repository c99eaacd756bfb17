package proxier

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
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
	// draining is how many virtual servers wait for connections to end.
	draining int
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
	// Balanced and Fallbacks are numbers of Services by scheduler: those that IPVS serves, and those that
	// nftables serves since the kernel does not have the scheduler that they ask for.
	Balanced  map[string]int `json:"balanced,omitempty"`
	Fallbacks map[string]int `json:"fallbacks,omitempty"`
	// Fronts lists the front ends; only in the status of all.
	Fronts []Front `json:"fronts,omitempty"`
	// Servers lists the virtual servers, as the kernel holds them now; only in the status of all.
	Servers []Server `json:"servers,omitempty"`
	// ServersError says why they could not be listed.
	ServersError string `json:"serversError,omitempty"`
}

// Server is one virtual server of IPVS.
type Server struct {
	// Service is empty if nothing wants the server any more: it goes when its connections have ended.
	Service   string `json:"service,omitempty"`
	Address   string `json:"address"`
	Scheduler string `json:"scheduler"`
	// Persistence is the timeout of session affinity.
	Persistence  time.Duration `json:"persistenceNanoseconds,omitempty"`
	Destinations []Destination `json:"destinations"`
}

// Destination is one endpoint of a virtual server.
type Destination struct {
	Endpoint netip.AddrPort `json:"endpoint"`
	// Weight is 0 for one that gets no new connections.
	Weight   int    `json:"weight"`
	Active   uint32 `json:"active"`
	Inactive uint32 `json:"inactive"`
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
	Service  string `json:"service"`
	FrontEnd string `json:"frontEnd"`
	Family   string `json:"family"`
	// Scheduler is how one of the endpoints is chosen, Plane who does it: ipvs or nftables.
	Scheduler string           `json:"scheduler"`
	Plane     string           `json:"plane"`
	Endpoints []netip.AddrPort `json:"endpoints"`
	Local     []netip.AddrPort `json:"localEndpoints,omitempty"`
	Refuse    string           `json:"refuse,omitempty"`
}

// publish leaves a copy of the record for Status.
func (e *Engine) publish() {
	r := e.record
	r.refused, r.draining = nil, e.servers.draining()
	for front, why := range e.refused {
		if r.state == nil {
			break
		}
		service, address := r.state.Service(front)
		r.refused = append(r.refused, Refused{
			Service: service.String(), FrontEnd: address, Reason: why.reason, Since: why.since, Attempts: why.attempts,
		})
	}
	for name, why := range e.servers.unfit {
		r.refused = append(r.refused, Refused{
			Service: name.String(), FrontEnd: "virtual server", Reason: why.reason, Since: why.since, Attempts: why.attempts,
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
				Service: f.Service.String() + ":" + f.Port, FrontEnd: f.Address, Family: f.Family.String(), Scheduler: f.Scheduler, Plane: f.Plane,
				Endpoints: f.Endpoints, Local: f.Local, Refuse: f.Refuse,
			})
		}
	}
	s.Balanced, s.Fallbacks = r.state.Balanced(), r.state.FallbacksByScheduler()
	if all && (len(s.Balanced) > 0 || r.draining > 0) {
		s.Servers, s.ServersError = e.listServers(r.state)
	}
	slices.SortFunc(s.Fronts, func(a, b Front) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Family, b.Family), cmp.Compare(a.FrontEnd, b.FrontEnd))
	})
	for _, c := range r.state.Conflicts() {
		s.Conflicts = append(s.Conflicts, Conflict{FrontEnd: c.Address, Holder: c.Holder.String(), Loser: c.Loser.String()})
	}
	return s
}

// listServers returns the virtual servers that the kernel holds, or why it cannot be read.
func (e *Engine) listServers(state *plan.State) ([]Server, string) {
	have, err := e.servers.ours()
	if err != nil {
		return nil, err.Error()
	}
	var list []Server
	for _, k := range slices.SortedFunc(maps.Keys(have.Servers), ipvs.Key.Compare) {
		v := have.Servers[k]
		s := Server{Address: k.String(), Scheduler: v.Server.Scheduler, Persistence: v.Server.Persistence, Destinations: []Destination{}}
		if owner, ok := state.ServerOwner(k); ok {
			s.Service = owner.String()
		}
		for _, a := range slices.SortedFunc(maps.Keys(v.Dests), netip.AddrPort.Compare) {
			s.Destinations = append(s.Destinations, Destination{
				Endpoint: a, Weight: v.Dests[a], Active: v.Counts[a].Active, Inactive: v.Counts[a].Inactive,
			})
		}
		list = append(list, s)
	}
	return list, ""
}
