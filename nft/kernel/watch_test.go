package kernel

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
	"github.com/nftproxy/nftproxy/nft/wire"
)

// watch watches the tables of a Conn for as long as the test lives and returns where the reports go.
func watch(t *testing.T, n *netns.NetNS, c *Conn) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	reports, ended := make(chan struct{}, 100), make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		w, err := c.listen(Config{NetNS: n.FD()}, nfttest.Name)
		close(begun)
		if err == nil {
			err = w.run(ctx, c.disturbed, func() { reports <- struct{}{} })
		}
		ended <- err
	}()
	<-begun
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the watch ended with %v; want nil", err)
		}
	})
	return reports
}

// count returns how many reports there were before that of a change that is made now.
func count(t *testing.T, n *netns.NetNS, reports <-chan struct{}) int {
	t.Helper()
	runNFT(t, n, "", "add", "chain", "ip", nfttest.Name, "last-change")
	total := 0
	for {
		select {
		case <-reports:
			total++
			continue
		case <-time.After(2 * watchPause):
		}
		if total > 0 {
			return total - 1
		}
	}
}

func TestWatchReports(t *testing.T) {
	tests := []struct {
		name   string
		script string
	}{
		{"flush ruleset", "flush ruleset"},
		{"delete table", "delete table ip6 " + nfttest.Name},
		{"flush table", "flush table ip " + nfttest.Name},
		{"new chain", "add chain ip " + nfttest.Name + " foreign"},
		{"new rule", "add rule ip " + nfttest.Name + " foreign-rules counter"},
		{"new set", "add set ip6 " + nfttest.Name + " foreign { type mark; }"},
		{"new element", "add element ip " + nfttest.Name + " foreign-marks { 1 }"},
		{"element that goes", "delete element ip " + nfttest.Name + " foreign-marks { 7 }"},
		{"among changes of others", "add table ip a; add chain ip " + nfttest.Name + " foreign; add table ip z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := netns.ForTest(t)
			c := dial(t, n)
			commit(t, c, nfttest.Make(nfttest.Tables()))
			runNFT(t, n, "add chain ip "+nfttest.Name+" foreign-rules; add set ip "+nfttest.Name+" foreign-marks { type mark; elements = { 7 }; }", "-f", "-")
			load(t, c, nfttest.Name)
			reports := watch(t, n, c)
			sent := time.Now()
			runNFT(t, n, tt.script, "-f", "-")
			<-reports
			t.Logf("reported %v after nft was started", time.Since(sent))
		})
	}
}

func TestWatchKeepsQuiet(t *testing.T) {
	tests := []struct {
		name string
		do   func(t *testing.T, n *netns.NetNS, c *Conn)
	}{
		{"nothing", func(*testing.T, *netns.NetNS, *Conn) {}},
		{"our own transaction", func(t *testing.T, _ *netns.NetNS, c *Conn) { commit(t, c, nfttest.Make(nfttest.Tables())) }},
		{"a transaction of ours that is refused", func(t *testing.T, _ *netns.NetNS, c *Conn) {
			if err := c.Commit(refusedTx()); err == nil {
				t.Error("Commit(a deletion of nothing) = nil; want an error")
			}
		}},
		{"our look at the kernel", func(t *testing.T, _ *netns.NetNS, c *Conn) { load(t, c, nfttest.Name) }},
		{"another table", func(t *testing.T, n *netns.NetNS, _ *Conn) {
			runNFT(t, n, "add table ip foreign; add chain ip foreign c; add rule ip foreign c counter; delete table ip foreign", "-f", "-")
		}},
		{"another family", func(t *testing.T, n *netns.NetNS, _ *Conn) {
			runNFT(t, n, "add table inet foreign; delete table inet foreign", "-f", "-")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := netns.ForTest(t)
			c := dial(t, n)
			load(t, c, nfttest.Name)
			commit(t, c, nfttest.Make(nfttest.Tables()))
			reports := watch(t, n, c)
			tt.do(t, n, c)
			if got := count(t, n, reports); got != 0 {
				t.Errorf("%d reports; want none", got)
			}
		})
	}
}

// refusedTx returns a transaction that the kernel refuses at its second step.
func refusedTx() nft.Tx {
	return nft.Tx(slices.Values([]nft.Op{
		{Verb: nft.Add, Family: nft.IPv4, Name: nfttest.Name, Chain: &nft.Chain{Name: "ours"}},
		{Verb: nft.Delete, Family: nft.IPv4, Name: nfttest.Name, Chain: &nft.Chain{Name: "missing"}},
	}))
}

// What happened between the last look and the beginning of the watch is a change.
func TestWatchReportsWhatItMissed(t *testing.T) {
	n := netns.ForTest(t)
	c := dial(t, n)
	load(t, c, nfttest.Name)
	commit(t, c, nfttest.Make(nfttest.Tables()))
	runNFT(t, n, "flush ruleset", "-f", "-")
	<-watch(t, n, c)
}

// Changes without end are reported a few times a second; events that find no room are a change.
func TestWatchJoinsBursts(t *testing.T) {
	n := netns.ForTest(t)
	c := dial(t, n)
	load(t, c, nfttest.Name)
	commit(t, c, nfttest.Make(nfttest.Tables()))
	reports := watch(t, n, c)
	foreign := dial(t, n)
	const changes = 500
	for range changes {
		commit(t, foreign, nfttest.Make(nfttest.Tables()))
	}
	if got := count(t, n, reports); got < 1 || got > changes/2 {
		t.Errorf("%d transactions in a row made %d reports; want a few", changes, got)
	}
}

func TestConcerns(t *testing.T) {
	table := func(name string) []byte {
		return message(nftType(0 /* NFT_MSG_NEWTABLE */), 1, 7, wire.AppendString(nil, 1 /* NFTA_TABLE_NAME */, name))
	}
	tests := []struct {
		name string
		in   []byte
		want bool
	}{
		{"OK ours", table("ours"), true},
		{"OK ours behind another", append(table("other"), table("ours")...), true},
		{"bad other", table("other"), false},
		{"bad longer name", table("ours2"), false},
		{"bad generation", newGen(1, 7), false},
		{"bad cut off", table("ours")[:18], false},
		{"bad empty", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := concerns(tt.in, "ours"); got != tt.want {
				t.Errorf("concerns(%x) = %t; want %t", tt.in, got, tt.want)
			}
		})
	}
}
