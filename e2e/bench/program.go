package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/bench/see"
	"github.com/nftproxy/nftproxy/e2e/netns"
)

// A program is one of the two that are measured.
type program struct {
	name    string
	version string
	// table and set name a map that has each Service's front end as its key.
	table, set string
	// command returns how to run it; dir is for its files.
	command func(dir string) (*exec.Cmd, error)
	// pause is how long to leave it alone between two changes, so that each is one of its own.
	pause time.Duration
	// slow says that it waits, for less than pause, between two syncs, so that the pause must begin when
	// it is at rest.
	slow bool
	// limit is how long its first sync and what a change leads to may take.
	limit time.Duration
	// budget is how long after its start nothing more is begun; 0 for no such time.
	budget time.Duration
}

// ours returns nftproxy, as a binary.
func ours(bin, mode string, limit time.Duration, profiling bool) *program {
	return &program{
		name: "nftproxy", table: "nftproxy", set: "services", pause: 20 * time.Millisecond, limit: limit,
		version: versionOf(bin, "version"),
		command: func(dir string) (*exec.Cmd, error) {
			kubeconfig, err := writeKubeconfig(dir)
			args := []string{
				"run", "--kubeconfig", kubeconfig, "--hostname-override=bench", "--cluster-cidr=" + clusterCIDR,
				"--proxy-mode=" + mode, "--socket=" + filepath.Join(dir, "nftproxy.sock"),
				// The values of conntrack are those of the whole machine.
				"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
				"--oom-score-adj=0",
			}
			if mode == modeIPVS {
				args = append(args, "--ipvs-scheduler=rr")
			}
			if profiling {
				args = append(args, "--profiling")
			}
			return exec.Command(bin, args...), err
		},
	}
}

// peer returns kube-proxy, as a binary.
func peer(bin, mode string, limit time.Duration) *program {
	return &program{
		name: "kube-proxy", table: "kube-proxy", set: "service-ips", pause: 1100 * time.Millisecond, slow: true, limit: limit, budget: limit,
		version: versionOf(bin, "--version"),
		command: func(dir string) (*exec.Cmd, error) {
			kubeconfig, err := writeKubeconfig(dir)
			if err != nil {
				return nil, err
			}
			config := filepath.Join(dir, "config.conf")
			text := fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
hostnameOverride: bench
clusterCIDR: %s
clientConnection: {kubeconfig: %s}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 1s}
ipvs: {minSyncPeriod: 1s, scheduler: rr}
oomScoreAdj: 0
`, mode, clusterCIDR, kubeconfig)
			return exec.Command(bin, "--config", config), os.WriteFile(config, []byte(text), 0o600)
		},
	}
}

// peerModules are those that kube-proxy needs in mode ipvs, beyond ours.
func peerModules() []string {
	return []string{
		"dummy", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh", "ip_set_bitmap_port", "ip_set_hash_ip", "ip_set_hash_ipport", "ip_set_hash_ipportip",
		"ip_set_hash_ipportnet", "ip_set_hash_net", "ip_set_list_set", "nft_compat",
		"xt_comment", "xt_conntrack", "xt_mark", "xt_MASQUERADE", "xt_addrtype", "xt_set", "xt_tcpudp", "xt_nat",
	}
}

// versionOf returns what a program says of its version, in one line.
func versionOf(bin string, arg string) string {
	out, err := exec.Command(bin, arg).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// writeKubeconfig writes how to reach the API server and returns the path.
func writeKubeconfig(dir string) (string, error) {
	path := filepath.Join(dir, "kubeconfig")
	return path, os.WriteFile(path, []byte(`apiVersion: v1
kind: Config
clusters: [{name: bench, cluster: {server: "http://`+apiAddress+`"}}]
contexts: [{name: bench, context: {cluster: bench}}]
current-context: bench
`), 0o600)
}

// A process is a program that runs on a node.
type process struct {
	name    string
	cmd     *exec.Cmd
	log     *netns.Buffer
	done    chan struct{} // closed when it has ended
	started time.Time
	// look is how long it must do next to nothing to be at rest.
	look time.Duration
}

// start starts a program on a node. It is at rest when it does next to nothing for the time look.
func start(p *program, n *node, dir string, look time.Duration) (*process, error) {
	cmd, err := p.command(dir)
	if err != nil {
		return nil, err
	}
	r := &process{name: p.name, cmd: cmd, log: &netns.Buffer{}, done: make(chan struct{}), look: look}
	cmd.Stdout, cmd.Stderr = r.log, r.log
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // an interrupt is for us
	r.started = time.Now()
	if err := n.host.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		_ = cmd.Wait()
		close(r.done)
	}()
	return r, nil
}

// cpu returns the CPU time that it has used.
func (r *process) cpu() time.Duration {
	d, err := see.CPU(r.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	return d
}

// kill kills it with the programs that it runs, and waits for its end.
func (r *process) kill() {
	_ = unix.Kill(-r.cmd.Process.Pid, unix.SIGKILL)
	<-r.done
}

// stop asks it to end, and kills it if it does not.
func (r *process) stop() {
	_ = r.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(20 * time.Second):
		r.kill()
	}
}

// ended returns an error if it has ended.
func (r *process) ended() error {
	select {
	case <-r.done:
		return errors.New(r.name + " ended: " + r.tail())
	default:
		return nil
	}
}

// tail returns the end of its log.
func (r *process) tail() string {
	log := r.log.String()
	return log[max(0, len(log)-3000):]
}

// quiet waits until it does next to nothing, at most for a time.
func (r *process) quiet(most time.Duration) {
	for deadline, last := time.Now().Add(most), r.cpu(); time.Now().Before(deadline); {
		time.Sleep(r.look)
		now := r.cpu()
		if now-last < r.look/50 && len(see.Children(r.cmd.Process.Pid)) == 0 {
			return
		}
		last = now
	}
}
