package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/netns"
)

const (
	// apiAddress is where the API server is, in its namespace and, through a gate, on a node.
	apiAddress = "127.0.0.1:6443"
	// adminToken is the token of the administrator.
	adminToken = "administrator"
	// patience is how long a part may take until it is ready.
	patience = 2 * time.Minute
)

// Users are the users beside the administrator, by their tokens.
type Users map[string]string

// A Cluster is a control plane without nodes.
type Cluster struct {
	*Client
	tools              *Tools
	dir                string
	users              Users
	ns                 *netns.NetNS
	etcd, api, manager *process
}

// StartEtcd makes the namespace and files of a control plane in a directory and starts its store.
func StartEtcd(tools *Tools, dir string, users Users) (*Cluster, error) {
	ns, err := netns.New("control plane")
	if err != nil {
		return nil, err
	}
	c := &Cluster{tools: tools, dir: dir, users: users, ns: ns}
	err = errors.Join(loopback(ns), writePKI(dir), c.writeFiles(), c.newClient())
	if err == nil {
		c.etcd, err = c.start(Etcd, "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--quota-backend-bytes=4294967296", "--log-level=warn")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a control plane: %w", err), c.Close())
	}
	return c, nil
}

// Start starts a whole control plane and waits until it is ready.
func Start(tools *Tools, dir string, users Users) (*Cluster, error) {
	c, err := StartEtcd(tools, dir, users)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.StartAPI(), c.StartManager()); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// loopback brings the loopback interface of a namespace up.
func loopback(ns *netns.NetNS) error {
	h, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// writeFiles writes the tokens and the administrator's configuration.
func (c *Cluster) writeFiles() error {
	tokens := adminToken + `,admin,admin,"system:masters"` + "\n"
	for token, user := range c.users {
		tokens += fmt.Sprintf("%s,%s,%s,\"system:authenticated\"\n", token, user, user)
	}
	_, err := c.Kubeconfig(adminToken)
	return errors.Join(err, os.WriteFile(filepath.Join(c.dir, "tokens.csv"), []byte(tokens), 0o600))
}

// Kubeconfig writes a configuration of a client with a token and returns its path.
func (c *Cluster) Kubeconfig(token string) (string, error) {
	path := filepath.Join(c.dir, token+".kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: "https://%s", certificate-authority: %q}}]
users: [{name: e2e, user: {token: %s}}]
contexts: [{name: e2e, context: {cluster: e2e, user: e2e}}]
current-context: e2e
`, apiAddress, filepath.Join(c.dir, "server.crt"), token)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// newClient makes the administrator's client.
func (c *Cluster) newClient() error {
	pem, err := os.ReadFile(filepath.Join(c.dir, "server.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c.Client = &Client{http: &http.Client{Transport: &http.Transport{
		DialContext:         func(context.Context, string, string) (net.Conn, error) { return dialIn(c.ns) },
		TLSClientConfig:     &tls.Config{RootCAs: roots},
		MaxIdleConnsPerHost: 16,
	}}}
	return nil
}

// StartAPI starts the API server and waits until it is ready.
func (c *Cluster) StartAPI() (err error) {
	file := func(name string) string { return filepath.Join(c.dir, name) }
	c.api, err = c.start(APIServer, "--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=127.0.0.1", "--secure-port=6443", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--tls-cert-file", file("server.crt"), "--tls-private-key-file", file("server.key"),
		"--token-auth-file", file("tokens.csv"), "--authorization-mode=RBAC", "--anonymous-auth=false",
		"--service-account-issuer=https://e2e", "--service-account-key-file", file("sa.key"), "--service-account-signing-key-file", file("sa.key"),
		"--disable-admission-plugins=ServiceAccount", "--allow-privileged",
		"--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112")
	if err != nil {
		return err
	}
	return c.api.wait("the API server is ready", func() error {
		return c.Get(context.Background(), "/readyz", nil)
	})
}

// KillAPI kills the API server, as a machine does that loses power.
func (c *Cluster) KillAPI() {
	c.api.kill()
	c.http.CloseIdleConnections()
}

// StartManager starts the controllers that have to do with Services.
func (c *Cluster) StartManager() (err error) {
	c.manager, err = c.start(ControllerManager, "--kubeconfig", filepath.Join(c.dir, adminToken+".kubeconfig"),
		"--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=10257",
		"--authentication-skip-lookup", "--concurrent-service-endpoint-syncs=5",
		"--controllers=endpointslice-controller,endpointslice-mirroring-controller,service-cidr-controller,namespace-controller")
	return err
}

// Close ends all parts and gives up the namespace.
func (c *Cluster) Close() error {
	for _, p := range []*process{c.manager, c.api, c.etcd} {
		if p != nil {
			p.kill()
		}
	}
	return c.ns.Close()
}

// A process is a running program.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *netns.Buffer
	done chan struct{} // closed when it has ended
}

// start starts a program in the control plane's namespace.
func (c *Cluster) start(p Program, args ...string) (*process, error) {
	bin, err := c.tools.Path(p)
	if err != nil {
		return nil, err
	}
	return startProcess(c.ns, exec.Command(bin, args...))
}

// startProcess starts a program in a namespace.
func startProcess(ns *netns.NetNS, cmd *exec.Cmd) (*process, error) {
	r := &process{name: filepath.Base(cmd.Path), cmd: cmd, log: &netns.Buffer{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = r.log, r.log
	if err := ns.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", r.name, err)
	}
	go func() {
		_ = cmd.Wait()
		close(r.done)
	}()
	return r, nil
}

// kill kills the process and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// wait polls until try succeeds or the process has ended.
func (p *process) wait(what string, try func() error) error {
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before %s: %s", p.name, what, tail(p.log.String()))
		default:
		}
		if err = try(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("not within %v: %s: %w: %s", patience, what, err, tail(p.log.String()))
}

// tail returns the end of a log.
func tail(s string) string { return s[max(0, len(s)-4000):] }

// end asks the process to end and returns an error if it did not end well, or not at once.
func (p *process) end() error {
	_ = p.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-p.done:
		if !p.cmd.ProcessState.Success() {
			return fmt.Errorf("%s: %s", p.name, p.cmd.ProcessState)
		}
		return nil
	case <-time.After(20 * time.Second):
		p.kill()
		return fmt.Errorf("%s did not end within 20 s of SIGTERM", p.name)
	}
}
