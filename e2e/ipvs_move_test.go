package e2e

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/world"
)

// TestMove moves a Service from nftables to IPVS and on while clients connect without pause: none fails, and
// connections that last do.
func TestMove(t *testing.T) {
	needIPVS(t)
	s := balanced{name: "web", n: 30, endpoints: "ab"}
	moves := []string{"random", "lc", "random", "rr", "wlc", "sh", "random"}
	r := startBalanced(t, s.scheduled(moves[0]))
	callers := []*caller{
		r.fromPod(s.addr()), r.fromOutside(s.nodePort(r.nodeAddr(true))), r.fromOutside(s.addr()),
		{host: r.w.Node, src: r.nodeAddr(true), dst: s.addr(), from: &r.ports},
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	counts := make([]atomic.Int64, len(callers))
	var conns []*world.Conn
	for i, c := range callers {
		_, long := c.long(t, 2)
		conns = append(conns, long...)
		wg.Go(func() {
			if err := c.host.Do(func() error { return c.connect(stop, &counts[i]) }); err != nil {
				t.Errorf("%s -> %s: connection %d: %v", c.src, c.dst, counts[i].Load()+1, err)
			}
		})
	}
	for _, scheduler := range moves[1:] {
		r.apply(t, docsOf(s.scheduled(scheduler)))
		v := r.virtual(t, "TCP", s.addr())
		switch {
		case scheduler == "random": // the virtual server lives on with what it has
		case v == nil || v.scheduler != scheduler:
			t.Errorf("ipvsadm lists %+v; want scheduler %s", v, scheduler)
		}
		checkAlive(t, scheduler, conns)
		for _, c := range callers {
			_, long := c.long(t, 1)
			conns = append(conns, long...)
		}
	}
	close(stop)
	wg.Wait()
	total := int64(0)
	for i := range counts {
		total += counts[i].Load()
		if counts[i].Load() == 0 {
			t.Errorf("%s -> %s: no connection", callers[i].src, callers[i].dst)
		}
	}
	checkAlive(t, "the end", conns)
	t.Logf("%d moves, %d connections, %d that lasted", len(moves)-1, total, len(conns))
}

// connect connects until stop is closed, and counts. It ends with the first connection that is not
// answered.
func (c *caller) connect(stop <-chan struct{}, count *atomic.Int64) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		// A SYN that is lost is sent again after a second: that counts as a failure.
		began := time.Now()
		res, err := world.Ask("tcp", c.from.next(c.src), c.dst, 900*time.Millisecond)
		switch {
		case errors.Is(err, unix.EADDRINUSE):
		case err != nil:
			return err
		case res.Outcome != world.Answered || letter(res.Answer.Dst.Addr()) == '?':
			return fmt.Errorf("%s after %v", res, time.Since(began))
		default:
			count.Add(1)
		}
	}
}
