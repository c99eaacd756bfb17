package kube

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"pgregory.net/rapid"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch"
)

// synced returns a state of which all is known, and nothing is there.
func synced() *state {
	s := newState("n", false)
	for _, p := range []*progress{s.services.progress, s.slices.progress, s.nodes.progress, s.cidrs.progress} {
		p.synced = true
	}
	return s
}

// take takes the signal of a state and reports whether there was one.
func take(s *state) bool {
	select {
	case <-s.changed:
		return true
	default:
		return false
	}
}

// TestIncomplete looks at what waits for more: all but the change of an endpoint.
func TestIncomplete(t *testing.T) {
	s := synced()
	check := func(what string, err error, signal, incomplete bool) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if got := take(s); got != signal {
			t.Errorf("%s: signal %v; want %v", what, got, signal)
		}
		if got := s.incomplete(); got != incomplete {
			t.Errorf("%s: incomplete %v; want %v", what, got, incomplete)
		}
	}
	check("a slice", s.slices.Add(slice("web-1", "web", "10.0.0.1")), true, true)
	s.part()
	check("a Service", s.services.Add(service("web", "10.96.0.1")), true, true)
	s.part()
	check("nothing", nil, false, false)
	check("the same Service", s.services.Update(service("web", "10.96.0.1")), false, false)
	check("another endpoint", s.slices.Update(slice("web-1", "web", "10.0.0.2")), true, false)
	check("no slice", s.slices.Delete(slice("web-1", "web", "10.0.0.2")), true, true)
	s.part()
	check("no Service", s.services.Delete(service("web", "10.96.0.1")), true, true)
}

// TestStore compares a store with an ordinary map over random events: a slice is the same pointer
// exactly as long as it says the same, and there is a signal exactly if something changed.
func TestStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := synced()
		want := map[string]string{}
		name, ip := rapid.SampledFrom([]string{"a", "b", "c"}), rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "x"})
		draw := func() *discovery.EndpointSlice {
			o := slice(name.Draw(t, "name"), "service", ip.Draw(t, "address"))
			// What is not read changes all the time.
			o.ResourceVersion = rapid.StringN(1, 3, 3).Draw(t, "version")
			return o
		}
		text := func(o *discovery.EndpointSlice) string { return o.Endpoints[0].Addresses[0] }
		last := s.part()
		for range rapid.IntRange(1, 20).Draw(t, "events") {
			before := maps.Clone(want)
			var err error
			switch rapid.SampledFrom([]string{"add", "update", "delete", "replace", "stream"}).Draw(t, "event") {
			case "add":
				o := draw()
				want[o.Name], err = text(o), s.slices.Add(o)
			case "update":
				o := draw()
				want[o.Name], err = text(o), s.slices.Update(o)
			case "delete":
				o := draw()
				delete(want, o.Name)
				err = s.slices.Delete(o)
			case "replace":
				clear(want)
				var list []any
				for range rapid.IntRange(0, 3).Draw(t, "objects") {
					o := draw()
					if _, twice := want[o.Name]; twice {
						continue
					}
					want[o.Name], list = text(o), append(list, o)
				}
				err = s.slices.Replace(list, "1")
			case "stream":
				// As client-go does while it collects the first objects.
				clear(want)
				all := cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc, cache.WithTransformer(s.slices.Transformer()))
				for range rapid.IntRange(0, 3).Draw(t, "objects") {
					o := draw()
					if want[o.Name] = text(o); all.Add(o) != nil {
						t.Fatal("the store of client-go does not take the slice")
					}
				}
				err = s.slices.Replace(all.List(), "1")
			}
			if err != nil {
				t.Fatal(err)
			}
			p := s.part()
			if got, changed := take(s), !maps.Equal(before, want); got != changed {
				t.Fatalf("a signal %t; want %t after %v became %v", got, changed, before, want)
			}
			check(t, last, p, before, want)
			last = p
		}
	})
}

// check fails unless a part holds what it should, with the pointers of the one before where nothing
// changed.
func check(t *rapid.T, last, now watch.Part, before, want map[string]string) {
	if now.Slices.Len() != len(want) {
		t.Fatalf("there are %d slices; want %v", now.Slices.Len(), want)
	}
	problems := 0
	for n, text := range want {
		name := model.Name{Namespace: "ns", Name: n}
		v, _ := now.Slices.Get(name)
		if text == "x" {
			problems++
			if len(v.Subsets[0].Endpoints) > 0 {
				t.Fatalf("slice %s has endpoints %v; want none", n, v.Subsets[0].Endpoints)
			}
		} else if got := v.Subsets[0].Endpoints[0].Addr.Addr().String(); got != text {
			t.Fatalf("slice %s has the endpoint %s; want %s", n, got, text)
		}
		old, ok := last.Slices.Get(name)
		if same := before[n] == text; ok && (old == v) != same {
			t.Fatalf("slice %s is the same pointer: %t; want %t", n, old == v, same)
		}
	}
	if len(now.Problems) != problems+1 { // There is no Node.
		t.Fatalf("problems = %v; want %d of slices", now.Problems, problems)
	}
}

