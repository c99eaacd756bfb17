package kube

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/world"
)

const (
	// nodeAddr is the address of the node, podAddr that of a client on it, outsideAddr that of one
	// outside of the cluster.
	nodeAddr, podAddr, outsideAddr = "192.168.0.2", "10.0.0.2", "203.0.113.2"
	// clusterCIDR holds all pods.
	clusterCIDR = "10.0.0.0/16"
)

// A rig is a node of the shared cluster.
type rig struct {
	w    *world.World
	c    *Cluster
	gate *Gate
	// bin is the binary of nftproxy, socket where the daemon answers.
	bin, socket string
	d           *process
}

// newRig makes a node. The daemon does not run yet, and there is no Service of an earlier test.
func newRig(t *testing.T) *rig {
	t.Helper()
	need(t)
	c, err := shared.cluster()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := shared.binary()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{c: c, bin: bin, socket: t.TempDir() + "/nftproxy.sock"}
	r.clear(t)
	if r.w, err = world.New(world.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.d != nil {
			r.d.kill()
			if t.Failed() {
				t.Logf("the daemon's log:\n%s", tail(r.d.log.String()))
			}
		}
		if err := r.w.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := r.w.SetNodeAddrs([]netip.Addr{netip.MustParseAddr(nodeAddr)}); err != nil {
		t.Fatal(err)
	}
	r.place(t, []string{"10.0.1.1", "10.0.1.2"}, []string{"10.0.2.1", "10.0.2.2", "10.0.2.3"})
	if err := r.w.Serve(8080, 8081); err != nil {
		t.Fatal(err)
	}
	if r.gate, err = OpenGate(r.w.Node.NetNS, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.gate.Shut)
	return r
}

// place puts pods on the node and elsewhere.
func (r *rig) place(t *testing.T, local, remote []string) {
	t.Helper()
	p := world.Placement{Clients: addrs(outsideAddr), Pods: addrs(append(local, podAddr)...), Remote: addrs(remote...)}
	if err := r.w.Place(p); err != nil {
		t.Fatal(err)
	}
}

// addrs parses addresses.
func addrs(words ...string) []netip.Addr {
	var list []netip.Addr
	for _, w := range words {
		list = append(list, netip.MustParseAddr(w))
	}
	return list
}

// clear deletes what earlier tests left in the cluster.
func (r *rig) clear(t *testing.T) {
	t.Helper()
	for _, url := range []string{"/api/v1/namespaces/default/services", "/api/v1/namespaces/default/pods", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"} {
		var list struct {
			Items []object `json:"items"`
		}
		if err := r.c.Get(context.Background(), url, &list); err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Items {
			if o.Metadata.Name == "kubernetes" {
				continue
			}
			// The controllers delete too.
			if err := r.c.Delete(context.Background(), url+"/"+o.Metadata.Name); err != nil && !strings.Contains(err.Error(), " 404") {
				t.Fatal(err)
			}
		}
	}
}

// apply creates or changes objects.
func (r *rig) apply(t *testing.T, docs string) {
	t.Helper()
	if err := r.c.Apply(context.Background(), docs); err != nil {
		t.Fatal(err)
	}
}

// remove deletes an object of namespace default.
func (r *rig) remove(t *testing.T, kind, name string) {
	t.Helper()
	if err := r.c.Delete(context.Background(), "/api/v1/namespaces/default/"+kind+"/"+name); err != nil {
		t.Fatal(err)
	}
}

// command returns the daemon as the user with a token, with further flags.
func (r *rig) command(token string, flags ...string) (*exec.Cmd, error) {
	config, err := r.c.Kubeconfig(token)
	args := []string{
		"run", "--kubeconfig", config, "--hostname-override", "node-1",
		"--cluster-cidr", clusterCIDR, "--socket", r.socket,
		// The values of conntrack are those of the whole machine.
		"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
		"--oom-score-adj=0",
	}
	return exec.Command(r.bin, append(args, flags...)...), err
}

// start starts the daemon.
func (r *rig) start(t *testing.T, token string, flags ...string) {
	t.Helper()
	cmd, err := r.command(token, flags...)
	if err != nil {
		t.Fatal(err)
	}
	if r.d, err = startProcess(r.w.Node.NetNS, cmd); err != nil {
		t.Fatal(err)
	}
}

// stop ends the daemon in good order; its rules stay.
func (r *rig) stop(t *testing.T) {
	t.Helper()
	if err := r.d.end(); err != nil {
		t.Errorf("stop the daemon: %v", err)
	}
	r.d = nil
}

// eventually waits until check has nothing to say.
func (r *rig) eventually(t *testing.T, what string, check func() string) {
	t.Helper()
	say := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if say = check(); say == "" {
			return
		}
		if r.d == nil {
			continue
		}
		select {
		case <-r.d.done:
			t.Fatalf("the daemon ended while waiting for %s", what)
		default:
		}
	}
	t.Fatalf("waited %v for %s: %s", patience, what, say)
}

