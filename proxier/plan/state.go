package plan

import (
	"iter"
	"maps"
	"slices"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// A State is what the kernel should hold. It is never changed: a later State shares with an earlier
// one what did not change between them, which is how Diff finds the difference without looking at
// the rest.
type State struct {
	config   Config
	snapshot model.Snapshot
	view     view
	// frames are the tables without what depends on Services, by family.
	frames []*nft.Table
	units  model.Map[model.Name, *unit]
	// claims has for each key all claims, the one that holds first.
	claims model.Map[key, *claimants]
	// balancers counts the claims that need a chain. Those that are prepared are not in it.
	balancers map[balancer]int
	// contested are the front ends that more than one Service claims.
	contested model.Map[key, *claimants]
	// checked are the Services that have a health check node port.
	checked model.Map[model.Name, *unit]
	// fallbacks are the Services whose scheduler the kernel does not have.
	fallbacks model.Map[model.Name, *unit]
	// asked counts the Services that ask for each scheduler of IPVS; balanced those of them that it serves.
	asked, balanced map[string]int
	// counts are numbers of what there is, by family.
	counts familyCounts
	// withheld are keys that are not programmed, since the kernel refused them.
	withheld map[key]bool
	// recalled is where endpoints have their places in the kernel; only in a State made by Recall.
	recalled recollection
}

// claimants are the claims for one key, in order; never empty and never changed.
type claimants struct{ claims []keyedClaim }

// Compile returns what the kernel should hold for a snapshot. It compiles only what differs from
// the snapshot of last, and endpoints keep the places that they have in last; a nil last compiles
// everything afresh.
func Compile(config Config, snapshot model.Snapshot, last *State) *State {
	if last == nil {
		last = &State{}
	}
	if snapshot.Node == nil {
		snapshot.Node = &model.Node{}
	}
	node := snapshot.Node
	s := &State{
		config: config, snapshot: snapshot,
		view:     newView(&config, node),
		frames:   last.frames,
		withheld: last.withheld,
	}
	if !config.equal(&last.config) || node != last.snapshot.Node || !slices.Equal(snapshot.ServiceCIDRs, last.snapshot.ServiceCIDRs) || len(last.frames) == 0 {
		s.frames = nil
		for _, f := range config.families() {
			s.frames = append(s.frames, frame(&config, node, snapshot.ServiceCIDRs, f))
		}
	}
	e := newEditor(last)
	if s.view.equal(&last.view) {
		for c := range model.Changes(last.snapshot.Services, snapshot.Services) {
			e.replace(&s.view, c.Key, c.New)
		}
		for name := range differing(s.view.unfit, last.view.unfit) {
			service, _ := snapshot.Services.Get(name)
			e.replace(&s.view, name, service)
		}
	} else {
		for name := range last.units.All() {
			if _, ok := snapshot.Services.Get(name); !ok {
				e.replace(&s.view, name, nil)
			}
		}
		for name, service := range snapshot.Services.All() {
			e.replace(&s.view, name, service)
		}
	}
	s.units, s.claims, s.balancers = e.units.Map(), e.claims.Map(), e.balancers()
	s.contested, s.checked, s.counts = e.contested.Map(), e.checked.Map(), e.counts
	s.fallbacks, s.asked, s.balanced = e.fallbacks.Map(), e.asked, e.balanced
	return s
}

// An editor makes the compiled part of a State from that of the last one.
type editor struct {
	last      *State
	units     *model.Edit[model.Name, *unit]
	claims    *model.Edit[key, *claimants]
	contested *model.Edit[key, *claimants]
	checked   *model.Edit[model.Name, *unit]
	fallbacks *model.Edit[model.Name, *unit]
	counts    familyCounts
	// asked and balanced are those of the State; few names, so they are copied.
	asked, balanced map[string]int
	// delta is how the numbers of claims that need a chain change.
	delta map[balancer]int
}

func newEditor(last *State) *editor {
	return &editor{
		last: last, units: last.units.Edit(), claims: last.claims.Edit(), contested: last.contested.Edit(),
		checked: last.checked.Edit(), counts: last.counts, delta: map[balancer]int{},
		fallbacks: last.fallbacks.Edit(), asked: maps.Clone(last.asked), balanced: maps.Clone(last.balanced),
	}
}

// replace puts a Service, or with nil nothing, in the place of the one with the name.
func (e *editor) replace(v *view, name model.Name, service *model.Service) {
	were := e.last.recalled.places
	old, ok := e.units.Get(name)
	if ok {
		were = old.places
		e.counts.addNoLocal(old, -1)
		e.schedule(name, old, -1)
	} else {
		old = &unit{}
	}
	if service == nil {
		e.replaceClaims(old.claims, nil)
		e.units.Delete(name)
		e.checked.Delete(name)
		return
	}
	u := compileService(v, service, were)
	e.replaceClaims(old.claims, u.claims)
	e.counts.addNoLocal(u, 1)
	e.units.Set(name, u)
	e.schedule(name, u, 1)
	if service.HealthCheckNodePort != 0 {
		e.checked.Set(name, u)
	} else {
		e.checked.Delete(name)
	}
}

// replaceClaims puts claims in the place of others. Mostly the keys are the same.
func (e *editor) replaceClaims(old, now []keyedClaim) {
	if slices.EqualFunc(old, now, func(a, b keyedClaim) bool { return a.key == b.key }) {
		for i := range now {
			e.change(now[i].key, old[i].claim, now[i].claim)
		}
		return
	}
	for _, c := range old {
		e.change(c.key, c.claim, nil)
	}
	for _, c := range now {
		e.change(c.key, nil, c.claim)
	}
}

// change puts a claim in the place of another among the claimants of a key; nil is none.
func (e *editor) change(k key, gone, come *claim) {
	var were []keyedClaim
	if all, ok := e.claims.Get(k); ok {
		were = all.claims
	}
	claims := make([]keyedClaim, 0, len(were)+1)
	for _, c := range were {
		if c.claim != gone {
			claims = append(claims, c)
		}
	}
	if gone != nil {
		gone.balancers(&k, func(b balancer) { e.delta[b]-- })
	}
	if come != nil {
		i, _ := slices.BinarySearchFunc(claims, come, func(a keyedClaim, b *claim) int { return compareClaims(a.claim, b) })
		claims = slices.Insert(claims, i, keyedClaim{k, come})
		come.balancers(&k, func(b balancer) { e.delta[b]++ })
	}
	e.counts.addHolder(were, -1)
	e.claim(k, claims)
}

// claim notes all claims of a key.
func (e *editor) claim(k key, claims []keyedClaim) {
	e.counts.addHolder(claims, 1)
	all := &claimants{claims}
	if len(claims) > 0 {
		e.claims.Set(k, all)
	} else {
		e.claims.Delete(k)
	}
	if len(claims) > 1 && k.kind == keyFrontEnd {
		e.contested.Set(k, all)
	} else {
		e.contested.Delete(k)
	}
}

// balancers returns the numbers of claims that need a chain.
func (e *editor) balancers() map[balancer]int {
	maps.DeleteFunc(e.delta, func(b balancer, n int) bool { return n == 0 || b.prepared() })
	if len(e.delta) == 0 && e.last.balancers != nil {
		return e.last.balancers
	}
	counts := maps.Clone(e.last.balancers)
	if counts == nil {
		counts = map[balancer]int{}
	}
	for b, n := range e.delta {
		counts[b] += n
		if counts[b] == 0 {
			delete(counts, b)
		}
	}
	return counts
}

// holder returns the claim that is programmed for a key, nil if there is none.
func (s *State) holder(k key) *claim {
	if s.withheld[k] {
		return nil
	}
	c, ok := s.claims.Get(k)
	if !ok {
		return nil
	}
	return c.claims[0].claim
}

// chains yields the chains of one family: those of the frame and those of the balancers, sorted.
func (s *State) chains(t *nft.Table) iter.Seq[*nft.Chain] {
	return func(yield func(*nft.Chain) bool) {
		for i := range t.Chains {
			if !yield(&t.Chains[i]) {
				return
			}
		}
		for _, b := range append(preparedBalancers(), sortedBalancers(s.balancers)...) {
			c := b.chain(t.Family)
			if !yield(&c) {
				return
			}
		}
	}
}

// entries yields every element of one family but those of the frame, in no particular order. The
// entry is valid until the next one.
func (s *State) entries(f nft.Family) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		var buffer []entry
		for b := range s.balancers {
			for _, l := range b.links() {
				if !yield(&l) {
					return
				}
			}
		}
		for k := range s.claims.All() {
			if k.family != f {
				continue
			}
			holder := s.holder(k)
			if holder == nil {
				continue
			}
			buffer = holder.elements(&k, buffer[:0])
			for i := range buffer {
				if !yield(&buffer[i]) {
					return
				}
			}
		}
	}
}

