package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/nftproxy/nftproxy/e2e/netns"

	"github.com/google/go-cmp/cmp"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
	"golang.org/x/sys/unix"
)

// big returns a table with n endpoints, of which size (0 for all) find room.
func big(n int, size uint32) nft.Table {
	t := nft.Table{
		Name: "big",
		Sets: []nft.Set{
			{Name: "endpoints", Key: nft.FrontEndKey(nft.Field{Kind: nft.Random, N: 2}), Data: nft.EndpointData(), Size: size},
			{Name: "services", Key: nft.FrontEndKey(), Data: []nft.Field{{Kind: nft.Verdicts}}},
		},
		Chains:   []nft.Chain{{Name: "lb-10", Rules: []nft.Rule{}}},
		Elements: map[string][]nft.Element{},
	}
	for i := range n {
		t.Elements["endpoints"] = append(t.Elements["endpoints"], nft.Element{
			Key:  nfttest.FrontEnd(nft.IPv4, byte(i>>16), uint16(i)).Uint32(uint32(i % 10)),
			Data: nfttest.Endpoint(nft.IPv4, byte(i>>16), uint16(i)),
		})
		if i%10 == 0 {
			t.Elements["services"] = append(t.Elements["services"], nft.Element{
				Key: nfttest.FrontEnd(nft.IPv4, byte(i>>16), uint16(i)), Verdict: nft.GoTo("lb-10"), Comment: fmt.Sprintf("default/service-%d:http", i),
			})
		}
	}
	return t
}

// elementOp returns the transaction of one step about an element of a table.
func elementOp(t *nft.Table, verb nft.Verb, set int, e nft.Element) nft.Tx {
	return func(yield func(nft.Op) bool) {
		yield(nft.Op{Verb: verb, Family: t.Family, Name: t.Name, Set: &t.Sets[set], Element: &e})
	}
}

// A list of elements is an attribute, so it ends at 64 KiB, and a library that does not cut it loses
// what is beyond without an error. 100,000 elements are far more than the default send buffer takes.
func TestCommitLosesNoElements(t *testing.T) {
	for _, n := range []int{499, 500, 501, 1_500, 100_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := dial(t, netns.ForTest(t))
			want := []nft.Table{big(n, 0)}
			commit(t, c, nfttest.Make(want))
			got := load(t, c, "big")
			if len(got) != 1 {
				t.Fatalf("Load() = %d tables; want 1", len(got))
			}
			for set := range want[0].Elements {
				if diff := cmp.Diff(sorted(want)[0].Elements[set], got[0].Elements[set], compareValues()); diff != "" {
					t.Errorf("elements of %s (-want +got):\n%.2000s", set, diff)
				}
			}
			if n == 100_000 && c.LastCommit().Bytes < 212_960 {
				t.Errorf("LastCommit() = %+v; want more than the default send buffer takes", c.LastCommit())
			}
		})
	}
}