// nft runs nft on the node and returns what it prints.
func (r *rig) nft(args ...string) (string, error) {
	return r.w.Node.Output(exec.Command("nft", args...))
}

// backends returns the endpoints that the kernel has for a front end, sorted.
func (r *rig) backends(frontEnd string) ([]string, error) {
	out, err := r.nft("list", "map", "ip", "nftproxy", "endpoints")
	if err != nil {
		return nil, err
	}
	f := netip.MustParseAddrPort(frontEnd)
	element := regexp.MustCompile(fmt.Sprintf(`%s \. tcp \. %d \. [0-9a-fx]+(?: comment "[^"]*")? : ([0-9.]+) \. ([0-9]+)`, regexp.QuoteMeta(f.Addr().String()), f.Port()))
	var list []string
	for _, m := range element.FindAllStringSubmatch(out, -1) {
		list = append(list, m[1]+":"+m[2])
	}
	slices.Sort(list)
	return list, nil
}

// settles waits until the kernel has exactly these endpoints for a front end.
func (r *rig) settles(t *testing.T, frontEnd string, want ...string) {
	t.Helper()
	slices.Sort(want)
	r.eventually(t, "the endpoints of "+frontEnd, func() string {
		got, err := r.backends(frontEnd)
		if err == nil && slices.Equal(got, want) {
			return ""
		}
		return fmt.Sprintf("%v, %v; want %v", got, err, want)
	})
}

// ask sends requests from a host and says what is wrong unless each is answered by one of the
// endpoints, or refused if there are none.
func (r *rig) ask(from *world.Host, src, dst string, want ...string) string {
	for range 6 {
		got, err := from.Ask("tcp", netip.MustParseAddr(src), netip.MustParseAddrPort(dst), time.Second)
		switch {
		case err != nil:
			return err.Error()
		case len(want) == 0 && got.Outcome == world.Refused:
		case got.Outcome != world.Answered || !slices.Contains(want, got.Answer.Dst.String()):
			return fmt.Sprintf("%s -> %s: %s; want %v", src, dst, got, want)
		}
	}
	return ""
}

// serves waits until a front end is answered by these endpoints, from a pod on the node.
func (r *rig) serves(t *testing.T, frontEnd string, want ...string) {
	t.Helper()
	pod := r.w.Pod(netip.MustParseAddr(podAddr))
	r.eventually(t, "answers of "+frontEnd, func() string { return r.ask(pod, podAddr, frontEnd, want...) })
}

// servesOutside is serves from outside of the cluster.
func (r *rig) servesOutside(t *testing.T, frontEnd string, want ...string) {
	t.Helper()
	r.eventually(t, "answers of "+frontEnd, func() string { return r.ask(r.w.Clients, outsideAddr, frontEnd, want...) })
}

// pod returns a pod that runs, on the node that its address belongs to.
func pod(name, app, addr string, ready bool) string {
	node := "node-2"
	if strings.HasPrefix(addr, "10.0.1.") {
		node = "node-1"
	}
	state := "False"
	if ready {
		state = "True"
	}
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default, labels: {app: %s}}
spec: {nodeName: %s, containers: [{name: main, image: none}]}
status:
  phase: Running
  podIP: %s
  podIPs: [{ip: %s}]
  conditions: [{type: Ready, status: "%s"}]
`, name, app, node, addr, addr, state)
}

// service returns a Service of pods, with a cluster IP and a node port.
func service(name, ip string, nodePort int) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: default}
spec:
  type: NodePort
  clusterIP: %s
  selector: {app: %s}
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: %d}]
`, name, ip, name, nodePort)
}
