package nft

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// elements checks the elements of a set.
func (c *checker) elements(name string, elements []Element) {
	set := c.sets[name]
	c.enter("elements", name)
	if set == nil {
		c.errorf("there is no such set")
		return
	}
	if set.Dynamic && len(elements) > 0 {
		c.errorf("packets fill the set")
	}
	if set.Size > 0 && len(elements) > int(set.Size) {
		c.errorf("%d elements; the size is %d", len(elements), set.Size)
	}
	seen := make(map[Value]struct{}, len(elements))
	for i := range elements {
		e := &elements[i]
		before := len(c.errs)
		c.element(set, e)
		if _, ok := seen[e.Key]; ok && !set.Interval {
			c.errorf("there are two")
		}
		seen[e.Key] = struct{}{}
		c.locate(set, e, before)
	}
	if set.Interval {
		c.overlaps(set, elements)
	}
}

// locate writes the element into the errors that were added since.
func (c *checker) locate(set *Set, e *Element, since int) {
	for i := since; i < len(c.errs); i++ {
		c.errs[i] = fmt.Errorf("{ %s }: %w", set.ElementString(c.table.Family, e), c.errs[i])
	}
}

// element checks one element against the definition of its set.
func (c *checker) element(set *Set, e *Element) {
	f := c.table.Family
	if e.Comment != "" {
		c.comment(e.Comment)
	}
	if got, want := e.Key.Len(), Size(f, set.Key); got != want {
		c.errorf("key of %d bytes; want %d", got, want)
	}
	c.end(set, e)
	switch {
	case set.IsVerdictMap():
		c.verdict(e.Verdict)
	case e.Verdict != Verdict{}:
		c.errorf("a verdict where none belongs")
	}
	want := 0
	if !set.IsVerdictMap() {
		want = Size(f, set.Data)
	}
	if got := e.Data.Len(); got != want {
		c.errorf("value of %d bytes; want %d", got, want)
	}
}

// end checks the end of an interval.
func (c *checker) end(set *Set, e *Element) {
	if !set.Interval {
		if e.End.Len() != 0 {
			c.errorf("an interval in a set without")
		}
		return
	}
	if e.End.Len() != e.Key.Len() {
		c.errorf("an interval with no end")
		return
	}
	cut := rangeAt(c.table.Family, set)
	if cut > e.Key.Len() {
		return // another error says so
	}
	if !bytes.Equal(e.Key.Bytes()[:cut], e.End.Bytes()[:cut]) {
		c.errorf("an interval in more than the last field")
	}
	if e.Key.Compare(&e.End) > 0 {
		c.errorf("an interval that ends before it begins")
	}
}

// rangeAt returns where in a key of an interval set the last field begins.
func rangeAt(f Family, set *Set) int { return Size(f, set.Key[:max(0, len(set.Key)-1)]) }

// overlaps checks that no two intervals share a key.
func (c *checker) overlaps(set *Set, elements []Element) {
	sorted := slices.Clone(elements)
	slices.SortFunc(sorted, func(a, b Element) int {
		return cmp.Or(a.Key.Compare(&b.Key), a.End.Compare(&b.End))
	})
	for i := range sorted {
		if i > 0 && sorted[i].Key.Compare(&sorted[i-1].End) <= 0 {
			c.errorf("{ %s } and { %s } overlap", set.ElementString(c.table.Family, &sorted[i-1]),
				set.ElementString(c.table.Family, &sorted[i]))
		}
	}
}
