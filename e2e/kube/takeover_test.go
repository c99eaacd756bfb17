package kube

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/e2e/world"
)

// echo is a Service whose pods keep connections and send back what they get.
const echo = `---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: default}
spec:
  type: NodePort
  clusterIP: 10.96.0.20
  selector: {app: web}
  ports: [{name: echo, port: 7, targetPort: 9000, nodePort: 30007}]
`

// TestTakeOver goes from kube-proxy to nftproxy and back while clients connect without pause and keep
// connections.
func TestTakeOver(t *testing.T) {
	for _, mode := range []string{"nftables", "iptables"} {
		t.Run(mode, func(t *testing.T) { testTakeOver(t, mode) })
	}
}

// testTakeOver is TestTakeOver from kube-proxy in a mode.
func testTakeOver(t *testing.T, mode string) {
	r := newRig(t)
	pods := []string{"10.0.1.1:8080", "10.0.2.1:8080"}
	r.apply(t, service("web", "10.96.0.10", 30080)+echo+pod("web-1", "web", "10.0.1.1", true)+pod("web-2", "web", "10.0.2.1", true))
	r.echoes(t, r.w.Pod(netip.MustParseAddr("10.0.1.1")).NetNS, r.w.Remote.NetNS)
	// What kube-proxy makes in the mode: for everything, and for the node port of a Service.
	theirs := map[string]string{"nftables": "table ip kube-proxy", "iptables": "KUBE-"}[mode]
	serving := map[string]string{"nftables": "-default/web/tcp/http", "iptables": "KUBE-EXT-"}[mode]

	kubeProxy := r.startKubeProxy(t, mode, r.w.Node.NetNS, r.c)
	r.serves(t, "10.96.0.10:80", pods...)
	r.servesOutside(t, nodeAddr+":30080", pods...)

	l := r.startLoad(t, pods)
	l.run(t, 2*time.Second, "kube-proxy alone")

	if err := kubeProxy.end(); err != nil {
		t.Logf("kube-proxy: %v", err) // it does not end well when it is asked to
	}
	l.run(t, time.Second, "kube-proxy stopped")
	r.start(t, proxyToken)
	r.settles(t, "10.96.0.10:80", pods...)
	r.eventually(t, "the end of kube-proxy's rules", func() string {
		out, err := r.nft("list", "ruleset")
		// The kubelet has KUBE-FIREWALL too, so that it stays, as with kube-proxy --cleanup.
		out = strings.ReplaceAll(out, "KUBE-FIREWALL", "")
		if err != nil || strings.Contains(out, theirs) {
			return fmt.Sprintf("%v, %q", err, regexp.MustCompile(".*"+theirs+".*").FindAllString(out, -1))
		}
		return ""
	})
	l.run(t, 3*time.Second, "nftproxy took over")

	r.stop(t)
	l.run(t, time.Second, "nftproxy stopped")
	r.startKubeProxy(t, mode, r.w.Node.NetNS, r.c)
	r.eventually(t, "kube-proxy's rules", func() string {
		out, err := r.nft("list", "ruleset")
		if err != nil || !strings.Contains(out, serving) {
			return fmt.Sprintf("%v, %s", err, tail(out))
		}
		return ""
	})
	l.run(t, time.Second, "kube-proxy back beside the rules of nftproxy")
	if out, err := r.w.Node.Output(exec.Command(r.bin, "cleanup")); err != nil {
		t.Fatalf("nftproxy cleanup: %v: %s", err, out)
	}
	if out, err := r.nft("list", "tables"); err != nil || strings.Contains(out, "nftproxy") {
		t.Errorf("after cleanup: %s, %v", out, err)
	}
	l.run(t, 3*time.Second, "handed back")
	t.Logf("%d new connections, %d exchanges on kept ones", l.asked.Load(), l.echoed.Load())
}

// A load is clients that connect without pause and clients that keep a connection.
type load struct {
	asked, echoed atomic.Int64
	// failed holds what went wrong.
	failed chan string
}

