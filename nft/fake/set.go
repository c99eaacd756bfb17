package fake

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
)

// stepSet adds or deletes a set.
func (c *commit) stepSet(t *table, op nft.Op) error {
	s := t.sets[op.Set.Name]
	switch {
	case op.Verb == nft.Add && s != nil:
		if !same(&s.value, op.Set) {
			return unix.EEXIST
		}
		c.limit(s, op.Set)
		return nil
	case op.Verb == nft.Add:
		s = &set{value: *op.Set, elements: map[nft.Value]nft.Element{}, near: map[nft.Value][]nft.Value{}, order: t.next()}
		t.sets[op.Set.Name] = s
		c.undo = append(c.undo, func() { delete(t.sets, s.value.Name) })
		return nil
	case s == nil:
		return unix.ENOENT
	case s.uses > 0:
		return unix.EBUSY
	}
	refer := func(n int) {
		for _, e := range s.elements {
			t.refer(e.Verdict, n)
		}
	}
	refer(-1)
	delete(t.sets, op.Set.Name)
	c.undo = append(c.undo, func() { t.sets[s.value.Name] = s; refer(1) })
	return nil
}

// same reports whether two definitions are equal as Linux sees them, which compares no comments and
// no limits.
func same(a, b *nft.Set) bool {
	return slices.Equal(a.Key, b.Key) && slices.Equal(a.Data, b.Data) && a.Interval == b.Interval && a.Dynamic == b.Dynamic
}

// limit gives a set the size and the timeout of another definition of it, if that has them, as Linux
// does (6.18 at least).
func (c *commit) limit(s *set, to *nft.Set) {
	before := s.value
	s.value.Size = cmp.Or(to.Size, before.Size)
	s.value.Timeout = cmp.Or(to.Timeout, before.Timeout)
	c.undo = append(c.undo, func() { s.value = before })
}

// refer adds n to the uses of the chain that a verdict names.
func (t *table) refer(v nft.Verdict, n int) {
	if v.Chain != "" {
		t.chains[v.Chain].uses += n
	}
}

// stepElement adds or deletes an element.
func (c *commit) stepElement(t *table, op nft.Op) error {
	s := t.sets[op.Set.Name]
	if s == nil {
		return unix.ENOENT
	}
	e := *op.Element
	if e.Key.Len() != nft.Size(t.family, s.value.Key) || s.value.Interval != (e.End.Len() > 0) {
		return unix.EINVAL
	}
	have, ok := s.elements[e.Key]
	if op.Verb == nft.Delete {
		if !ok || have.End != e.End {
			return unix.ENOENT
		}
		s.remove(t, have)
		c.undo = append(c.undo, func() { s.insert(t, have) })
		return nil
	}
	if e.Verdict.Chain != "" {
		if err := t.target(e.Verdict.Chain); err != nil {
			return err
		}
	}
	if ok {
		if have.End != e.End || have.Data != e.Data || have.Verdict != e.Verdict {
			return unix.EEXIST
		}
		return nil // Linux does not change the comment either
	}
	return c.insert(t, s, e)
}

// insert adds an element that is not there.
func (c *commit) insert(t *table, s *set, e nft.Element) error {
	if s.value.Interval && s.overlaps(t.family, e) {
		return unix.EEXIST
	}
	if s.value.Size > 0 && len(s.elements) >= int(s.value.Size) {
		return unix.ENFILE
	}
	s.insert(t, e)
	c.undo = append(c.undo, func() { s.remove(t, e) })
	return nil
}

// insert puts an element in, with the reference that it holds.
func (s *set) insert(t *table, e nft.Element) {
	s.elements[e.Key] = e
	t.refer(e.Verdict, 1)
	if s.value.Interval {
		at := s.prefix(t.family, e)
		s.near[at] = append(s.near[at], e.Key)
	}
}

// remove takes an element out, with the reference that it holds.
func (s *set) remove(t *table, e nft.Element) {
	delete(s.elements, e.Key)
	t.refer(e.Verdict, -1)
	if s.value.Interval {
		at := s.prefix(t.family, e)
		s.near[at] = slices.DeleteFunc(s.near[at], func(k nft.Value) bool { return k == e.Key })
	}
}

// prefix returns the key of an interval without its last field.
func (s *set) prefix(f nft.Family, e nft.Element) nft.Value {
	return nft.ValueOf(e.Key.Bytes()[:nft.Size(f, s.value.Key[:len(s.value.Key)-1])])
}

// overlaps reports whether an interval shares a key with one that is there.
func (s *set) overlaps(f nft.Family, e nft.Element) bool {
	return slices.ContainsFunc(s.near[s.prefix(f, e)], func(k nft.Value) bool {
		have := s.elements[k]
		return have.Key.Compare(&e.End) <= 0 && e.Key.Compare(&have.End) <= 0
	})
}
