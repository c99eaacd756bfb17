package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/e2e/world"
)

// dnsDocs returns the manifests of a UDP Service with the endpoints given, of both families.
func dnsDocs(eps ...string) string {
	docs := nodeDoc + `---
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: default}
spec:
  type: NodePort
  clusterIPs: [172.30.0.53, "fd00:10:96::53"]
  clusterIP: 172.30.0.53
  ipFamilies: [IPv4, IPv6]
  ports:
  - {name: udp, port: 53, protocol: UDP, nodePort: 30053}
  - {name: tcp, port: 53, protocol: TCP, nodePort: 30053}
`
	for _, family := range []string{"IPv4", "IPv6"} {
		docs += fmt.Sprintf(`---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-%s, namespace: default, labels: {kubernetes.io/service-name: dns}}
addressType: %s
ports: [{name: udp, port: 5353, protocol: UDP}, {name: tcp, port: 5353, protocol: TCP}]
endpoints: [`, strings.ToLower(family), family)
		for _, a := range eps {
			if netip.MustParseAddr(a).Is4() == (family == "IPv4") {
				docs += fmt.Sprintf("{addresses: [%q], nodeName: node-2},", a)
			}
		}
		docs += "]\n"
	}
	return docs
}

// A steadyClient sends from one port, over and over, and remembers who answered.
type steadyClient struct {
	name string
	conn *net.UDPConn
	wg   sync.WaitGroup
	stop chan struct{}

	mu   sync.Mutex // protects all below
	last string     // the address that the last request arrived at
	when time.Time
}

