package e2e

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/e2e/world"
)

// longPort is where endpoints of the tests of IPVS serve.
const longPort = 9000

// podClient is a pod on the node, and outsideClient a client outside.
var podClient, outsideClient = netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("203.0.113.2")

// hasIPVS reports whether the kernel has IPVS, which is loaded if it has.
func hasIPVS() bool {
	_, err := netlink.GenlFamilyGet("IPVS")
	return err == nil
}

// needIPVS skips a test on a kernel without IPVS.
func needIPVS(t *testing.T) {
	t.Helper()
	switch {
	case hasIPVS():
	case inside:
		t.Fatal("the kernel of the machine has no ip_vs")
	default:
		t.Skip("the kernel has no ip_vs: `make test-vm` runs this test in a virtual machine")
	}
}

// A balanced is a Service with endpoints that are named by letters: a is 10.0.2.1 and fd00:10:2::1, the pod
// pod-a on node-2.
type balanced struct {
	name string
	// n tells the Service's addresses and node port apart.
	n int
	// annotations and spec are more fields, as they stand in a flow mapping of YAML.
	annotations, spec string
	endpoints         string
}

// addr returns the cluster IP and port.
func (b balanced) addr() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 30, 1, byte(b.n)}), 80)
}

// nodePort returns the node port of a node address.
func (b balanced) nodePort(node netip.Addr) netip.AddrPort {
	return netip.AddrPortFrom(node, uint16(30000+b.n))
}

// scheduled returns the Service with a scheduler.
func (b balanced) scheduled(name string) balanced {
	b.annotations = "nftproxy.io/scheduler: " + name
	return b
}

// with returns the Service with other endpoints.
func (b balanced) with(endpoints string) balanced {
	b.endpoints = endpoints
	return b
}

// docs returns the manifests.
func (b balanced) docs() string {
	docs := fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: default, annotations: {%[2]s}}
spec:
  type: NodePort
  clusterIP: 172.30.1.%[3]d
  clusterIPs: [172.30.1.%[3]d, "fd00:10:96::1:%[3]d"]
  ipFamilies: [IPv4, IPv6]
  ports:
  - {name: long, port: 80, protocol: TCP, nodePort: %[4]d}
  - {name: dns, port: 53, protocol: UDP, nodePort: %[4]d}
