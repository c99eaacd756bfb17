package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/e2e/scenario"
)

// parseFlows returns flows of lines of a scenario.
func parseFlows(t *testing.T, lines ...string) []scenario.Flow {
	t.Helper()
	var flows []scenario.Flow
	for _, l := range lines {
		flows = append(flows, flow(t, l))
	}
	return flows
}

// TestPersistence has clients keep their endpoints on all addresses of a Service.
func TestPersistence(t *testing.T) {
	needIPVS(t)
	s := balanced{name: "web", n: 40, endpoints: "ab", spec: "sessionAffinity: ClientIP"}.scheduled("rr")
	r := startBalanced(t, s)
	if v := r.virtual(t, "TCP", s.addr()); v == nil || v.scheduler != "rr" {
		t.Errorf("ipvsadm lists %+v", v)
	}
	port := func(f scenario.Flow) uint16 {
		if f.Proto == "udp" {
			return 53
		}
		return 80
	}
	r.checkSticky(t, parseFlows(t,
		"external 203.0.113.2 -> 192.168.0.2:30040/tcp => 10.0.2.1:9000 10.0.2.2:9000 masq",
		"external 203.0.113.2 -> 172.30.1.40:80/tcp => 10.0.2.1:9000 10.0.2.2:9000 masq",
		"pod 10.0.0.2 -> 172.30.1.40:80/tcp => 10.0.2.1:9000 10.0.2.2:9000",
		"pod 10.0.0.2 -> 172.30.1.40:53/udp => 10.0.2.1:5353 10.0.2.2:5353",
		"external 2600::1 -> [2001:db8::1]:30040/tcp => [fd00:10:2::1]:9000 [fd00:10:2::2]:9000 masq",
		"pod fd00:10::2 -> [fd00:10:96::1:40]:80/tcp => [fd00:10:2::1]:9000 [fd00:10:2::2]:9000",
	), port)
}

// TestUnservedPort looks at ports of a cluster IP that the Service does not serve: the address is on the
// node, but what listens there on all addresses is not reached.
func TestUnservedPort(t *testing.T) {
	needIPVS(t)
	s := balanced{name: "web", n: 41, endpoints: "ab"}.scheduled("rr")
	r := startBalanced(t, s)
	r.checkFlows(t, parseFlows(t,
		fmt.Sprintf("node 192.168.0.2 -> 192.168.0.2:%d/tcp => none", controlPort), // it does listen
		fmt.Sprintf("pod 10.0.0.2 -> 172.30.1.41:%d/tcp => reject", controlPort),
		fmt.Sprintf("pod 10.0.0.2 -> 172.30.1.41:%d/udp => reject", controlPort),
		fmt.Sprintf("external 203.0.113.2 -> 172.30.1.41:%d/tcp => reject", controlPort),
		fmt.Sprintf("node 192.168.0.2 -> 172.30.1.41:%d/tcp => reject", controlPort),
		fmt.Sprintf("pod fd00:10::2 -> [fd00:10:96::1:41]:%d/tcp => reject", controlPort),
		"pod 10.0.0.2 -> 172.30.1.41:80/udp => reject",
		// The port of the endpoints and the node port are not the cluster IP's.
		"pod 10.0.0.2 -> 172.30.1.41:9000/tcp => reject",
		"pod 10.0.0.2 -> 172.30.1.41:30041/tcp => reject",
		"external 203.0.113.2 -> 172.30.1.41:30041/tcp => reject",
	))
	r.apply(t, docsOf(s.with("")))
	r.checkFlows(t, parseFlows(t,
		"pod 10.0.0.2 -> 172.30.1.41:80/tcp => reject",
		fmt.Sprintf("pod 10.0.0.2 -> 172.30.1.41:%d/tcp => reject", controlPort),
		"external 203.0.113.2 -> 192.168.0.2:30041/tcp => reject",
	))
}

