package nft

import (
	"maps"
	"slices"
)

// maxDepth is how deep chains may call each other (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// walk follows every base chain and checks that there are no loops and that statements stand where
// the kernel allows them.
func (c *checker) walk() {
	targets := map[string][]string{} // of verdict maps
	for i := range c.table.Sets {
		if s := &c.table.Sets[i]; s.IsVerdictMap() {
			targets[s.Name] = verdictTargets(c.table.Elements[s.Name])
		}
	}
	w := walker{checker: c, targets: targets}
	for i := range c.table.Chains {
		ch := &c.table.Chains[i]
		w.done, w.base = map[string]int{}, ch.Base
		w.chain(ch, 1)
	}
}

// verdictTargets returns the chains that elements name, each once.
func verdictTargets(elements []Element) []string {
	seen := map[string]bool{}
	for i := range elements {
		if name := elements[i].Verdict.Chain; name != "" {
			seen[name] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// A walker follows one chain; base is nil for one that is not hooked in, and then only loops are found.
type walker struct {
	*checker
	base    *Base
	targets map[string][]string
	done    map[string]int // depth at which a chain was seen
}

// chain follows a chain at a depth.
func (w *walker) chain(ch *Chain, depth int) {
	w.enter("chain", ch.Name)
	if depth > maxDepth {
		if !w.tooDeep() {
			w.errorf("more than %d chains deep, or a loop", maxDepth)
		}
		return
	}
	if w.done[ch.Name] >= depth {
		return
	}
	first := w.done[ch.Name] == 0
	w.done[ch.Name] = depth
	for i := range ch.Rules {
		r := &ch.Rules[i]
		w.enter("rule", ch.Name+" "+r.Text(w.table.Family))
		for _, s := range r.Stmts {
			if first && w.base != nil {
				w.place(s)
			}
		}
		for _, target := range w.next(r) {
			w.chain(w.chains[target], depth+1)
		}
	}
}

// tooDeep reports whether the last error was about depth, so that a loop is reported once.
func (w *walker) tooDeep() bool {
	const key = "\x00deep"
	seen := w.done[key] > 0
	w.done[key] = 1
	return seen
}

// next returns the chains where a rule may go, each once.
func (w *walker) next(r *Rule) []string {
	refs := r.Refs()
	next := refs.Chains
	for _, set := range refs.Sets {
		next = append(next, w.targets[set]...)
	}
	return next
}

// place checks that the kernel allows a statement at the hook.
func (w *walker) place(s Stmt) {
	hook, nat := w.base.Hook, w.base.Type == TypeNAT
	switch s.(type) {
	case DNAT, AffinityDNAT:
		if !nat || hook != Prerouting && hook != Output {
			w.errorf("dnat at %s", w.base)
		}
	case Masquerade:
		if !nat || hook != Postrouting {
			w.errorf("masquerade at %s", w.base)
		}
	case Reject:
		if hook == Postrouting {
			w.errorf("reject at %s", w.base)
		}
	}
}
