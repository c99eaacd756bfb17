package kernel

import (
	"testing"

	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// What was read ahead serves one Load, and none after a change of anybody.
func TestLoadAhead(t *testing.T) {
	n := netns.ForTest(t)
	c, other := dial(t, n), dial(t, n)
	table := big(20, 0)
	commit(t, c, nfttest.Make([]nft.Table{table}))
	count := func() int { return len(load(t, c, "big")[0].Elements["endpoints"]) }
	ahead := func() {
		t.Helper()
		if err := c.LoadAhead("big"); err != nil {
			t.Fatal(err)
		}
	}
	ahead()
	// To see that Load takes it.
	c.ahead.tables[0].Elements["endpoints"] = c.ahead.tables[0].Elements["endpoints"][:1]
	if got := count(); got != 1 {
		t.Errorf("Load() after LoadAhead() = %d endpoints; want the one that is left of those read ahead", got)
	}
	if got := count(); got != 20 {
		t.Errorf("a second Load() = %d endpoints; want 20", got)
	}
	for i, by := range []*Conn{c, other} {
		ahead()
		commit(t, by, elementOp(&table, nft.Delete, 0, table.Elements["endpoints"][i]))
		if got := count(); got != 19-i {
			t.Errorf("Load() after LoadAhead() and a change = %d endpoints; want %d", got, 19-i)
		}
	}
	if err := c.LoadAhead("none"); err != nil {
		t.Error(err)
	}
	if got, err := c.Load("none"); len(got) != 0 || err != nil {
		t.Errorf("Load() of no table = %v, %v; want nothing", got, err)
	}
}