// Tables returns the whole ruleset: everything sorted.
func (s *State) Tables() []nft.Table {
	var tables []nft.Table
	for _, frame := range s.frames {
		t := *frame
		t.Chains, t.Elements = nil, map[string][]nft.Element{}
		for set, elements := range frame.Elements {
			t.Elements[set] = slices.Clone(elements)
		}
		for c := range s.chains(frame) {
			t.Chains = append(t.Chains, *c)
		}
		for e := range s.entries(t.Family) {
			t.Elements[e.set] = append(t.Elements[e.set], e.element)
		}
		for _, elements := range t.Elements {
			slices.SortFunc(elements, func(a, b nft.Element) int {
				if c := a.Key.Compare(&b.Key); c != 0 {
					return c
				}
				return a.End.Compare(&b.End)
			})
		}
		tables = append(tables, t)
	}
	return tables
}

// sortedBalancers returns the keys of a map of balancers by kind, number and timeout.
func sortedBalancers(m map[balancer]int) []balancer {
	return slices.SortedFunc(maps.Keys(m), balancer.compare)
}

// setOf returns the definition of a set in a frame.
func setOf(t *nft.Table, name string) *nft.Set {
	for i := range t.Sets {
		if t.Sets[i].Name == name {
			return &t.Sets[i]
		}
	}
	panic("plan: no set " + name)
}
