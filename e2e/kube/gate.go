package kube

import (
	"io"
	"net"
	"sync"

	"github.com/nftproxy/nftproxy/e2e/netns"
)

// A Gate is the way of a node to the API server: 127.0.0.1:6443 on the node.
type Gate struct {
	host, cluster *netns.NetNS
	mu            sync.Mutex
	listener      net.Listener          // nil while the gate is shut
	conns         map[net.Conn]struct{} // open on both sides; guarded by mu
}

// OpenGate opens a way from a node to the API server.
func OpenGate(host *netns.NetNS, c *Cluster) (*Gate, error) {
	g := &Gate{host: host, cluster: c.ns, conns: map[net.Conn]struct{}{}}
	return g, g.Open()
}

// Open opens the gate after Shut.
func (g *Gate) Open() error {
	return g.host.Do(func() error {
		l, err := net.Listen("tcp", apiAddress)
		if err != nil {
			return err
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.listener = l
		go g.accept(l)
		return nil
	})
}

// Shut ends all connections and takes no new ones.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		_ = g.listener.Close()
		g.listener = nil
	}
	g.cut()
}

// Cut ends all connections in the middle of whatever they carry.
func (g *Gate) Cut() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cut()
}

// cut is Cut with mu held. It returns how many ends of connections it closed.
func (g *Gate) cut() int {
	for c := range g.conns {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // a reset, as when a middlebox forgets the connection
		}
		_ = c.Close()
	}
	return len(g.conns)
}

// accept takes connections until the listener is closed.
func (g *Gate) accept(l net.Listener) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		go g.carry(near)
	}
}

// carry carries bytes between a connection and the API server until one of them ends.
func (g *Gate) carry(near net.Conn) {
	defer near.Close()
	far, err := dialIn(g.cluster)
	if err != nil {
		return
	}
	defer far.Close()
	g.mu.Lock()
	shut := g.listener == nil
	g.conns[near], g.conns[far] = struct{}{}, struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.conns, near)
		delete(g.conns, far)
	}()
	if shut {
		return
	}
	done := make(chan struct{}, 2)
	carry := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		done <- struct{}{}
	}
	go carry(near, far)
	go carry(far, near)
	<-done
}

// dialIn connects to the API server from within a namespace.
func dialIn(ns *netns.NetNS) (conn net.Conn, err error) {
	err = ns.Do(func() error {
		conn, err = net.Dial("tcp", apiAddress)
		return err
	})
	return conn, err
}
