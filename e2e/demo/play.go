package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/e2e/daemon"
	"github.com/nftproxy/nftproxy/e2e/world"
)

// The cast.
const (
	nodeAddr     = "192.0.2.10"
	podClient    = "10.244.1.99"
	insider      = "203.0.113.7"
	outsider     = "203.0.113.200"
	clusterIP    = "10.96.0.10:80"
	nodePort     = nodeAddr + ":30080"
	loadBalancer = "198.51.100.7:80"
)

// patience is how long the demonstration waits for what must happen.
const patience = 10 * time.Second

// A play is the network with the daemon on its node, and where to tell about it.
type play struct {
	ctx context.Context
	out io.Writer
	cfg daemon.Config
	w   *world.World
	d   *daemon.Daemon
	act int
}

// newPlay builds the binary and the network. The daemon does not run yet.
func newPlay(ctx context.Context, out io.Writer, dir string) (*play, error) {
	p := &play{ctx: ctx, out: out}
	p.say("Building nftproxy and a small network ...")
	bin, err := daemon.Build(dir)
	if err != nil {
		return nil, err
	}
	p.cfg = daemon.Config{Binary: bin, Dir: dir, NodeName: "demo-node", Flags: []string{"--cluster-cidr=10.244.0.0/16"}}
	if p.w, err = world.New(world.Config{}); err != nil {
		return nil, err
	}
	if err := p.populate(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// populate gives everybody an address and starts the backends.
func (p *play) populate() error {
	addrs := func(words ...string) []netip.Addr {
		var list []netip.Addr
		for _, w := range words {
			list = append(list, netip.MustParseAddr(w))
		}
		return list
	}
	if err := p.w.SetNodeAddrs(addrs(nodeAddr)); err != nil {
		return err
	}
	if err := p.w.Place(world.Placement{
		Pods:    addrs("10.244.1.11", "10.244.1.12", podClient),
		Remote:  addrs("10.244.2.13", "10.244.2.14"),
		Clients: addrs(insider, outsider),
	}); err != nil {
		return err
	}
	return p.w.Serve(8080)
}

// close ends what was started.
func (p *play) close() error {
	var errs []error
	if p.d != nil {
		errs = append(errs, p.d.Stop())
	}
	return errors.Join(append(errs, p.w.Close())...)
}

// acts returns what happens, in order.
func (p *play) acts() []func() error {
	return []func() error{
		p.introduce, p.start, p.clusterIP, p.nodePort, p.loadBalancer, p.kill, p.edit, p.scale, p.empty, p.restart, p.showRules,
	}
}

// say tells something.
func (p *play) say(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

// title begins an act.
func (p *play) title(text string) {
	p.act++
	p.say("\n%d. %s\n%s", p.act, text, strings.Repeat("─", 4+len(text)))
}

// introduce shows the network.
func (p *play) introduce() error {
	p.title("The network")
	p.say(`
    client  %-14s ─┐                  ┌─ pod client   %s
    client  %-14s ─┤                  ├─ backend pod  10.244.1.11:8080
                            ├─ demo-node ──────┼─ backend pod  10.244.1.12:8080
                            │  %-14s  └─ other-node ─ backend pod 10.244.2.13:8080
`, insider, podClient, outsider, nodeAddr)
	p.say("    Each host is a network namespace of its own. nftproxy runs on demo-node.")
	return nil
}

// start runs the daemon.
func (p *play) start() error {
	p.title("nftproxy starts on a directory of manifests (a Service with three endpoints)")
	d, err := daemon.Start(p.w.Node.NetNS, p.cfg)
	if err != nil {
		return err
	}
	p.d = d
	p.say("    $ %s", strings.Join(append([]string{"nftproxy"}, p.cfg.Command("run").Args[1:]...), " "))
	begin := time.Now()
	if err := p.await(clusterIP, world.Answered); err != nil {
		return err
	}
	p.say("    The Service answered %v after the start. The daemon's log so far:", time.Since(begin).Round(time.Millisecond))
	fmt.Fprint(p.out, indent(d.Log()))
	return nil
}

// await waits until the pod client's requests end as wanted.
func (p *play) await(dst string, want world.Outcome) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && p.ctx.Err() == nil; {
		r, err := p.ask(podClient, dst, 10*time.Millisecond)
		if err != nil {
			return err
		}
		if r.Outcome == want {
			return nil
		}
	}
	return fmt.Errorf("%s: waited in vain; the daemon's log:\n%s", dst, p.d.Log())
}

// ask sends one request. Silence is to hear nothing for the time given.
func (p *play) ask(src, dst string, silence time.Duration) (world.Result, error) {
	a := netip.MustParseAddr(src)
	h := p.w.Clients
	if pod := p.w.Pod(a); pod != nil {
		h = pod
	}
	return h.Ask("tcp", a, netip.MustParseAddrPort(dst), silence)
}

// requests sends a number of requests and shows who answered.
func (p *play) requests(n int, src, dst, what string) error {
	if p.ctx.Err() != nil {
		return nil
	}
	counts := map[string]int{}
	for range n {
		r, err := p.ask(src, dst, 200*time.Millisecond)
		if err != nil {
			return err
		}
		who := map[world.Outcome]string{world.Refused: "refused at once", world.Silent: "no answer"}[r.Outcome]
		if r.Outcome == world.Answered {
			who = fmt.Sprintf("%s, which saw the client as %s", r.Answer.Dst, r.Answer.Src.Addr())
		}
		counts[who]++
	}
	p.say("    %d requests from %s to %s (%s):", n, src, dst, what)
	for _, who := range slices.Sorted(maps.Keys(counts)) {
		p.say("      %3d  %s", counts[who], who)
	}
	return nil
}

// clusterIP shows the cluster IP.
func (p *play) clusterIP() error {
	p.title("The cluster IP, from a pod: the kernel picks an endpoint, the pod keeps its address")
	return p.requests(30, podClient, clusterIP, "cluster IP")
}

// nodePort shows the node port.
func (p *play) nodePort() error {
	p.title("The node port, from outside: masqueraded, so that answers come back through the node")
	return p.requests(30, outsider, nodePort, "node port")
}

// loadBalancer shows the load balancer's address and its source ranges.
func (p *play) loadBalancer() error {
	p.title("The load balancer's address: only 203.0.113.0/25 may use it")
	if err := p.requests(30, insider, loadBalancer, "in the source range"); err != nil {
		return err
	}
	return p.requests(3, outsider, loadBalancer, "outside of it")
}

// kill ends a backend without telling anybody.
func (p *play) kill() error {
	p.title("Backend 10.244.1.12 dies, and nobody has noticed yet")
	p.w.Pod(netip.MustParseAddr("10.244.1.12")).Shut()
	return p.requests(15, podClient, clusterIP, "cluster IP")
}

// edit marks the dead backend as not ready.
func (p *play) edit() error {
	p.title("Its readiness changes in the manifest, as Kubernetes would change it")
	begin := time.Now()
	if err := p.change("10.244.1.12]\n  nodeName: demo-node\n  conditions: {ready: true}", "10.244.1.12]\n  nodeName: demo-node\n  conditions: {ready: false}"); err != nil {
		return err
	}
	if err := p.settle(2); err != nil {
		return err
	}
	p.say("    In the kernel %v after the file changed.", time.Since(begin).Round(time.Millisecond))
	return p.requests(30, podClient, clusterIP, "cluster IP")
}

// scale adds a backend.
func (p *play) scale() error {
	p.title("A new backend 10.244.2.14 comes up on other-node")
	if err := p.change("- addresses: [10.244.2.13]", "- addresses: [10.244.2.14]\n  nodeName: other-node\n- addresses: [10.244.2.13]"); err != nil {
		return err
	}
	if err := p.settle(3); err != nil {
		return err
	}
	return p.requests(30, podClient, clusterIP, "cluster IP")
}

// empty shows a Service without any endpoint.
func (p *play) empty() error {
	p.title("The EndpointSlice goes: a Service without endpoints refuses, it does not hang")
	file := filepath.Join(p.cfg.Manifests(), "shop.yaml")
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	service, _, _ := strings.Cut(string(before), "---")
	if err := daemon.WriteFile(p.cfg.Manifests(), "shop.yaml", service); err != nil {
		return err
	}
	if err := p.await(clusterIP, world.Refused); err != nil {
		return err
	}
	if err := p.requests(3, podClient, clusterIP, "cluster IP"); err != nil {
		return err
	}
	p.say("    And it comes back:")
	if err := daemon.WriteFile(p.cfg.Manifests(), "shop.yaml", string(before)); err != nil {
		return err
	}
	if err := p.await(clusterIP, world.Answered); err != nil {
		return err
	}
	return p.requests(30, podClient, clusterIP, "cluster IP")
}

// restart ends the daemon, shows that the rules stay, and starts it again.
func (p *play) restart() error {
	p.title("The daemon is asked for its status, ended, and started again: traffic goes on all the while")
	out, err := p.w.Node.Output(exec.Command(p.cfg.Binary, "status", "--socket", p.cfg.Socket()))
	if err != nil {
		return err
	}
	p.say("    $ nftproxy status")
	fmt.Fprint(p.out, indent(out))
	err = p.d.Stop()
	p.d = nil
	if err != nil {
		return err
	}
	if err := p.requests(15, podClient, clusterIP, "no daemon runs"); err != nil {
		return err
	}
	if p.d, err = daemon.Start(p.w.Node.NetNS, p.cfg); err != nil {
		return err
	}
	return p.requests(15, podClient, clusterIP, "it runs again")
}

// showRules prints the ruleset as nft shows it.
func (p *play) showRules() error {
	p.title("What nft shows on the node (nft list table ip nftproxy)")
	out, err := p.w.Node.Output(exec.Command("nft", "list", "table", "ip", "nftproxy"))
	if err != nil {
		return err
	}
	fmt.Fprint(p.out, indent(shorten(out)))
	p.say("\nThat was all. The namespaces are gone with this program.")
	return nil
}

// change replaces text in the manifest of the Service.
func (p *play) change(old, text string) error {
	file := filepath.Join(p.cfg.Manifests(), "shop.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if strings.Count(string(b), old) != 1 {
		return fmt.Errorf("%s: %q is not there once", file, old)
	}
	return daemon.WriteFile(p.cfg.Manifests(), "shop.yaml", strings.Replace(string(b), old, text, 1))
}

// settle waits until the kernel has a number of endpoints for the cluster IP.
func (p *play) settle(endpoints int) error {
	element := "{ 10.96.0.10 . tcp . 80 }"
	want := fmt.Sprintf(": ae10:%x", endpoints) // the number of chain lb-M
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && p.ctx.Err() == nil; {
		out, err := p.w.Node.Output(exec.Command("nft", "get", "element", "ip", "nftproxy", "services", element))
		if err != nil {
			return err
		}
		if strings.Contains(out, want) {
			return nil
		}
	}
	return fmt.Errorf("%s: waited in vain for %q; the daemon's log:\n%s", element, want, p.d.Log())
}