// Elements with long comments reach the limit of bytes before that of elements.
func TestEncodeCutsLists(t *testing.T) {
	table := big(2_000, 0)
	long := make([]byte, maxComment)
	for i := range long {
		long[i] = 'x'
	}
	for i := range table.Elements["endpoints"] {
		table.Elements["endpoints"][i].Comment = string(long)
	}
	b, err := Encode(nfttest.Make([]nft.Table{table}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.marks {
		msg := b.message(i)
		if n := int(binary.NativeEndian.Uint32(msg)); n != len(msg) {
			t.Errorf("message %d says it has %d bytes; it has %d", i, n, len(msg))
		}
		if len(msg) > 1<<16 {
			t.Errorf("message %d has %d bytes; want at most 64 KiB", i, len(msg))
		}
	}
}

// The refused step is named, whichever it is among many.
func TestCommitNamesTheRefusedElement(t *testing.T) {
	c := dial(t, netns.ForTest(t))
	table := big(2_000, 2_000)
	commit(t, c, nfttest.Make([]nft.Table{table}))
	conflict := table.Elements["endpoints"][1_234]
	conflict.Data = nft.Value{}.Addr(nfttest.Addr(nft.IPv4, 9)).Port(9)
	missing := nft.Element{Key: nfttest.FrontEnd(nft.IPv4, 77, 77).Uint32(7)}
	extra := conflict
	extra.Key = missing.Key
	// all returns every endpoint of the table, with one exchanged or added at the end.
	all := func(verb nft.Verb, at int, e nft.Element) nft.Tx {
		return func(yield func(nft.Op) bool) {
			list := append([]nft.Element(nil), table.Elements["endpoints"]...)
			if at < len(list) {
				list[at] = e
			} else {
				list = append(list, e)
			}
			for i := range list {
				if !yield(nft.Op{Verb: verb, Name: table.Name, Set: &table.Sets[0], Element: &list[i]}) {
					return
				}
			}
		}
	}
	tests := []struct {
		name string
		tx   nft.Tx
		want nft.Element
		err  error
	}{
		{"another value for a key", all(nft.Add, 1_234, conflict), conflict, unix.EEXIST},
		{"delete what is not there", all(nft.Delete, 1_777, missing), missing, unix.ENOENT},
		{"one more than fit", all(nft.Add, 2_000, extra), extra, unix.ENFILE},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := c.Commit(tt.tx)
			var refused *nft.RefusedError
			if !errors.As(err, &refused) || !errors.Is(err, tt.err) {
				t.Fatalf("Commit() = %v; want a RefusedError of %v", err, tt.err)
			}
			if diff := cmp.Diff(&tt.want, refused.Op.Element, compareValues()); diff != "" {
				t.Errorf("the refused element (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(sorted([]nft.Table{table})[0].Elements, load(t, c, "big")[0].Elements, compareValues()); diff != "" {
				t.Errorf("after a refused transaction (-before +after):\n%.2000s", diff)
			}
		})
	}
}

// Steps about other things than elements are named too.
func TestCommitNamesTheRefusedObject(t *testing.T) {
	c := dial(t, netns.ForTest(t))
	table := big(10, 0)
	commit(t, c, nfttest.Make([]nft.Table{table}))
	bad := nft.Chain{Name: "bad", Rules: []nft.Rule{{Stmts: []nft.Stmt{nft.Do{Verdict: nft.GoTo("nowhere")}}}}}
	err := c.Commit(func(yield func(nft.Op) bool) {
		_ = yield(nft.Op{Name: table.Name, Set: &table.Sets[1], Element: &table.Elements["services"][0]}) &&
			yield(nft.Op{Name: table.Name, Chain: &nft.Chain{Name: "good"}}) && yield(nft.Op{Name: table.Name, Chain: &bad})
	})
	var refused *nft.RefusedError
	if !errors.As(err, &refused) || refused.Op.Chain == nil || refused.Op.Chain.Name != "bad" {
		t.Errorf("Commit() = %v; want a RefusedError of the chain bad", err)
	}
}

// On a lasting connection the answer to one batch is never taken for that to another.
func TestCommitTellsBatchesApart(t *testing.T) {
	c := dial(t, netns.ForTest(t))
	table := big(2_000, 0)
	commit(t, c, nfttest.Make([]nft.Table{table}))
	there, missing := table.Elements["endpoints"][0], nft.Element{Key: nfttest.FrontEnd(nft.IPv4, 77, 77).Uint32(7)}
	missing.Data = there.Data
	for i := range 300 {
		commit(t, c, nfttest.Make([]nft.Table{table}))
		if err := c.Commit(elementOp(&table, nft.Delete, 0, missing)); !errors.Is(err, unix.ENOENT) {
			t.Fatalf("round %d: Commit(delete what is not there) = %v; want ENOENT", i, err)
		}
		commit(t, c, elementOp(&table, nft.Delete, 0, there))
		commit(t, c, elementOp(&table, nft.Add, 0, there))
	}
}

// Many refusals in one batch are reported as the first.
func TestCommitWithManyErrors(t *testing.T) {
	c := dial(t, netns.ForTest(t))
	table := big(10, 0)
	commit(t, c, nfttest.Make([]nft.Table{table}))
	chains := make([]nft.Chain, 20_000)
	err := c.Commit(func(yield func(nft.Op) bool) {
		for i := range chains {
			chains[i].Name = fmt.Sprintf("missing-%d", i)
			if !yield(nft.Op{Verb: nft.Delete, Name: "big", Chain: &chains[i]}) {
				return
			}
		}
	})
	var refused *nft.RefusedError
	if !errors.As(err, &refused) || refused.Op.Chain.Name != "missing-0" {
		t.Errorf("Commit() = %v; want a RefusedError of missing-0", err)
	}
	commit(t, c, nfttest.Make([]nft.Table{table}))
}

// The transaction fails as a whole if it closes a loop between chains: found at the end, where no step
// can be blamed. The connection works on.
func TestCommitRefusedAsAWhole(t *testing.T) {
	c := dial(t, netns.ForTest(t))
	chain := func(name, to string) *nft.Chain {
		return &nft.Chain{Name: name, Rules: []nft.Rule{{Stmts: []nft.Stmt{nft.Do{Verdict: nft.GoTo(to)}}}}}
	}
	table := nft.Table{Name: "loop"}
	tx := func(yield func(nft.Op) bool) {
		for _, op := range []nft.Op{
			{Table: &table},
			{Chain: &nft.Chain{Name: "b"}},
			{Chain: &nft.Chain{Name: "base", Base: &nft.Base{Type: nft.TypeFilter, Hook: nft.Input}, Rules: chain("", "b").Rules}},
			{Chain: chain("a", "b")},
			{Chain: chain("b", "a")},
		} {
			op.Name = "loop"
			if !yield(op) {
				return
			}
		}
	}
	for range 3 {
		if err := c.Commit(tx); err == nil {
			t.Error("Commit(a loop) = nil; want an error")
		}
		if got := load(t, c, "loop"); len(got) != 0 {
			t.Errorf("Load() = %v; want nothing", got)
		}
		commit(t, c, nfttest.Make([]nft.Table{big(10, 0)}))
	}
}

// Whatever is written while it reads, Load returns a state that was there.
func TestLoadBetweenCommits(t *testing.T) {
	n := netns.ForTest(t)
	writer, reader := dial(t, n), dial(t, n)
	table := big(3_000, 0)
	commit(t, writer, nfttest.Make([]nft.Table{table}))
	// flip gives every endpoint the same new address.
	flip := func(to byte) nft.Tx {
		return func(yield func(nft.Op) bool) {
			for _, verb := range []nft.Verb{nft.Delete, nft.Add} {
				for _, e := range table.Elements["endpoints"] {
					e.Data = nfttest.Endpoint(nft.IPv4, to, 80)
					if !yield(nft.Op{Verb: verb, Name: "big", Set: &table.Sets[0], Element: &e}) {
						return
					}
				}
			}
		}
	}
	failed := make(chan error, 1)
	go func() {
		for i := range 100 {
			if err := writer.Commit(flip(byte(i))); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	for {
		select {
		case err := <-failed:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
		tables, err := reader.Load("big")
		if errors.Is(err, errTorn) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got := tables[0].Elements["endpoints"]
		if len(got) != 3_000 {
			t.Fatalf("Load() = %d endpoints; want 3000", len(got))
		}
		same := !slices.ContainsFunc(got, func(e nft.Element) bool { return e.Data != got[0].Data })
		if !same && !original(&table, got) {
			t.Fatal("Load() mixes two states")
		}
	}
}

// original reports whether elements are those that the table began with.
func original(t *nft.Table, got []nft.Element) bool {
	want := sorted([]nft.Table{*t})[0].Elements["endpoints"]
	have := sorted([]nft.Table{{Elements: map[string][]nft.Element{"endpoints": got}}})[0].Elements["endpoints"]
	return cmp.Equal(want, have, compareValues())
}
