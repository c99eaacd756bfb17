package kube

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// deployed is the directory of what is deployed.
var deployed = filepath.Join("..", "..", "deploy", "kubernetes")

// TestDaemonSet runs the container of deploy/ with what the DaemonSet gives it: its arguments, files,
// mounts and capabilities, and nothing else of a file system or of root's rights.
func TestDaemonSet(t *testing.T) {
	r := newRig(t)
	text := readFile(t, filepath.Join(deployed, "daemonset.yaml"))
	// The API server takes it, with all its fields known to it.
	if err := r.c.Do(t.Context(), "POST", "/apis/apps/v1/namespaces/kube-system/daemonsets?dryRun=All&fieldValidation=Strict", "application/yaml", text, nil); err != nil {
		t.Error(err)
	}
	var set apps.DaemonSet
	if err := yaml.UnmarshalStrict(text, &set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	c := pod.Containers[0]
	checkHardened(t, pod, c)

	root := imageRoot(t, r.bin)
	config := strings.Replace(string(readFile(t, filepath.Join(deployed, "kubeconfig.conf"))), "control-plane.example:6443", apiAddress, 1)
	ca := readFile(t, filepath.Join(r.c.dir, "server.crt"))
	writeFiles(t, root, map[string]string{
		"/var/lib/nftproxy/config.conf":                            string(readFile(t, filepath.Join(deployed, "config.conf"))),
		"/var/lib/nftproxy/kubeconfig.conf":                        config,
		"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt":     string(ca),
		"/var/run/secrets/kubernetes.io/serviceaccount/token":      proxyToken,
		"/run/nftproxy/this directory is a mount of the container": "",
	})
	args := []string{"/nftproxy"}
	for _, a := range c.Args {
		args = append(args, strings.ReplaceAll(a, "$(NODE_NAME)", "node-1"))
	}
	r.startContainer(t, root, false, args)
	r.takesPart(t)
	status := string(readFile(t, fmt.Sprintf("/proc/%d/status", r.d.cmd.Process.Pid)))
	for _, want := range []string{"CapPrm:\t0000000000001000", "CapBnd:\t0000000000001000", "NoNewPrivs:\t1"} {
		if !strings.Contains(status, want) {
			t.Errorf("the process has more rights than it should: no %q in\n%s", want, status)
		}
	}
}

// kubeadmConfig is what kubeadm 1.36 writes into its ConfigMap kube-proxy.
const kubeadmConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.0.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
`

// TestKubeadmImage runs the container in which kubeadm's DaemonSet runs kube-proxy, with another image.
func TestKubeadmImage(t *testing.T) {
	r := newRig(t)
	root := imageRoot(t, r.bin)
	config := strings.Replace(string(readFile(t, filepath.Join(deployed, "kubeconfig.conf"))), "control-plane.example:6443", apiAddress, 1)
	writeFiles(t, root, map[string]string{
		"/var/lib/kube-proxy/config.conf":                      kubeadmConfig,
		"/var/lib/kube-proxy/kubeconfig.conf":                  config,
		"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt": string(readFile(t, filepath.Join(r.c.dir, "server.crt"))),
		"/var/run/secrets/kubernetes.io/serviceaccount/token":  kubeProxyToken,
		conntrackMax: "1\n",
	})
	r.startContainer(t, root, true, []string{"/usr/local/bin/kube-proxy", "--config=/var/lib/kube-proxy/config.conf", "--hostname-override=node-1"})
	r.takesPart(t)
	want := fmt.Sprint(min(max(131072, 32768*runtime.NumCPU()), 1<<20))
	if got := strings.TrimSpace(string(readFile(t, filepath.Join(root, conntrackMax)))); got != want {
		t.Errorf("nf_conntrack_max was set to %s; want %s", got, want)
	}
}

// conntrackMax is a file below the root of a privileged container that takes the place of the sysctl
// nf_conntrack_max: that one is the whole machine's, and nobody may write it from a network namespace.
const conntrackMax = "/nf_conntrack_max"

// takesPart checks that the node serves a Service.
func (r *rig) takesPart(t *testing.T) {
	t.Helper()
	r.apply(t, service("web", "10.96.0.10", 30080)+pod("web-1", "web", "10.0.1.1", true))
	r.settles(t, "10.96.0.10:80", "10.0.1.1:8080")
	r.serves(t, "10.96.0.10:80", "10.0.1.1:8080")
	r.servesOutside(t, nodeAddr+":30080", "10.0.1.1:8080")
}

// checkHardened fails if the container of the DaemonSet may more than it needs.
func checkHardened(t *testing.T, pod core.PodSpec, c core.Container) {
	t.Helper()
	s := c.SecurityContext
	if s.Privileged != nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem {
		t.Errorf("the container is privileged, may become so, or may write: %v", s)
	}
	if !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, []core.Capability{"NET_ADMIN"}) {
		t.Errorf("capabilities %v; want NET_ADMIN alone", s.Capabilities)
	}
	if pod.SecurityContext.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault || !pod.HostNetwork {
		t.Errorf("security context %v, host network %v; want RuntimeDefault and the host's", pod.SecurityContext, pod.HostNetwork)
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			t.Errorf("volume %s is a directory of the node; want none", v.Name)
		}
	}
}

// imageRoot makes a file system as `make image` does: the binary, and a link to it.
func imageRoot(t *testing.T, bin string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"proc", "usr/local/bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "nftproxy"), readFile(t, bin), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nftproxy", filepath.Join(root, "usr/local/bin/kube-proxy")); err != nil {
		t.Fatal(err)
	}
	return root
}

// readFile reads a file.
func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeFiles writes files below a directory.
func writeFiles(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The environment variables that have this test binary become a container: its root, and "yes" for a
// privileged one.
const (
	containerRoot       = "NFTPROXY_E2E_CONTAINER"
	containerPrivileged = "NFTPROXY_E2E_PRIVILEGED"
)

// startContainer starts a program of a file system as a container runtime does: with a root of its own
// and as user root. Unless it is privileged the root and /proc/sys are read-only, and CAP_NET_ADMIN is the
// only capability.
func (r *rig) startContainer(t *testing.T, root string, privileged bool, args []string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = args
	cmd.Env = []string{containerRoot + "=" + root}
	if privileged {
		cmd.Env = append(cmd.Env, containerPrivileged+"=yes")
	}
	var err error
	if r.d, err = startProcess(r.w.Node.NetNS, cmd); err != nil {
		t.Fatal(err)
	}
}

// A mountStep is a mount that makes a container.
type mountStep struct {
	source, target, kind string
	flags                uintptr
}

// becomeContainer makes this process the container and does not return unless that fails.
func becomeContainer(root string, privileged bool) error {
	runtime.LockOSThread() // mounts, root and capabilities are those of the thread that runs the program
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	mounts := []mountStep{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{root, root, "", unix.MS_BIND},
		{"/proc", root + "/proc", "", unix.MS_BIND},
	}
	if !privileged {
		const readOnly = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY
		mounts = append(mounts,
			mountStep{"run", root + "/run/nftproxy", "tmpfs", 0},
			mountStep{"/proc/sys", root + "/proc/sys", "", unix.MS_BIND},
			mountStep{"", root + "/proc/sys", "", readOnly},
			mountStep{"", root, "", readOnly})
	}
	if _, err := os.Stat(root + conntrackMax); err == nil {
		mounts = append(mounts, mountStep{root + conntrackMax, root + "/proc/sys/net/netfilter/nf_conntrack_max", "", unix.MS_BIND})
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %v: %w", m, err)
		}
	}
	if err := errors.Join(unix.Chroot(root), unix.Chdir("/")); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if !privileged {
		if err := confine(); err != nil {
			return err
		}
	}
	return fmt.Errorf("run %s: %w", os.Args[0], unix.Exec(os.Args[0], os.Args, nil))
}

// confine leaves CAP_NET_ADMIN only to the next program, for good.
func confine() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if c == unix.CAP_NET_ADMIN {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// TestKustomization has the API server check what kubectl makes of the directory, with the component and
// without. What the DaemonSet alone is, TestDaemonSet checks without kubectl.
func TestKustomization(t *testing.T) {
	r := newRig(t)
	if _, err := exec.LookPath("kubectl"); err != nil {
		t.Skip("this test needs the program kubectl, 1.25 or later, which Debian 12 has no package of")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(deployed)); err != nil {
		t.Fatal(err)
	}
	apply := func(dir string) {
		t.Helper()
		out, err := r.c.ns.Output(exec.Command("kubectl", "--kubeconfig", filepath.Join(r.c.dir, adminToken+".kubeconfig"),
			"apply", "--dry-run=server", "--validate=strict", "-k", dir))
		if err != nil || !strings.Contains(out, "daemonset.apps/nftproxy") {
			t.Errorf("kubectl apply --dry-run=server: %v\n%s", err, out)
		}
	}
	apply(dir)
	apply(filepath.Join(dir, "cleanup"))
	file := filepath.Join(dir, "kustomization.yaml")
	plain := string(readFile(t, file))
	for _, component := range []string{"sysctls", "by-label"} {
		text := strings.Replace(plain, "# components: ["+component+"]", "components: ["+component+"]", 1)
		if text == plain {
			t.Errorf("%s does not mention the component %s", file, component)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		apply(dir)
	}
}
