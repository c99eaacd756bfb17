package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/bench/apiserver"
	"github.com/nftproxy/nftproxy/e2e/bench/see"
	"github.com/nftproxy/nftproxy/e2e/netns"
)

const (
	// clients is how many addresses clients come from; manyClients those of a busy Service.
	clients, manyClients = 250, 30_000
	// connectPatience is how long a connection may take.
	connectPatience = time.Second
	// pingPause is the time between two connections of the client that watches a restart: next to
	// nothing, but the CPUs are for the program.
	pingPause = time.Millisecond
)

// connect makes a TCP connection and breaks it off, so that nothing is left of it. It is to be called in
// the namespace of the client.
func connect(from netip.Addr, to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The port is chosen by connect, which knows where to.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return err
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return connected(fd)
}

// connected waits until a connection has come about.
func connected(fd int) error {
	for deadline := time.Now().Add(connectPatience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(time.Until(deadline).Milliseconds())+1)
		switch {
		case errors.Is(err, unix.EINTR) && time.Now().Before(deadline):
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || code == 0 {
			return err
		}
		return unix.Errno(code)
	}
}

// serve takes connections to the target port in a namespace and closes them, until the returned function
// is called.
func serve(ns *netns.NetNS) (stop func(), err error) {
	fd := -1
	if err := ns.Do(func() error {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: apiserver.TargetPort}); err != nil {
			return err
		}
		return unix.Listen(fd, 4096)
	}); err != nil {
		return nil, fmt.Errorf("serve in %s: %w", ns, err)
	}
	var servers sync.WaitGroup
	for range 2 {
		servers.Go(func() {
			for {
				c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
				switch {
				case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
				case err != nil:
					return
				default:
					_ = unix.Close(c)
				}
			}
		})
	}
	return func() {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // ends Accept
		servers.Wait()
		_ = unix.Close(fd)
	}, nil
}

// A pinger is a client that connects to a Service again and again.
type pinger struct {
	end  chan struct{}
	once sync.Once
	done chan struct{}
	// asked and the rest are valid after stop.
	asked, failed int
	slowest       time.Duration
	err           error
}

// startPinger starts a client of a node.
func startPinger(n *node) *pinger {
	p := &pinger{end: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = n.client.Do(func() error {
			p.run()
			return nil
		})
	}()
	return p
}

// run connects until it is stopped.
func (p *pinger) run() {
	to := frontEnd(netip.MustParseAddr(plainIP))
	for {
		start := time.Now()
		if err := connect(apiserver.Address(firstClient, p.asked%clients), to); err != nil {
			p.failed++
		}
		p.asked++
		p.slowest = max(p.slowest, time.Since(start))
		select {
		case <-p.end:
			return
		case <-time.After(pingPause):
		}
	}
}

// stop ends the client.
func (p *pinger) stop() {
	p.once.Do(func() { close(p.end) })
	<-p.done
}

// A way is a way to endpoints: from a client of a node to addresses in turn.
type way struct {
	node *node
	to   []netip.AddrPort
	// rates are the connections in a second, of each round, knockRates the first packets of connections, manyRates
	// those from many addresses.
	rates, knockRates, manyRates []float64
}

// ways returns the three ways of a node: straight, through a Service, and through one with affinity.
func ways(n *node) [3]*way {
	straight := &way{node: n}
	for i := range plainEndpoints {
		straight.to = append(straight.to, netip.AddrPortFrom(apiserver.Address(firstPod, i), apiserver.TargetPort))
	}
	return [3]*way{
		straight,
		{node: n, to: []netip.AddrPort{frontEnd(netip.MustParseAddr(plainIP))}},
		{node: n, to: []netip.AddrPort{frontEnd(netip.MustParseAddr(stickyIP))}},
	}
}

// round connects for a time, with two clients at once, and notes the rate. It returns how many connections
// failed, which do not count.
func (w *way) round(long time.Duration) (lost int64, err error) {
	if err := see.FlushConntrack(w.node.host); err != nil {
		return 0, err
	}
	var made, failed atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, 2)
	start := time.Now()
	for g := range errs {
		group.Go(func() {
			errs[g] = w.node.client.Do(func() error {
				for i := g; time.Since(start) < long; i += len(errs) {
					if connect(apiserver.Address(firstClient, i%clients), w.to[i%len(w.to)]) != nil {
						failed.Add(1)
						continue
					}
					made.Add(1)
				}
				return nil
			})
		})
	}
	group.Wait()
	w.rates = append(w.rates, float64(made.Load())/time.Since(start).Seconds())
	if made.Load() == 0 {
		errs = append(errs, fmt.Errorf("none of %d connections to %s came about", failed.Load(), w.to[0]))
	}
	return failed.Load(), errors.Join(errs...)
}

// connections measures new connections on nodes with rules in place. The nodes take turns, so that what
// else the machine does strikes all.
func (b *bench) connections(ctx context.Context, nodes []*node, results []*Result) error {
	var all [][3]*way
	for _, n := range nodes {
		all = append(all, ways(n))
	}
	for i := range b.rounds {
		b.say("new connections, round %d of %d", i+1, b.rounds)
		for k := range len(ways(nil)) {
			for _, w := range all {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				lost, err := w[k].round(b.roundTime)
				if err != nil {
					return err
				}
				if lost > 0 {
					b.say("%d connections to %s failed", lost, w[k].to[0])
				}
				few, err := w[k].knocks(b.knocks, clients)
				if err != nil {
					return err
				}
				many, err := w[k].knocks(b.knocks, manyClients)
				if err != nil {
					return err
				}
				w[k].knockRates, w[k].manyRates = append(w[k].knockRates, few), append(w[k].manyRates, many)
			}
		}
	}
	for i, w := range all {
		r := results[i]
		r.Plain, r.Sticky = rate(w[0].rates, w[1].rates), rate(w[0].rates, w[2].rates)
		r.PlainKnocks, r.StickyKnocks = rate(w[0].knockRates, w[1].knockRates), rate(w[0].knockRates, w[2].knockRates)
		r.ManyKnocks = rate(w[0].manyRates, w[2].manyRates)
		b.say("%s: new connections in a second: %.0f straight, %.0f through a Service, %.0f with affinity; first packets %.0f, %.0f, %.0f, the last from many addresses %.0f",
			r.Program, r.Plain.Straight, r.Plain.Through, r.Sticky.Through, r.PlainKnocks.Straight, r.PlainKnocks.Through, r.StickyKnocks.Through, r.ManyKnocks.Through)
	}
	return nil
}

// rate returns the middle of rounds and of their ratios.
func rate(straight, through []float64) Rate {
	ratios := make([]float64, len(straight))
	for i := range ratios {
		ratios[i] = through[i] / straight[i]
	}
	return Rate{Straight: median(straight), Through: median(through), Ratio: median(ratios)}
}