// TestIPv6 is what IPVS does with both families.
func TestIPv6(t *testing.T) {
	needIPVS(t)
	s := balanced{name: "web", n: 42, endpoints: "ab"}.scheduled("rr")
	r := startBalanced(t, s)
	flows := parseFlows(t,
		"pod fd00:10::2 -> [fd00:10:96::1:42]:80/tcp => [fd00:10:2::1]:9000 [fd00:10:2::2]:9000",
		"pod fd00:10::2 -> [fd00:10:96::1:42]:53/udp => [fd00:10:2::1]:5353 [fd00:10:2::2]:5353",
		"external 2600::1 -> [2001:db8::1]:30042/tcp => [fd00:10:2::1]:9000 [fd00:10:2::2]:9000 masq",
		"external 2600::1 -> [fd00:10:96::1:42]:80/tcp => [fd00:10:2::1]:9000 [fd00:10:2::2]:9000 masq",
		"node 2001:db8::1 -> [fd00:10:96::1:42]:80/tcp => [fd00:10:2::1]:9000 [fd00:10:2::2]:9000 masq",
		"node 2001:db8::1 -> [2001:db8::1]:30042/tcp => [fd00:10:2::1]:9000 [fd00:10:2::2]:9000 masq",
		"pod 10.0.0.2 -> 172.30.1.42:80/tcp => 10.0.2.1:9000 10.0.2.2:9000",
		"node 192.168.0.2 -> 172.30.1.42:80/tcp => 10.0.2.1:9000 10.0.2.2:9000 masq",
		"node 192.168.0.2 -> 192.168.0.2:30042/tcp => 10.0.2.1:9000 10.0.2.2:9000 masq",
	)
	r.checkFlows(t, flows)
	r.checkListing(t)
	r.apply(t, docsOf(s.with("b")))
	for i := range flows {
		flows[i].Endpoints = flows[i].Endpoints[1:]
	}
	r.checkFlows(t, flows)
}

// TestWithoutIPVS is for kernels that do not have IPVS: nftables does what it can, and the user is told,
// once.
func TestWithoutIPVS(t *testing.T) {
	if hasIPVS() {
		t.Skip("this test is about kernels without ip_vs, and this one has it")
	}
	rr := balanced{name: "turn", n: 50, endpoints: "abc"}.scheduled("rr")
	sh := balanced{name: "source", n: 51, endpoints: "abc"}.scheduled("sh")
	lc := balanced{name: "least", n: 52, endpoints: "ab"}.scheduled("lc")
	r := startBalanced(t, rr, sh, lc)
	turn := r.fromPod(rr.addr()).short(t, 9)
	if !strings.Contains("abcabcabcabc", turn) && !strings.Contains("acbacbacbacb", turn) {
		t.Errorf("rr: connections went to %s; want strict turn", turn)
	}
	before := r.askAll(t, sh.nodePort(r.nodeAddr(true)))
	if again := r.askAll(t, sh.nodePort(r.nodeAddr(true))); again != before {
		t.Errorf("sh: clients went to\n%s and then to\n%s; want the same", before, again)
	}
	for _, l := range sh.endpoints {
		if !strings.ContainsRune(before, l) {
			t.Errorf("sh: no client of %d went to %c", hashClients, l)
		}
	}
	if letters := r.fromPod(lc.addr()).short(t, 60); !strings.Contains(letters, "a") || !strings.Contains(letters, "b") {
		t.Errorf("lc: connections went to %s; want both endpoints", letters)
	}
	r.apply(t, docsOf(rr.with("ab"), sh, lc.with("a")))
	r.apply(t, docsOf(rr, sh, lc))
	for _, scheduler := range []string{"rr", "sh", "lc"} {
		told := 0
		for line := range strings.Lines(r.d.Log()) {
			if strings.Contains(line, "no IPVS") && strings.Contains(line, strconv.Quote(scheduler)) {
				told++
			}
		}
		if told != 1 {
			t.Errorf("the log says %d times that %s is not there; want once:\n%s", told, scheduler, r.d.Log())
		}
	}
	r.checkListing(t)
	r.checkConverged(t)
}
