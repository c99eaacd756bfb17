// Package suite holds the tests that every kernel must pass: the one in memory and Linux.
package suite

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// Kernel is what is tested.
type Kernel interface {
	Load(name string) ([]nft.Table, error)
	Commit(tx nft.Tx) error
}

// Run runs all tests, each on an empty kernel that start returns.
func Run(t *testing.T, start func(t *testing.T) Kernel) {
	t.Run("round trip", func(t *testing.T) { roundTrip(t, start(t)) })
	t.Run("many elements", func(t *testing.T) { manyElements(t, start(t)) })
	t.Run("no tables", func(t *testing.T) { noTables(t, start(t)) })
	for _, tt := range slices.Concat(elementCases(), objectCases()) {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, start(t)) })
	}
}

// Diff returns how tables differ, whatever the order of their elements, or the empty string.
func Diff(want, got []nft.Table) string {
	return cmp.Diff(normal(want), normal(got),
		cmp.Comparer(func(a, b nft.Value) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

// normal returns a copy of tables with sorted elements, and nothing where there is nothing to list.
func normal(tables []nft.Table) []nft.Table {
	var r []nft.Table
	for _, t := range tables {
		elements := map[string][]nft.Element{}
		for name, list := range t.Elements {
			if len(list) > 0 {
				elements[name] = slices.SortedFunc(slices.Values(list), func(a, b nft.Element) int { return a.Key.Compare(&b.Key) })
			}
		}
		t.Elements = elements
		t.Chains = slices.Clone(t.Chains)
		for i := range t.Chains {
			if len(t.Chains[i].Rules) == 0 {
				t.Chains[i].Rules = nil
			}
		}
		r = append(r, t)
	}
	return r
}

// commit commits what must not fail.
func commit(t *testing.T, k Kernel, tx nft.Tx) {
	t.Helper()
	if err := k.Commit(tx); err != nil {
		t.Fatalf("Commit = %v; want nil", err)
	}
}

// expect compares what the kernel has with tables.
func expect(t *testing.T, k Kernel, want []nft.Table) {
	t.Helper()
	got, err := k.Load(nfttest.Name)
	if err != nil {
		t.Fatalf("Load = %v; want nil", err)
	}
	if diff := Diff(want, got); diff != "" {
		t.Fatalf("the kernel has other tables (-want +got):\n%s", diff)
	}
}

// roundTrip makes tables, makes them again, and takes everything out of them.
func roundTrip(t *testing.T, k Kernel) {
	tables := nfttest.Tables()
	commit(t, k, nfttest.Make(tables))
	expect(t, k, tables)
	commit(t, k, nfttest.Make(tables))
	expect(t, k, tables)
	commit(t, k, nfttest.Remove(tables))
	for i := range tables {
		tables[i].Sets, tables[i].Chains, tables[i].Elements = nil, nil, nil
	}
	expect(t, k, tables)
}

// manyElements adds more elements at once than fit into one message or one buffer.
func manyElements(t *testing.T, k Kernel) {
	const n = 20000
	tables := nfttest.Tables()[:1]
	var list []nft.Element
	for i := range n {
		list = append(list, nft.Element{Key: nfttest.FrontEnd(nft.IPv4, byte(i>>16), uint16(i)), Comment: fmt.Sprintf("default/many-%d", i)})
	}
	tables[0].Elements = map[string][]nft.Element{"no-limit": list}
	tables[0].Sets = append(tables[0].Sets, nft.Set{Name: "no-limit", Key: nft.FrontEndKey()})
	commit(t, k, nfttest.Make(tables))
	expect(t, k, tables)
}

// noTables loads what does not exist and commits nothing.
func noTables(t *testing.T, k Kernel) {
	commit(t, k, nil)
	commit(t, k, func(func(nft.Op) bool) {})
	expect(t, k, nil)
}

// A step is a transaction of a few steps and the error that it should give.
type step struct {
	ops []nft.Op
	err error // nil for a transaction that is done
	op  int   // the step that is refused
}

// A testCase begins with the tables of nfttest in the kernel.
type testCase struct {
	name  string
	steps []step
	// want changes the tables to what they should be at the end; nil if they should stay.
	want func(*nft.Table)
}

// run commits the steps and looks at what is left.
func (tt *testCase) run(t *testing.T, k Kernel) {
	tables := nfttest.Tables()
	commit(t, k, nfttest.Make(tables))
	for i, s := range tt.steps {
		err := k.Commit(nft.Tx(slices.Values(s.ops)))
		if !errors.Is(err, s.err) {
			t.Fatalf("step %d: Commit(%s) = %v; want %v", i, nft.Tx(slices.Values(s.ops)), err, s.err)
		}
		var refused *nft.RefusedError
		switch {
		case s.err == nil:
		case !errors.As(err, &refused):
			t.Errorf("step %d: Commit = %T; want a *nft.RefusedError", i, err)
		case refused.Op.String() != s.ops[s.op].String():
			t.Errorf("step %d: refused was %s; want %s", i, refused.Op, s.ops[s.op])
		}
	}
	if tt.want != nil {
		tt.want(&tables[0])
	}
	expect(t, k, tables)
}

// op returns a step about the table of IPv4.
func op(verb nft.Verb, o nft.Op) nft.Op {
	o.Verb, o.Family, o.Name = verb, nft.IPv4, nfttest.Name
	return o
}

// refused returns a transaction that is refused at a step.
func refused(err unix.Errno, at int, ops ...nft.Op) []step {
	return []step{{ops: ops, err: err, op: at}}
}

// done returns a transaction that is done.
func done(ops ...nft.Op) []step { return []step{{ops: ops}} }