`, b.name, b.annotations, b.n, 30000+b.n)
	if b.spec != "" {
		docs += "  " + b.spec + "\n"
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		docs += fmt.Sprintf(`---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-%[2]s, namespace: default, labels: {kubernetes.io/service-name: %[1]s}}
addressType: %[3]s
ports: [{name: long, port: %[4]d, protocol: TCP}, {name: dns, port: 5353, protocol: UDP}]
endpoints:
`, b.name, strings.ToLower(family), family, longPort)
		for _, letter := range b.endpoints {
			docs += fmt.Sprintf("- {addresses: [%q], nodeName: node-2, targetRef: {kind: Pod, name: pod-%c}}\n",
				letterAddr(letter, family == "IPv4"), letter)
		}
		if b.endpoints == "" {
			docs = strings.TrimSuffix(docs, "endpoints:\n") + "endpoints: []\n"
		}
	}
	return docs
}

// letterAddr returns the address of the endpoint with a letter.
func letterAddr(letter rune, ipv4 bool) netip.Addr {
	n := byte(letter-'a') + 1
	if ipv4 {
		return netip.AddrFrom4([4]byte{10, 0, 2, n})
	}
	return netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x10, 0, 2, 15: n})
}

// letter returns the letter of an endpoint's address, ? for any other address.
func letter(a netip.Addr) byte {
	for l := 'a'; l <= 'z'; l++ {
		if a == letterAddr(l, true) || a == letterAddr(l, false) {
			return byte(l)
		}
	}
	return '?'
}

// docsOf returns the manifests of the node and of Services.
func docsOf(services ...balanced) string {
	docs := nodeDoc
	for _, s := range services {
		docs += s.docs()
	}
	return docs
}

// startBalanced starts a daemon that serves Services.
func startBalanced(t *testing.T, services ...balanced) *rig {
	t.Helper()
	r := newRig(t, world.Config{})
	r.write(t, docsOf(services...))
	r.cfg.RunFlags = []string{"--ipvs-tcpfin-timeout=5s"} // which is two minutes otherwise
	r.start(t, testNode())
	flows := []scenario.Flow{
		flow(t, "pod 10.0.0.2 -> 172.30.1.1:53/udp => drop"), flow(t, "pod fd00:10::2 -> [fd00:10:96::1:1]:53/udp => drop"),
		flow(t, "external 203.0.113.2 -> 192.168.0.2:80/tcp => drop"), flow(t, "external 2600::1 -> [2001:db8::1]:5353/tcp => drop"),
	}
	for i := range hashClients {
		f := flows[2]
		f.Src = hashClient(i)
		flows = append(flows, f)
	}
	var remote []netip.Addr
	for l := 'a'; l <= 'e'; l++ {
		remote = append(remote, letterAddr(l, true), letterAddr(l, false))
	}
	r.place(t, flows, nil, remote)
	if err := r.w.Remote.ServeLong(longPort); err != nil {
		t.Fatal(err)
	}
	r.settle(t)
	return r
}

// A caller makes connections from one address to one front end.
type caller struct {
	host *world.Host
	src  netip.Addr
	dst  netip.AddrPort
	from *ports // where it takes its ports from
}

// fromPod returns a caller on the pod of the node.
func (r *rig) fromPod(dst netip.AddrPort) *caller {
	return &caller{host: r.w.Pod(podClient), src: podClient, dst: dst, from: &r.ports}
}

// fromOutside returns a caller outside.
func (r *rig) fromOutside(dst netip.AddrPort) *caller {
	return &caller{host: r.w.Clients, src: outsideClient, dst: dst, from: &r.ports}
}

// short makes connections that end at once and returns the letters of the endpoints.
func (c *caller) short(t *testing.T, n int) string {
	t.Helper()
	var letters []byte
	err := c.host.Do(func() error {
		for range n {
			res, err := world.Ask("tcp", c.from.next(c.src), c.dst, slow(3*time.Second))
			switch {
			case err != nil:
				return err
			case res.Outcome != world.Answered:
				return fmt.Errorf("%s: %s", c.dst, res)
			}
			letters = append(letters, letter(res.Answer.Dst.Addr()))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("from %s: %v", c.src, err)
	}
	return string(letters)
}

// long makes connections that last and returns the letters of the endpoints as well. What is open at the end
// of the test is aborted.
func (c *caller) long(t *testing.T, n int) (letters string, conns []*world.Conn) {
	t.Helper()
	for range n {
		conn, err := c.host.Connect(c.from.next(c.src), c.dst, slow(3*time.Second))
		if err != nil {
			t.Fatalf("from %s: %v", c.src, err)
		}
		t.Cleanup(func() { _ = conn.Abort() })
		conns = append(conns, conn)
		letters += string(letter(conn.Answer.Dst.Addr()))
	}
	return letters, conns
}

// checkAlive checks that connections live.
func checkAlive(t *testing.T, when string, conns []*world.Conn) {
	t.Helper()
	for _, c := range conns {
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
}

// A destination is a line of "ipvsadm -Ln".
type destination struct{ weight, active, inactive int }

// A virtual is a virtual server as "ipvsadm -Ln" lists it, with the letters of its destinations.
type virtual struct {
	scheduler string
	dests     map[byte]destination
}

// virtual returns the virtual server at an address, nil if there is none.
func (r *rig) virtual(t *testing.T, protocol string, at netip.AddrPort) *virtual {
	t.Helper()
	out, err := r.w.Node.Output(exec.Command("ipvsadm", "-Ln"))
	if err != nil {
		t.Fatal(err)
	}
	var v *virtual
	here := false
	number := func(word string) int {
		n, err := strconv.Atoi(word)
		if err != nil {
			t.Fatalf("ipvsadm -Ln: %v in\n%s", err, out)
		}
		return n
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 3 && (f[0] == "TCP" || f[0] == "UDP" || f[0] == "SCTP"):
			if here = f[0] == protocol && f[1] == at.String(); here {
				v = &virtual{scheduler: f[2], dests: map[byte]destination{}}
			}
		case here && len(f) == 6 && f[0] == "->":
			addr, err := netip.ParseAddrPort(f[1])
			if err != nil {
				t.Fatalf("ipvsadm -Ln: %v in\n%s", err, out)
			}
			v.dests[letter(addr.Addr())] = destination{weight: number(f[3]), active: number(f[4]), inactive: number(f[5])}
		}
	}
	return v
}

// waitVirtual polls the virtual server at an address until it is as wanted.
func (r *rig) waitVirtual(t *testing.T, what string, at netip.AddrPort, want func(*virtual) bool) {
	t.Helper()
	var v *virtual
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if v = r.virtual(t, "TCP", at); want(v) {
			return
		}
	}
	t.Fatalf("waited for %s; ipvsadm lists %+v at %s; the daemon's log:\n%s", what, v, at, tail(r.d.Log(), 3000))
}
