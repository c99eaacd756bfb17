package e2e

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/world"
)

// foreignLog is what the daemon says when it hears of a foreign change.
const foreignLog = "somebody else changed our tables"

// services lists the map of front ends.
func (r *rig) services() (string, error) {
	return r.w.Node.Output(exec.Command("nft", "list", "map", "ip", "nftproxy", "services"))
}

// chains lists the ruleset without elements.
func (r *rig) chains(t *testing.T) string { return r.nft(t, "-t", "list", "ruleset") }

// heard returns how often the daemon has heard of foreign changes.
func (r *rig) heard() int { return strings.Count(r.d.Log(), foreignLog) }

// waitWatch waits until the daemon watches its tables: until it hears of a change made here.
func (r *rig) waitWatch(t *testing.T) {
	t.Helper()
	before := r.heard()
	for deadline := time.Now().Add(patience); r.heard() == before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the daemon does not hear of a foreign chain; log:\n%s", tail(r.d.Log(), 3000))
		}
		_, _ = r.w.Node.Output(exec.Command("nft", "add", "chain", "ip", "nftproxy", "foreign"))
	}
	time.Sleep(time.Second) // until what it heard is mended
}

// TestForeignChanges changes the tables of the daemon as others might: all is mended at once.
func TestForeignChanges(t *testing.T) {
	tests := []struct {
		name, script string
	}{
		{"flush ruleset", "flush ruleset"},
		{"delete a table", "delete table ip6 nftproxy"},
		{"delete an element", "delete element ip nftproxy services { 172.30.0.41 . tcp . 80 }"},
		{"another element in its place", "delete element ip nftproxy services { 172.30.0.41 . tcp . 80 }; add element ip nftproxy services { 172.30.0.41 . tcp . 80 : ae10:1 }"},
		{"an element more", "add element ip nftproxy services { 172.30.0.50 . tcp . 80 : ae10:1 }"},
		{"a rule more", "insert rule ip nftproxy services drop"},
		{"a chain more", "add chain ip nftproxy foreign { type filter hook input priority 0; policy drop; }"},
		{"a set more", "add set ip nftproxy foreign { type mark; }"},
		{"a flushed chain", "flush chain ip nftproxy services"},
	}
	r := startWeb(t)
	r.waitWatch(t)
	want, err := r.services()
	if err != nil {
		t.Fatal(err)
	}
	chains := r.chains(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(tt.script)
			if _, err := r.w.Node.Output(cmd); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			for deadline := began.Add(patience); ; time.Sleep(time.Millisecond) {
				got, err := r.services()
				if err == nil && sameLines(got, want) && sameLines(r.chains(t), chains) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("not mended after %v: %v\n%s\n%s", patience, err, got, tail(r.d.Log(), 3000))
				}
			}
			t.Logf("mended, as nft sees it, %v after nft had ended", time.Since(began))
			r.checkFlows(t, webFlows(t))
		})
	}
	r.checkConverged(t)
	r.checkListing(t)
}

// sameLines reports whether two listings have the same lines, in any order.
func sameLines(a, b string) bool {
	count := map[string]int{}
	for line := range strings.FieldsFuncSeq(a, func(c rune) bool { return c == '\n' || c == ',' }) {
		count[strings.TrimSpace(line)]++
	}
	for line := range strings.FieldsFuncSeq(b, func(c rune) bool { return c == '\n' || c == ',' }) {
		count[strings.TrimSpace(line)]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// TestNoForeignChange has everything happen that is no foreign change of our tables: the daemon does not look.
func TestNoForeignChange(t *testing.T) {
	r := startWeb(t)
	r.waitWatch(t)
	before := r.heard()
	const affinity = "type: NodePort\n  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 100}}"
	for range 3 { // the daemon's own transactions, and elements that packets make
		r.apply(t, webDocs)
		r.apply(t, strings.ReplaceAll(webDocs, "type: NodePort", affinity))
		client, port := netip.MustParseAddr("203.0.113.2"), netip.MustParseAddrPort("192.168.0.2:30080")
		if res, err := r.w.Clients.Ask("tcp", client, port, time.Second); err != nil || res.Outcome != world.Answered {
			t.Fatalf("ask %v = %v, %v; want an answer", port, res, err)
		}
	}
	if list := r.nft(t, "list", "map", "ip", "nftproxy", "affinity"); !strings.Contains(list, "203.0.113.") {
		t.Errorf("no client is remembered:\n%s", list)
	}
	for range 5 { // the tables of others
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader("add table ip foreign; add chain ip foreign c; add rule ip foreign c counter; delete table ip foreign")
		if _, err := r.w.Node.Output(cmd); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.heard() - before; got != 0 {
		t.Errorf("the daemon heard of %d foreign changes; want none; log:\n%s", got, tail(r.d.Log(), 3000))
	}
	r.waitWatch(t) // it does hear
}
