package kernel

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// compareValues lets cmp look at keys, values and prefixes.
func compareValues() cmp.Option {
	return cmpopts.EquateComparable(nft.Value{}, netip.Prefix{})
}

// dial connects to the nf_tables of a namespace for as long as the test lives.
func dial(t testing.TB, n *netns.NetNS) *Conn {
	t.Helper()
	c, err := Dial(Config{NetNS: n.FD()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// runNFT runs nft in a namespace with a script as its input and returns its output.
func runNFT(t testing.TB, n *netns.NetNS, script string, args ...string) string {
	t.Helper()
	cmd := exec.Command("nft", args...)
	cmd.Stdin = strings.NewReader(script)
	out, err := n.Output(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// commit commits and fails the test if that fails.
func commit(t testing.TB, c *Conn, tx nft.Tx) {
	t.Helper()
	if err := c.Commit(tx); err != nil {
		t.Fatalf("Commit() = %v; want nil", err)
	}
}

// load loads tables and fails the test if that fails. Elements are sorted by their keys.
func load(t testing.TB, c *Conn, name string) []nft.Table {
	t.Helper()
	tables, err := c.Load(name)
	if err != nil {
		t.Fatalf("Load(%q) = %v; want nil", name, err)
	}
	return sorted(tables)
}

// sorted returns copies of tables with all elements sorted by their keys and without empty lists of
// elements and what a Load does not read.
func sorted(tables []nft.Table) []nft.Table {
	tables = slices.Clone(tables)
	for i := range tables {
		t := &tables[i]
		elements := map[string][]nft.Element{}
		for name, list := range t.Elements {
			if len(list) > 0 {
				list = slices.Clone(list)
				slices.SortFunc(list, func(a, b nft.Element) int { return a.Key.Compare(&b.Key) })
				elements[name] = list
			}
		}
		t.Elements = elements
	}
	return tables
}

func TestLoadReturnsWhatWasCommitted(t *testing.T) {
	c := dial(t, netns.ForTest(t))
	want := nfttest.Tables()
	for _, what := range []string{"once", "again over what is there"} {
		commit(t, c, nfttest.Make(want))
		if diff := cmp.Diff(sorted(want), load(t, c, nfttest.Name), compareValues()); diff != "" {
			t.Errorf("%s: Load() after Commit() (-want +got):\n%s", what, diff)
		}
	}
}

// What we program lists the same as our text, loaded by nft.
func TestTwoRoads(t *testing.T) {
	ours, theirs := netns.ForTest(t), netns.ForTest(t)
	commit(t, dial(t, ours), nfttest.Make(nfttest.Tables()))
	var text strings.Builder
	for _, table := range nfttest.Tables() {
		text.WriteString(table.String())
	}
	runNFT(t, theirs, text.String(), "-f", "-")
	got := runNFT(t, ours, "", "list", "ruleset")
	want := runNFT(t, theirs, "", "list", "ruleset")
	if diff := cmp.Diff(nfttest.Sorted(want), nfttest.Sorted(got)); diff != "" {
		t.Errorf("nft list ruleset (-text loaded by nft +committed):\n%s", diff)
	}
	again := netns.ForTest(t)
	runNFT(t, again, got, "-f", "-")
	if diff := cmp.Diff(nfttest.Sorted(got), nfttest.Sorted(runNFT(t, again, "", "list", "ruleset"))); diff != "" {
		t.Errorf("nft list ruleset, saved and loaded again (-before +after):\n%s", diff)
	}
}
