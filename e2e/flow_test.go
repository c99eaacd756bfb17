package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/e2e/world"
)

// host returns where a flow starts.
func (r *rig) host(f scenario.Flow) *world.Host {
	switch f.Kind {
	case scenario.Pod:
		return r.w.Pod(f.Src)
	case scenario.External:
		return r.w.Clients
	case scenario.NodeSelf:
	}
	return r.w.Node
}

// checkFlows sends all flows at the same time and reports those that go wrong.
func (r *rig) checkFlows(t *testing.T, flows []scenario.Flow) {
	t.Helper()
	var wg sync.WaitGroup
	for _, f := range flows {
		wg.Go(func() {
			if err := r.checkFlow(f); err != nil {
				t.Errorf("%s: %s: %v", f.Name, f, err)
			}
		})
	}
	wg.Wait()
}

// checkFlow sends a flow as often as it takes and returns what went wrong.
func (r *rig) checkFlow(f scenario.Flow) error {
	if f.Proto == "sctp" {
		return r.checkRules(f)
	}
	switch f.Want {
	case scenario.DNAT:
		return r.checkDNAT(f)
	case scenario.Drop:
		return r.checkDrop(f)
	case scenario.Reject, scenario.None:
	}
	res, err := r.host(f).Ask(f.Proto, f.Src, f.Dst, slow(2*time.Second))
	switch {
	case err != nil:
		return err
	case f.Want == scenario.Reject && res.Outcome != world.Refused:
		return fmt.Errorf("%s; want it refused", res)
	case f.Want == scenario.None && res.Outcome == world.Refused && r.lingers(f.Dst.Addr()):
		return nil
	case f.Want == scenario.None && (res.Outcome != world.Answered || res.Answer.Dst != f.Dst):
		return fmt.Errorf("%s; want an answer of %s itself", res, f.Dst)
	}
	return nil
}

// checkDNAT connects until every endpoint was seen, and a few times more, and looks at who answered
// and which source it saw.
func (r *rig) checkDNAT(f scenario.Flow) error {
	n := len(f.Endpoints)
	seen := map[netip.AddrPort]int{}
	// That one of n endpoints is missed by chance in 60n tries has a probability of e^-60.
	for i := 0; i < 60*n && (i < 2*n+2 || len(seen) < n); i++ {
		res, err := r.checkOnce(f)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		seen[res.Answer.Dst]++
	}
	if len(seen) < n {
		return fmt.Errorf("reached only %v; want all of %v", seen, f.Endpoints)
	}
	return nil
}

// checkOnce makes one connection that must reach an endpoint of the flow.
func (r *rig) checkOnce(f scenario.Flow) (world.Result, error) {
	var res world.Result
	err := r.host(f).Do(func() (err error) {
		res, err = world.Ask(f.Proto, r.ports.next(f.Src), f.Dst, slow(3*time.Second))
		return err
	})
	if err != nil {
		return res, err
	}
	if res.Outcome != world.Answered || !slices.Contains(f.Endpoints, res.Answer.Dst) {
		return res, fmt.Errorf("%s; want one of %v", res, f.Endpoints)
	}
	src := res.Answer.Src.Addr()
	if !f.Masquerade && src != f.Src {
		return res, fmt.Errorf("%s; want the source %s", res, f.Src)
	}
	if f.Masquerade && !slices.Contains(r.node.Addresses, src) {
		return res, fmt.Errorf("%s; want an address of the node", res)
	}
	return res, nil
}

// checkDrop sends a flow that must vanish. A control connection to the node, from the same place and sent
// later, tells that the node was reached and how slow the machine is just now.
func (r *rig) checkDrop(f scenario.Flow) error {
	control := netip.AddrPortFrom(r.nodeAddr(f.Dst.Addr().Is4()), controlPort)
	for silence := 250 * time.Millisecond; silence < slow(5*time.Second); silence *= 2 {
		res, err := r.host(f).Ask(f.Proto, f.Src, f.Dst, silence)
		if err != nil {
			return err
		}
		if res.Outcome != world.Silent {
			return fmt.Errorf("%s; want silence", res)
		}
		begin := time.Now()
		res, err = r.host(f).Ask("tcp", f.Src, control, slow(5*time.Second))
		if err != nil {
			return err
		}
		if res.Outcome != world.Answered {
			return fmt.Errorf("control connection to %s: %s; want an answer of the node", control, res)
		}
		if time.Since(begin) < silence/2 {
			return nil
		}
	}
	return errors.New("the machine is too slow to tell silence from an answer")
}

// lingers reports whether an address is on the node for a virtual server. If nobody wants the server any more it
// is there as long as its connections, and nothing that is sent to it gets any further.
func (r *rig) lingers(a netip.Addr) bool {
	if *scheduler == "" {
		return false
	}
	out, err := r.w.Node.Output(exec.Command("ip", "-o", "addr", "show", "dev", "kube-ipvs0"))
	return err == nil && strings.Contains(out, " "+a.String()+"/")
}

// checkRules looks for the front end of a flow in the maps of services and node ports. It is for SCTP, which
// the kernels that the tests run on cannot send.
func (r *rig) checkRules(f scenario.Flow) error {
	family, front := "ip", fmt.Sprintf("%s . %s . %d", f.Dst.Addr(), f.Proto, f.Dst.Port())
	if f.Dst.Addr().Is6() {
		family = "ip6"
	}
	port := fmt.Sprintf("%s . %d", f.Proto, f.Dst.Port())
	has := func(set, element string) bool {
		_, err := r.w.Node.Output(exec.Command("nft", "get", "element", family, "nftproxy", set, "{ "+element+" }"))
		return err == nil
	}
	local := slices.Contains(r.node.Addresses, f.Dst.Addr())
	served := has("services", front) || local && has("nodeports", port)
	refused := has("no-endpoints", front) || local && has("no-endpoint-nodeports", port)
	got := scenario.None
	switch {
	case served:
		got = scenario.DNAT
	case refused:
		got = scenario.Reject
	}
	if got != f.Want {
		return fmt.Errorf("the maps say %s; want %s", got, f.Want)
	}
	return nil
}

// checkSticky sends the flows one after the other and checks that a client stays with its endpoint on
// all addresses of a Service port, and that many clients together reach every endpoint. The function
// tells which Service port a flow belongs to.
func (r *rig) checkSticky(t *testing.T, flows []scenario.Flow, port func(scenario.Flow) uint16) {
	t.Helper()
	type client struct {
		src  netip.Addr
		port uint16
	}
	chosen := map[client]netip.AddrPort{}
	ask := func(f scenario.Flow) (endpoint netip.AddrPort) {
		for range 10 {
			res, err := r.checkOnce(f)
			if err != nil {
				t.Errorf("%s: %s: %v", f.Name, f, err)
				return
			}
			endpoint = res.Answer.Dst
			k := client{f.Src, port(f)}
			if old, ok := chosen[k]; ok && old != endpoint {
				t.Errorf("%s: %s: went to %s and then to %s; want the same", f.Name, f, old, endpoint)
				return
			}
			chosen[k] = endpoint
		}
		return endpoint
	}
	defer func() { r.fresh += clientCount }()
	for _, f := range flows {
		ask(f)
		if f.Kind != scenario.External {
			continue
		}
		seen := map[netip.AddrPort]bool{}
		for i := range clientCount {
			f.Src = freshClient(r.fresh+i, f.Dst.Addr().Is4())
			seen[ask(f)] = true
		}
		if len(seen) != len(f.Endpoints) {
			t.Errorf("%s: %s: %d clients reached %v; want all endpoints", f.Name, f, clientCount, seen)
		}
	}
}
