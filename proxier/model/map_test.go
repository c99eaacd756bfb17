package model

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// collect returns a Map as an ordinary one.
func collect(m Map[int, string]) map[int]string { return maps.Collect(m.All()) }

// TestMapIsAMap compares a Map with an ordinary map over random edits, and its history with itself:
// no earlier version may change.
func TestMapIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m Map[int, string]
		want := map[int]string{}
		type version struct {
			m    Map[int, string]
			want map[int]string
		}
		history := []version{{m, maps.Clone(want)}}
		for range rapid.IntRange(1, 20).Draw(t, "edits") {
			e := m.Edit()
			for range rapid.IntRange(0, 60).Draw(t, "steps") {
				key := rapid.IntRange(0, 100).Draw(t, "key")
				if rapid.Bool().Draw(t, "delete") {
					e.Delete(key)
					delete(want, key)
					continue
				}
				value := rapid.StringN(0, 2, 2).Draw(t, "value")
				e.Set(key, value)
				want[key] = value
			}
			m = e.Map()
			history = append(history, version{m, maps.Clone(want)})
		}
		for i, v := range history {
			if diff := cmp.Diff(v.want, collect(v.m)); diff != "" {
				t.Fatalf("version %d (-want +got):\n%s", i, diff)
			}
			if v.m.Len() != len(v.want) {
				t.Fatalf("version %d: Len() = %d; want %d", i, v.m.Len(), len(v.want))
			}
			for key := range 101 {
				got, ok := v.m.Get(key)
				value, has := v.want[key]
				if got != value || ok != has {
					t.Fatalf("version %d: Get(%d) = %q, %v; want %q, %v", i, key, got, ok, value, has)
				}
			}
		}
		a := rapid.IntRange(0, len(history)-1).Draw(t, "a")
		b := rapid.IntRange(0, len(history)-1).Draw(t, "b")
		checkChanges(t, history[a].m, history[b].m)
	})
}

// checkChanges applies the changes between two maps to the first and expects the second.
func checkChanges(t *rapid.T, before, after Map[int, string]) {
	got := collect(before)
	seen := map[int]bool{}
	for c := range Changes(before, after) {
		if seen[c.Key] {
			t.Fatalf("Changes yields key %d twice", c.Key)
		}
		seen[c.Key] = true
		old, ok := got[c.Key]
		if old != c.Old || ok != c.HasOld {
			t.Fatalf("Changes says that %d was %q, %v; want %q, %v", c.Key, c.Old, c.HasOld, old, ok)
		}
		if c.HasOld && c.HasNew && c.Old == c.New {
			t.Fatalf("Changes yields key %d, which did not change", c.Key)
		}
		if c.HasNew {
			got[c.Key] = c.New
		} else {
			delete(got, c.Key)
		}
	}
	if diff := cmp.Diff(collect(after), got); diff != "" {
		t.Fatalf("before with its changes (-want +got):\n%s", diff)
	}
}

// TestMapSameHash has keys of one hash, which no test can find for the hash that maps use: it edits the nodes.
func TestMapSameHash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const hash = 1 << 40
		e := Map[int, string]{}.Edit()
		want := map[int]string{}
		before := e.m
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			key := rapid.IntRange(0, 3).Draw(t, "key")
			_, has := want[key]
			if rapid.Bool().Draw(t, "delete") {
				if has {
					e.m.root = e.m.root.remove(e, hash, 0, key)
					delete(want, key)
				}
				continue
			}
			value := rapid.StringN(0, 1, 1).Draw(t, "value")
			root, added := e.m.root.set(e, hash, 0, key, value)
			if e.m.root = root; added == has {
				t.Fatalf("set says that %d is new: %v; want %v", key, added, !has)
			}
			want[key] = value
			if rapid.Bool().Draw(t, "keep") {
				before = e.Map()
			}
		}
		if diff := cmp.Diff(want, collect(e.m)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		checkChanges(t, before, e.m)
	})
}

// TestMapUnrelated compares maps that have no common origin.
func TestMapUnrelated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		make := func(name string) Map[int, string] {
			var m Map[int, string]
			e := m.Edit()
			for key, value := range rapid.MapOf(rapid.IntRange(0, 30), rapid.StringN(0, 1, 1)).Draw(t, name) {
				e.Set(key, value)
			}
			return e.Map()
		}
		checkChanges(t, make("before"), make("after"))
		checkChanges(t, Map[int, string]{}, make("alone"))
	})
}

// TestChangesFollowsTheChange counts what Changes looks at: with one key of 100,000 changed it must
// not walk the map.
func TestChangesFollowsTheChange(t *testing.T) {
	var m Map[int, int]
	e := m.Edit()
	for i := range 100_000 {
		e.Set(i, i)
	}
	before := e.Map()
	e.Set(5, 6)
	after := e.Map()
	if n := differing(before.root, after.root); n > 8 {
		t.Errorf("an edit of one key of 100,000 made %d nodes; want at most 8", n)
	}
}

// differing counts the nodes of b that it does not share with a.
func differing(a, b *mapNode[int, int]) int {
	if a == b {
		return 0
	}
	n := 1
	for i := range b.places {
		if sub := b.places[i].node; sub != nil {
			var old *mapNode[int, int]
			if i < len(a.places) {
				old = a.places[i].node
			}
			if old == nil {
				old = &mapNode[int, int]{}
			}
			n += differing(old, sub)
		}
	}
	return n
}

func BenchmarkMap(b *testing.B) {
	var m Map[int, int]
	e := m.Edit()
	for i := range 100_000 {
		e.Set(i, i)
	}
	m = e.Map()
	b.Run("get", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			m.Get(i % 100_000)
		}
	})
	b.Run("edit one and find it", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			e := m.Edit()
			e.Set(i%100_000, -1)
			for range Changes(m, e.Map()) {
			}
		}
	})
}
