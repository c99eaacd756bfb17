package e2e

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/world"
)

// weighted is what TestSchedulers gives to the endpoints a and b.
const weighted = `, nftproxy.io/weights: "pod/pod-a=3,*=1"`

// checkShares checks how often each letter is in letters.
func checkShares(t *testing.T, what, letters, want string) {
	t.Helper()
	count := func(s string) map[rune]int {
		counts := map[rune]int{}
		for _, l := range s {
			counts[l]++
		}
		return counts
	}
	t.Logf("%s: %s", what, letters)
	if !maps.Equal(count(letters), count(want)) {
		t.Errorf("%s: connections went to %s; want shares as in %s", what, letters, want)
	}
}

// TestSchedulers looks at where each scheduler sends connections that end at once and connections that last.
func TestSchedulers(t *testing.T) {
	needIPVS(t)
	service := func(n int, scheduler, more, endpoints string) balanced {
		return balanced{name: scheduler, n: n, annotations: "nftproxy.io/scheduler: " + scheduler + more, endpoints: endpoints}
	}
	rr, wrr := service(1, "rr", "", "abc"), service(2, "wrr", weighted, "ab")
	lc, wlc := service(3, "lc", "", "a"), service(4, "wlc", weighted, "ab")
	sed, nq := service(5, "sed", weighted, "ab"), service(6, "nq", weighted, "ab")
	router := balanced{name: "router", n: 7, annotations: "kube-router.io/service.scheduler: wrr" + weighted, endpoints: "ab"}
	chance := service(8, "random", "", "ab")
	all := []balanced{rr, wrr, lc, wlc, sed, nq, router, chance}
	r := startBalanced(t, all...)
	for _, s := range all {
		want := s.name
		switch v := r.virtual(t, "TCP", s.addr()); {
		case s.name == "random":
			if v != nil {
				t.Errorf("ipvsadm lists %+v for random; want nothing", v)
			}
			continue
		case s.name == "router":
			want = "wrr"
			fallthrough
		default:
			if v == nil || v.scheduler != want || len(v.dests) != len(s.endpoints) {
				t.Errorf("ipvsadm lists %+v for %s", v, s.name)
			}
		}
	}

	checkShares(t, "rr", r.fromPod(rr.addr()).short(t, 30), strings.Repeat("abc", 10))
	checkShares(t, "wrr", r.fromPod(wrr.addr()).short(t, 40), strings.Repeat("aaab", 10))
	checkShares(t, "wrr by kube-router's annotation", r.fromOutside(router.nodePort(r.nodeAddr(true))).short(t, 40), strings.Repeat("aaab", 10))

	// The active connections of each in proportion to its weight.
	letters, _ := r.fromPod(wlc.addr()).long(t, 8)
	checkShares(t, "wlc", letters, "aaaaaabb")
	// Which would be answered first: a, which is three times as fast, gets two before b gets one.
	letters, _ = r.fromPod(sed.addr()).long(t, 2)
	checkShares(t, "sed, two", letters, "aa")
	letters, _ = r.fromPod(sed.addr()).long(t, 2)
	checkShares(t, "sed, two more", letters, "ab")
	// As sed, but nobody waits as long as one is idle.
	letters, _ = r.fromPod(nq.addr()).long(t, 2)
	checkShares(t, "nq, two", letters, "ab")
	letters, _ = r.fromPod(nq.addr()).long(t, 2)
	checkShares(t, "nq, two more", letters, "aa")

	// One that is loaded with long connections gets no more while another is idle.
	c := r.fromPod(lc.addr())
	letters, conns := c.long(t, 5)
	checkShares(t, "lc, one endpoint", letters, "aaaaa")
	all[2] = lc.with("ab")
	r.apply(t, docsOf(all...))
	letters, _ = c.long(t, 4)
	checkShares(t, "lc, another one", letters, "bbbb")
	letters, _ = c.long(t, 3)
	checkShares(t, "lc, until they are even", letters[:1], "b")
	checkAlive(t, "the first connections of lc", conns)
	r.checkListing(t)
	r.checkConverged(t)
}

// hashClients is how many clients TestHashSchedulers has.
const hashClients = 200

// hashClient returns the address of a client.
func hashClient(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}) }

// askAll has every client send a datagram and returns the letters of the endpoints, one for each client.
func (r *rig) askAll(t *testing.T, dst netip.AddrPort) string {
	t.Helper()
	var letters []byte
	c := caller{host: r.w.Clients, dst: dst, from: &r.ports}
	err := c.host.Do(func() error {
		for i := range hashClients {
			c.src = hashClient(i)
			res, err := world.Ask("udp", c.from.next(c.src), dst, slow(3*time.Second))
			if err != nil {
				return err
			}
			l := byte('!')
			if res.Outcome == world.Answered {
				l = letter(res.Answer.Dst.Addr())
			}
			letters = append(letters, l)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(letters)
}

// TestHashSchedulers looks at whether clients keep their endpoints, and at how many of those whose endpoint
// stays move when another leaves.
func TestHashSchedulers(t *testing.T) {
	needIPVS(t)
	const endpoints = "abcde"
	tests := []struct {
		scheduler string
		// used is how many endpoints the clients use.
		used int
		// few says that few move: at most one in twenty.
		few bool
	}{
		{"sh", len(endpoints), false},
		{"mh", len(endpoints), true},
		{"dh", 1, false}, // by the destination, and all have the same
	}
	for i, tt := range tests {
		t.Run(tt.scheduler, func(t *testing.T) {
			s := balanced{name: tt.scheduler, n: 10 + i, endpoints: endpoints}.scheduled(tt.scheduler)
			r := startBalanced(t, s)
			port := s.nodePort(r.nodeAddr(true))
			before := r.askAll(t, port)
			if again := r.askAll(t, port); again != before {
				t.Errorf("clients went to\n%s and then to\n%s; want the same", before, again)
			}
			used := 0
			for _, l := range endpoints {
				used += min(1, strings.Count(before, string(l)))
			}
			if used != tt.used {
				t.Errorf("clients went to %s: %d endpoints; want %d", before, used, tt.used)
			}
			leaves := before[:1]
			r.apply(t, docsOf(s.with(strings.ReplaceAll(endpoints, leaves, ""))))
			v := r.virtual(t, "UDP", netip.AddrPortFrom(s.addr().Addr(), 53))
			if _, there := v.dests[leaves[0]]; there || len(v.dests) != len(endpoints)-1 {
				t.Errorf("after %s left ipvsadm lists %+v", leaves, v)
			}
			after := r.askAll(t, port)
			moved, had := 0, strings.Count(before, leaves)
			for i := range after {
				if before[i] != leaves[0] && before[i] != after[i] {
					moved++
				}
			}
			t.Logf("%d clients: %d had the endpoint that left; of the others %d moved", len(before), had, moved)
			if strings.Contains(after, leaves) || strings.ContainsAny(after, "!?") {
				t.Errorf("after %s left clients go to %s", leaves, after)
			}
			if most := hashClients / 20; tt.few && moved > most {
				t.Errorf("%d clients moved; want at most %d", moved, most)
			}
		})
	}
}
