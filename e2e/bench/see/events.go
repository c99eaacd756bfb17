package see

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/bench/apiserver"
	"github.com/nftproxy/nftproxy/e2e/netns"
)

// eventQueue is how many bytes of events the kernel may keep for us. It is large, so that none is lost
// while the measured program has the CPUs.
const eventQueue = 512 << 20

// Events hears of the transactions of nf_tables in a namespace: when the kernel, after the commit,
// notified that an address has something to do with it. Being there makes transactions slower: open it
// after the first load.
type Events struct {
	conn *netlink.Conn
	done chan struct{}
	// transactions counts those since it was opened.
	transactions atomic.Int64

	mu sync.Mutex // guards what follows
	// wanted holds the addresses that are looked for, seen those that were found, with the time.
	wanted map[netip.Addr]struct{}
	seen   map[netip.Addr]int64
	news   chan struct{} // closed, and made anew, when something is seen or goes wrong
	err    error
}

// Listen hears of the transactions of a namespace.
func Listen(ns *netns.NetNS) (*Events, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	e := &Events{conn: c, done: make(chan struct{}), wanted: map[netip.Addr]struct{}{}, seen: map[netip.Addr]int64{}, news: make(chan struct{})}
	raw, err := c.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, eventQueue) }), err)
	}
	if err == nil {
		err = c.JoinGroup(unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen to nf_tables: %w", err), c.Close())
	}
	go e.run()
	return e, nil
}

// Close ends the listening.
func (e *Events) Close() error {
	_ = e.conn.SetReadDeadline(time.Unix(1, 0))
	<-e.done
	return e.conn.Close()
}

// Transactions returns how many transactions there were.
func (e *Events) Transactions() int64 { return e.transactions.Load() }

// run reads events until it is closed or some were lost.
func (e *Events) run() {
	defer close(e.done)
	for {
		list, err := e.conn.Receive()
		now := apiserver.Now()
		e.mu.Lock()
		if err != nil {
			e.err = fmt.Errorf("events of nf_tables were lost: %w", err)
			close(e.news)
			e.news = make(chan struct{})
			e.mu.Unlock()
			return
		}
		for i := range list {
			e.look(&list[i], now)
		}
		e.mu.Unlock()
	}
}

// look notes the wanted addresses that a message mentions. The caller holds mu.
func (e *Events) look(m *netlink.Message, now int64) {
	if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
		e.transactions.Add(1)
		return
	}
	found := false
	// Values begin at multiples of four, and so do the addresses in them, which come first in keys and data.
	for b := m.Data; len(b) >= 4 && len(e.wanted) > 0; b = b[4:] {
		a := netip.AddrFrom4([4]byte(b))
		if _, ok := e.wanted[a]; ok {
			delete(e.wanted, a)
			e.seen[a], found = now, true
		}
	}
	if found {
		close(e.news)
		e.news = make(chan struct{})
	}
}

// A Target is what a change makes the kernel hold, or not any more: an endpoint of a Service or, if there
// is no endpoint, the Service itself.
type Target struct{ Service, Endpoint netip.Addr }

// address returns the address by which a transaction is known to be about the target.
func (t Target) address() netip.Addr {
	if t.Endpoint.IsValid() {
		return t.Endpoint
	}
	return t.Service
}

// Expect has targets looked for from now on.
func (e *Events) Expect(targets ...Target) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range targets {
		delete(e.seen, t.address())
		e.wanted[t.address()] = struct{}{}
	}
}

// Forget gives up what was expected and not seen.
func (e *Events) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.wanted)
	clear(e.seen)
}

// Wait waits until expected targets were seen, and returns when, by the clock of [apiserver.Now].
func (e *Events) Wait(ctx context.Context, targets ...Target) ([]int64, error) {
	at := make([]int64, len(targets))
	for i, t := range targets {
		for at[i] == 0 {
			var news <-chan struct{}
			var err error
			if at[i], news, err = e.take(t.address()); err != nil {
				return nil, err
			}
			if at[i] != 0 {
				break
			}
			select {
			case <-news:
			case <-ctx.Done():
				return nil, fmt.Errorf("nothing of %s in the kernel: %w", t.address(), ctx.Err())
			}
		}
	}
	return at, nil
}

// take returns when an address was seen, and forgets it, or what to wait for.
func (e *Events) take(a netip.Addr) (at int64, news <-chan struct{}, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	at = e.seen[a]
	delete(e.seen, a)
	if at == 0 {
		err = e.err
	}
	return at, e.news, err
}
