package kernel

import (
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// keysOf returns Keys that yield these of the map "endpoints", and count in asked how many were taken.
func keysOf(elements []nft.Element, asked *int) Keys {
	return func(_ *nft.Table, s *nft.Set) iter.Seq[nft.Value] {
		if s.Name != "endpoints" {
			return nil
		}
		return func(yield func(nft.Value) bool) {
			for i := range elements {
				if *asked++; !yield(elements[i].Key) {
					return
				}
			}
		}
	}
}

// What Load reads by key is what it reads without, whatever the keys.
func TestLoadByKey(t *testing.T) {
	n := netns.ForTest(t)
	c := dial(t, n)
	const count = keyedCount + 50
	table := big(count, 0)
	commit(t, c, nfttest.Make([]nft.Table{table}))
	want := load(t, c, "big")
	if got := len(want[0].Elements["endpoints"]); got != count {
		t.Fatalf("Load() without keys = %d endpoints; want %d", got, count)
	}
	all := table.Elements["endpoints"]
	foreign := slices.Clone(all)
	foreign[7].Key = nfttest.FrontEnd(nft.IPv4, 200, 1).Uint32(0)
	more := append(slices.Clone(all), foreign[7])
	twice := append(slices.Clone(all[1:]), all[1])
	for _, test := range []struct {
		name  string
		keys  []nft.Element
		byKey bool
	}{
		{"all", all, true},
		{"none", nil, false},
		{"one less", all[1:], false},
		{"one more", more, false},
		{"one that is not there", foreign, false},
		{"one twice", twice, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := 0
			c.keys = keysOf(test.keys, &asked)
			if got := load(t, c, "big"); !slices.Equal(want[0].Elements["endpoints"], got[0].Elements["endpoints"]) {
				t.Error("Load() with keys differs from that without")
			}
			if test.byKey && asked != count {
				t.Errorf("Load() took %d keys; want %d", asked, count)
			}
			r := readByKey(t, c, &table)
			if _, all, err := r(); all != test.byKey || err != nil {
				t.Errorf("byKey() says %v, %v; want %v", all, err, test.byKey)
			}
		})
	}
}

// readByKey returns byKey for the map "endpoints" of a table, as Load uses it.
func readByKey(t *testing.T, c *Conn, table *nft.Table) func() ([]nft.Element, bool, error) {
	t.Helper()
	gen, err := c.generation()
	if err != nil {
		t.Fatal(err)
	}
	d := dump{conn: c, gen: uint16(gen), name: table.Name, counts: map[string]uint32{"endpoints": uint32(len(table.Elements["endpoints"]))}}
	return func() ([]nft.Element, bool, error) { return d.byKey(table, &table.Sets[0]) }
}

// A change while elements are read by key is noticed.
func TestLoadByKeyTorn(t *testing.T) {
	n := netns.ForTest(t)
	c, other := dial(t, n), dial(t, n)
	const count = keyedCount + 50
	table := big(count, 0)
	commit(t, c, nfttest.Make([]nft.Table{table}))
	elements := table.Elements["endpoints"]
	victims := elements[1:2]
	c.keys = func(_ *nft.Table, s *nft.Set) iter.Seq[nft.Value] {
		return func(yield func(nft.Value) bool) {
			for i := range elements {
				if i == 2*keysAsked && len(victims) > 0 {
					commit(t, other, elementOp(&table, nft.Delete, 0, victims[0]))
					victims = victims[1:]
				}
				if !yield(elements[i].Key) {
					return
				}
			}
		}
	}
	read := readByKey(t, c, &table)
	if _, _, err := read(); !errors.Is(err, errTorn) {
		t.Errorf("byKey() over a change = %v; want %v", err, errTorn)
	}
	elements = elements[2:]
	victims = elements[:1]
	if got := load(t, c, "big")[0].Elements["endpoints"]; len(got) != count-2 {
		t.Errorf("Load() over a change = %d endpoints; want %d", len(got), count-2)
	}
}