// startLoad starts clients through the cluster IP and the node port, from a pod, from the node and
// from outside. They end with the test.
func (r *rig) startLoad(t *testing.T, pods []string) *load {
	t.Helper()
	l := &load{failed: make(chan string, 100)}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	t.Cleanup(func() { close(stop); clients.Wait() })
	ways := []struct {
		from      *world.Host
		src       string
		web, echo string
	}{
		{r.w.Pod(netip.MustParseAddr(podAddr)), podAddr, "10.96.0.10:80", "10.96.0.20:7"},
		{r.w.Node, nodeAddr, "10.96.0.10:80", "10.96.0.20:7"},
		{r.w.Clients, outsideAddr, nodeAddr + ":30080", nodeAddr + ":30007"},
	}
	for _, w := range ways {
		clients.Go(func() {
			for !closed(stop) {
				got, err := w.from.Ask("tcp", netip.MustParseAddr(w.src), netip.MustParseAddrPort(w.web), 3*time.Second)
				if err != nil || got.Outcome != world.Answered || !slices.Contains(pods, got.Answer.Dst.String()) {
					l.fail(fmt.Sprintf("a new connection %s -> %s: %s, %v", w.src, w.web, got, err))
				}
				l.asked.Add(1)
			}
		})
		conn := dialFrom(t, w.from.NetNS, w.echo)
		t.Cleanup(func() { _ = conn.Close() })
		clients.Go(func() {
			for !closed(stop) {
				if err := exchange(conn); err != nil {
					l.fail(fmt.Sprintf("a kept connection %s -> %s: %v", w.src, w.echo, err))
					return
				}
				l.echoed.Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return l
}

// closed reports whether a channel is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// fail notes what went wrong.
func (l *load) fail(say string) {
	select {
	case l.failed <- say:
	default: // enough is known
	}
}

// run lets the load go on for a while and reports what failed since the last time. It fails too if no
// request was made.
func (l *load) run(t *testing.T, long time.Duration, what string) {
	t.Helper()
	asked, echoed := l.asked.Load(), l.echoed.Load()
	time.Sleep(long)
	if l.asked.Load() == asked || l.echoed.Load() == echoed {
		t.Errorf("%s: the clients did nothing", what)
	}
	for {
		select {
		case say := <-l.failed:
			t.Errorf("until %s: %s", what, say)
		default:
			return
		}
	}
}

// echoes starts servers on port 9000 of namespaces.
func (r *rig) echoes(t *testing.T, hosts ...*netns.NetNS) {
	t.Helper()
	for _, h := range hosts {
		var l net.Listener
		if err := h.Do(func() (err error) {
			l, err = net.Listen("tcp", ":9000")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					in := bufio.NewScanner(c)
					for in.Scan() {
						fmt.Fprintln(c, in.Text())
					}
				}()
			}
		}()
	}
}

// dialFrom connects from a namespace, trying until it succeeds.
func dialFrom(t *testing.T, from *netns.NetNS, dst string) (conn net.Conn) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := from.Do(func() (err error) {
			conn, err = net.DialTimeout("tcp", dst, time.Second)
			return err
		})
		if err == nil {
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatalf("connect to %s: %v", dst, err)
		}
	}
}

// exchange sends a line and waits for it to come back.
func exchange(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 16))
	return err
}

// startKubeProxy starts the real kube-proxy in a namespace of a node. It ends with the test.
func (r *rig) startKubeProxy(t *testing.T, mode string, node *netns.NetNS, c *Cluster) *process {
	t.Helper()
	p, err := startKubeProxy(t.TempDir(), mode, node, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// startKubeProxy starts the real kube-proxy in a mode, with its configuration in a directory.
func startKubeProxy(dir, mode string, node *netns.NetNS, c *Cluster) (*process, error) {
	bin, err := c.tools.Path(KubeProxy)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := c.Kubeconfig(kubeProxyToken)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.conf")
	// The values of conntrack are those of the whole machine.
	text := fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
hostnameOverride: node-1
clusterCIDR: %s
clientConnection: {kubeconfig: %s}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
oomScoreAdj: 0
`, mode, clusterCIDR, kubeconfig)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return startProcess(node, exec.Command(bin, "--config", config))
}