// steady starts a client on a host. It sends every 10 ms and takes no notice of errors, as a client of UDP
// that is stuck does.
func steady(t *testing.T, h *world.Host, src, dst string) *steadyClient {
	t.Helper()
	c := &steadyClient{name: src + " -> " + dst, stop: make(chan struct{})}
	err := h.Do(func() (err error) {
		local := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(src))
		c.conn, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(dst)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.wg.Go(func() {
		for {
			select {
			case <-c.stop:
				return
			case <-time.After(10 * time.Millisecond):
				_, _ = c.conn.Write([]byte("?\n"))
			}
		}
	})
	c.wg.Go(func() {
		b := make([]byte, 1000)
		for {
			n, err := c.conn.Read(b)
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err == nil:
				words := strings.Split(strings.TrimSpace(string(b[:n])), "|")
				c.mu.Lock()
				c.last, c.when = words[1], time.Now()
				c.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		close(c.stop)
		_ = c.conn.Close()
		c.wg.Wait()
	})
	return c
}

// reaches returns where the last request arrived that was answered since a time; nowhere is "".
func (c *steadyClient) reaches(since time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.when.Before(since) {
		return ""
	}
	return c.last
}

// waitReach waits until each client reaches one of the addresses, counting what it heard since a time, and
// tells how long the slowest took.
func waitReach(t *testing.T, what string, began time.Time, clients []*steadyClient, want ...string) {
	t.Helper()
	// Long enough for a slow machine, and far less than an entry that is in use lives: for ever.
	deadline := time.Now().Add(10 * time.Second)
	for _, c := range clients {
		for {
			got := c.reaches(began)
			ok := false
			for _, w := range want {
				ok = ok || got == w
			}
			if ok {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s reaches %q after %v; want one of %q", what, c.name, got, time.Since(began), want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	t.Logf("%s: all clients are where they should be %v later", what, time.Since(began))
}

// entries returns the entries of conntrack that a filter finds, by their ids.
func (r *rig) entries(t *testing.T, filter ...string) []string {
	t.Helper()
	out, err := r.w.Node.Output(exec.Command("conntrack", append([]string{"-L", "-o", "id"}, filter...)...))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for line := range strings.Lines(out) {
		for _, w := range strings.Fields(line) {
			if strings.HasPrefix(w, "id=") {
				ids = append(ids, w)
			}
		}
	}
	return ids
}

// The endpoints of the tests, a and b, of both families.
const (
	endpointA, endpointA6 = "10.0.2.1", "fd00:10:2::1"
	endpointB, endpointB6 = "10.0.2.2", "fd00:10:2::2"
	arrivedA, arrivedA6   = "10.0.2.1:5353", "[fd00:10:2::1]:5353"
	arrivedB, arrivedB6   = "10.0.2.2:5353", "[fd00:10:2::2]:5353"
)

// startDNS starts a daemon that serves dnsDocs with endpoint a, and clients that never stop to send, by
// cluster IPs and node port.
func startDNS(t *testing.T) (*rig, []*steadyClient) {
	t.Helper()
	r := newRig(t, world.Config{})
	r.write(t, dnsDocs(endpointA, endpointA6))
	r.start(t, testNode())
	r.place(t, []scenario.Flow{
		flow(t, "pod 10.0.0.2 -> 172.30.0.53:53/udp => 10.0.2.1:5353"),
		flow(t, "pod fd00:10::2 -> [fd00:10:96::53]:53/udp => [fd00:10:2::1]:5353"),
		flow(t, "external 203.0.113.2 -> 192.168.0.2:30053/udp => 10.0.2.1:5353"),
		flow(t, "pod 10.0.0.2 -> 198.51.100.9:30053/udp => none"),
	}, nil, addrs(endpointA, endpointB, endpointA6, endpointB6))
	r.settle(t)
	return r, []*steadyClient{
		steady(t, r.w.Pod(netip.MustParseAddr("10.0.0.2")), "10.0.0.2:5300", "172.30.0.53:53"),
		steady(t, r.w.Pod(netip.MustParseAddr("fd00:10::2")), "[fd00:10::2]:5300", "[fd00:10:96::53]:53"),
		steady(t, r.w.Clients, "203.0.113.2:5300", "192.168.0.2:30053"),
	}
}

// TestStaleUDP takes the server from clients that never stop to send, in all ways that there are: they
// reach the new one, and entries of others stay.
func TestStaleUDP(t *testing.T) {
	r, clients := startDNS(t)
	change := func(docs string) time.Time {
		t.Helper()
		began := time.Now()
		r.write(t, docs)
		return began
	}
	a, b := dnsDocs(endpointA, endpointA6), dnsDocs(endpointB, endpointB6)
	inA, inB := []string{arrivedA, arrivedA6}, []string{arrivedB, arrivedB6}
	waitReach(t, "the first server", time.Now(), clients, inA...)

	// Entries of others: a flow to elsewhere with the number of the node port, and a TCP connection.
	steady(t, r.w.Pod(netip.MustParseAddr("10.0.0.2")), "10.0.0.2:5301", "198.51.100.9:30053")
	tcp := r.connect(t, "10.0.0.2", "172.30.0.53:53")
	defer tcp.Close()
	foreign := []string{"-p", "udp", "-d", "198.51.100.9"}
	established := []string{"-p", "tcp", "-d", "172.30.0.53"}
	for len(r.entries(t, foreign...)) == 0 {
		time.Sleep(time.Millisecond)
	}
	before := append(r.entries(t, foreign...), r.entries(t, established...)...)
	if len(before) != 2 {
		t.Fatalf("entries of others: %q; want 2", before)
	}

	waitReach(t, "replaced", change(b), clients, inB...)
	waitReach(t, "replaced again", change(a), clients, inA...)
	waitReach(t, "scaled up", change(dnsDocs(endpointA, endpointA6, endpointB, endpointB6)), clients, append(inA, inB...)...)
	waitReach(t, "scaled down", change(b), clients, inB...)

	change(dnsDocs())
	r.settle(t)
	r.waitSilent(t, "scaled to zero", clients)
	waitReach(t, "back from zero", change(a), clients, inA...)

	// While there is no Service, requests to its cluster IP go where nobody translates them.
	waitReach(t, "deleted", change(nodeDoc), clients[:2], "172.30.0.53:53", "[fd00:10:96::53]:53")
	waitReach(t, "deleted, the node itself", time.Now(), clients[2:], "192.168.0.2:30053")
	waitReach(t, "made again", change(b), clients, inB...)

	moved := strings.ReplaceAll(a, "port: 5353", "port: 8080")
	waitReach(t, "another target port", change(moved), clients, endpointA+":8080", "["+endpointA6+"]:8080")

	after := append(r.entries(t, foreign...), r.entries(t, established...)...)
	if strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("entries of others were %q and are %q; want the same", before, after)
	}
	if _, err := tcp.Write([]byte("?\n")); err != nil {
		t.Errorf("write to the established TCP connection: %v", err)
	}
}

// TestStaleUDPAfterRestart changes what the clients use while no daemon runs.
func TestStaleUDPAfterRestart(t *testing.T) {
	r, clients := startDNS(t)
	waitReach(t, "the first server", time.Now(), clients, arrivedA, arrivedA6)
	r.stop(t)
	r.write(t, dnsDocs(endpointB, endpointB6))
	began := time.Now()
	r.start(t, testNode())
	waitReach(t, "replaced while no daemon ran", began, clients, arrivedB, arrivedB6)
	r.stop(t)
	r.write(t, nodeDoc)
	began = time.Now()
	r.start(t, testNode())
	waitReach(t, "deleted while no daemon ran", began, clients, "172.30.0.53:53", "[fd00:10:96::53]:53", "192.168.0.2:30053")
	r.stop(t)
	r.nft(t, "flush", "ruleset")
	r.write(t, dnsDocs(endpointA, endpointA6))
	began = time.Now()
	r.start(t, testNode())
	waitReach(t, "made while no daemon ran", began, clients, arrivedA, arrivedA6)
}

// TestStaleUDPAfterFlush has packets pass while somebody else has removed the rules.
func TestStaleUDPAfterFlush(t *testing.T) {
	r, clients := startDNS(t)
	waitReach(t, "the first server", time.Now(), clients, arrivedA, arrivedA6)
	r.waitWatch(t)
	if err := syscall.Kill(r.d.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Connections are tracked only while a rule wants it.
	r.nft(t, "flush ruleset; table inet foreign { chain c { type filter hook prerouting priority 0; ct state new counter; }; }")
	if _, err := r.w.Node.Output(exec.Command("conntrack", "-F")); err != nil {
		t.Fatal(err)
	}
	waitReach(t, "flushed", time.Now(), clients, "172.30.0.53:53", "[fd00:10:96::53]:53", "192.168.0.2:30053")
	if err := syscall.Kill(r.d.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitReach(t, "mended", time.Now(), clients, arrivedA, arrivedA6)
}

// waitSilent waits until no client gets an answer.
func (r *rig) waitSilent(t *testing.T, what string, clients []*steadyClient) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for _, c := range clients {
		for c.reaches(time.Now().Add(-200*time.Millisecond)) != "" {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s still reaches %q", what, c.name, c.reaches(time.Time{}))
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// connect makes a TCP connection from an address of a pod and has its first answer.
func (r *rig) connect(t *testing.T, src, dst string) net.Conn {
	t.Helper()
	var c net.Conn
	err := r.w.Pod(netip.MustParseAddr(src)).Do(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(src)}, Timeout: 5 * time.Second}
		c, err = d.Dial("tcp", dst)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	return c
}
