package e2e

import (
	"net/netip"
	"testing"
	"time"
)

// TestRemoved removes an endpoint that holds long connections: they go on, nothing new goes there, and when
// they have ended the endpoint leaves IPVS, whatever becomes of the daemon meanwhile.
func TestRemoved(t *testing.T) {
	needIPVS(t)
	s := balanced{name: "web", n: 20, endpoints: "ab"}.scheduled("rr")
	r := startBalanced(t, s)
	inner, outer := r.fromPod(s.addr()), r.fromOutside(s.nodePort(r.nodeAddr(true)))
	letters, innerConns := inner.long(t, 4)
	more, outerConns := outer.long(t, 4)
	checkShares(t, "before", letters+more, "aaaabbbb")
	conns := append(innerConns, outerConns...)

	r.apply(t, docsOf(s.with("b")))
	check := func(when string) {
		t.Helper()
		checkAlive(t, when, conns)
		checkShares(t, when, inner.short(t, 6)+outer.short(t, 6), "bbbbbbbbbbbb")
		v := r.virtual(t, "TCP", s.addr())
		if v == nil || v.dests['a'].weight != 0 || v.dests['a'].active != 4 || v.dests['b'].weight == 0 {
			t.Errorf("%s: ipvsadm lists %+v; want a with weight 0 and 4 active connections", when, v)
		}
	}
	check("after the endpoint left")
	r.stop(t)
	check("without the daemon")
	r.start(t, testNode())
	r.waitStatus(t, "the first sync", func(s status) bool { return s.Healthy && s.Syncs > 0 })
	check("after a restart")
	for _, c := range innerConns {
		if err := c.Abort(); err != nil {
			t.Error(err)
		}
	}
	// What a client sends to a node port conntrack leads to the endpoint past IPVS, which hears of the end from
	// the server alone, and of a reset not at all.
	for _, c := range outerConns {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	r.waitVirtual(t, "the endpoint to leave", s.addr(), func(v *virtual) bool {
		_, there := v.dests['a']
		return !there
	})
	checkShares(t, "when all is over", inner.short(t, 6), "bbbbbb")
	r.checkConverged(t)

	// It comes back while it drains: it gets connections again.
	_, conns = inner.long(t, 2)
	r.apply(t, docsOf(s.with("a")))
	checkShares(t, "another endpoint", inner.short(t, 4), "aaaa")
	r.apply(t, docsOf(s.with("ab")))
	checkShares(t, "both again", inner.short(t, 4), "aabb")
	checkAlive(t, "both again", conns)
}

// TestPortUsedAgain has clients whose connections by a node port were reset, which IPVS takes for open, use their
// ports again when their endpoint has gone.
func TestPortUsedAgain(t *testing.T) {
	needIPVS(t)
	s := balanced{name: "web", n: 24, endpoints: "ab"}.scheduled("rr")
	r := startBalanced(t, s)
	dst := s.nodePort(r.nodeAddr(true))
	connect := func(src netip.AddrPort) (byte, error) {
		c, err := r.w.Clients.Connect(src, dst, slow(3*time.Second))
		if err != nil {
			return 0, err
		}
		return letter(c.Answer.Dst.Addr()), c.Abort()
	}
	var gone []netip.AddrPort // the sources of connections to a
	for range 6 {
		src := r.ports.next(outsideClient)
		switch l, err := connect(src); {
		case err != nil:
			t.Fatal(err)
		case l == 'a':
			gone = append(gone, src)
		}
	}
	if len(gone) != 3 {
		t.Errorf("%d of 6 connections reached a; want 3", len(gone))
	}
	r.apply(t, docsOf(s.with("b")))
	for _, src := range gone {
		if l, err := connect(src); err != nil || l != 'b' {
			t.Errorf("from %s again: reached %c, %v; want b", src, l, err)
		}
	}
}

// TestServiceRemoved removes a Service while it has long connections: they go on, and a new one is refused.
func TestServiceRemoved(t *testing.T) {
	needIPVS(t)
	s, other := balanced{name: "web", n: 21, endpoints: "ab"}.scheduled("lc"), balanced{name: "other", n: 22, endpoints: "a"}
	r := startBalanced(t, s, other)
	_, conns := r.fromPod(s.addr()).long(t, 2)
	r.apply(t, docsOf(other))
	checkAlive(t, "after the Service left", conns)
	if err := r.checkFlow(flow(t, "pod 10.0.0.2 -> 172.30.1.21:80/tcp => reject")); err != nil {
		t.Error(err)
	}
	for _, c := range conns {
		if err := c.Abort(); err != nil {
			t.Error(err)
		}
	}
	r.waitVirtual(t, "the virtual server to leave", s.addr(), func(v *virtual) bool { return v == nil })
}

// TestDrainingUDP removes an endpoint of UDP: its clients are elsewhere at once, as nothing tells when a flow
// of UDP has ended.
func TestDrainingUDP(t *testing.T) {
	needIPVS(t)
	s := balanced{name: "dns", n: 23, endpoints: "a"}.scheduled("rr")
	r := startBalanced(t, s)
	clients := []*steadyClient{
		steady(t, r.w.Pod(podClient), "10.0.0.2:5000", netip.AddrPortFrom(s.addr().Addr(), 53).String()),
		steady(t, r.w.Clients, "203.0.113.2:5000", s.nodePort(r.nodeAddr(true)).String()),
		steady(t, r.w.Pod(netip.MustParseAddr("fd00:10::2")), "[fd00:10::2]:5000", "[fd00:10:96::1:23]:53"),
	}
	waitReach(t, "one endpoint", time.Now(), clients, "10.0.2.1:5353", "[fd00:10:2::1]:5353")
	r.apply(t, docsOf(s.with("b")))
	waitReach(t, "another endpoint", time.Now(), clients, "10.0.2.2:5353", "[fd00:10:2::2]:5353")
	r.apply(t, docsOf(s.with("")))
	r.waitSilent(t, "no endpoint", clients)
	r.apply(t, docsOf(s.with("a")))
	waitReach(t, "an endpoint again", time.Now(), clients, "10.0.2.1:5353", "[fd00:10:2::1]:5353")
	r.apply(t, docsOf(s.with("a").scheduled("random")))
	r.apply(t, docsOf(s.with("b").scheduled("random")))
	waitReach(t, "served by nftables", time.Now(), clients, "10.0.2.2:5353", "[fd00:10:2::2]:5353")
}