func TestStoreRefusesOthers(t *testing.T) {
	s := synced()
	if err := s.slices.Add(&v1.Pod{}); err == nil {
		t.Error("Add of a Pod = nil; want an error")
	}
	if err := s.slices.Replace([]any{&v1.Pod{}}, ""); err == nil {
		t.Error("Replace by a Pod = nil; want an error")
	}
	if err := s.slices.Delete(&v1.Pod{}); err == nil {
		t.Error("Delete of a Pod = nil; want an error")
	}
}

// TestStoreResync has all be looked at again: nothing happens.
func TestStoreResync(t *testing.T) {
	s := synced()
	if err := s.slices.Add(slice("a", "a", "10.0.0.1")); err != nil {
		t.Fatal(err)
	}
	take(s)
	if err := s.slices.Resync(); err != nil || take(s) {
		t.Errorf("Resync = %v and a signal; want nothing", err)
	}
}

// TestStoreManyProblems tells some problems of many.
func TestStoreManyProblems(t *testing.T) {
	s := synced()
	for i := range maxProblems + 7 {
		if err := s.slices.Add(slice(fmt.Sprintf("s%03d", i), "a", "x")); err != nil {
			t.Fatal(err)
		}
	}
	problems := s.part().Problems[1:]
	if len(problems) != maxProblems+1 {
		t.Fatalf("%d problems; want %d", len(problems), maxProblems+1)
	}
	last := problems[maxProblems]
	if got, want := last.String(), "kubernetes: endpointslices.discovery.k8s.io: 7 more objects with problems"; got != want {
		t.Errorf("the last problem = %q; want %q", got, want)
	}
}

// TestStoreTriggered keeps the trigger time of the event that changed the endpoints.
func TestStoreTriggered(t *testing.T) {
	s := synced()
	at := func(o *discovery.EndpointSlice, when string) *discovery.EndpointSlice {
		o.Annotations = map[string]string{v1.EndpointsLastChangeTriggerTime: when}
		return o
	}
	for _, tt := range []struct {
		o    *discovery.EndpointSlice
		want string
	}{
		{at(slice("a", "a", "10.0.0.1"), "2026-11-21T12:00:00Z"), "12:00:00"},
		{at(slice("a", "a", "10.0.0.1"), "2026-11-21T12:00:01Z"), "12:00:00"},
		{at(slice("a", "a", "10.0.0.2"), "2026-11-21T12:00:02Z"), "12:00:02"},
	} {
		if err := s.slices.Update(tt.o); err != nil {
			t.Fatal(err)
		}
		v, _ := s.part().Slices.Get(model.Name{Namespace: "ns", Name: "a"})
		if got := v.Triggered.Format(time.TimeOnly); got != tt.want {
			t.Errorf("Triggered = %s; want %s", got, tt.want)
		}
	}
}

// TestIntern shares what slices have in common.
func TestIntern(t *testing.T) {
	s := synced()
	for i := range 3 {
		o := slice(fmt.Sprintf("s%d", i), "a", "10.0.0.1", "10.0.0.2")
		if i == 2 {
			o.Endpoints[1].Hints.ForZones = append(o.Endpoints[1].Hints.ForZones, discovery.ForZone{Name: "y"})
		}
		if err := s.slices.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	var ports []*string
	var hints []*model.Hints
	for _, v := range s.part().Slices.All() {
		ports = append(ports, &v.Subsets[0].Ports[0].Name)
		for _, e := range v.Subsets[0].Endpoints {
			if len(e.Hints.Zones) == 1 {
				hints = append(hints, e.Hints)
			}
		}
	}
	if len(slices.Compact(ports)) != 1 || len(slices.Compact(hints)) != 1 {
		t.Errorf("three slices have ports at %v and hints at %v; want one copy", ports, hints)
	}
}

// TestInternForgets keeps the interner from growing with names that come and go.
func TestInternForgets(t *testing.T) {
	i := newInterner()
	for n := range 3 * maxInterned {
		word := fmt.Sprint(n)
		if i.word(&word); word != fmt.Sprint(n) {
			t.Fatalf("word(%d) = %s", n, word)
		}
	}
	if len(i.words) > maxInterned {
		t.Errorf("the interner knows %d words; want at most %d", len(i.words), maxInterned)
	}
}
