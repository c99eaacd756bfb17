package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/daemon"
)

// The tokens of users that are not administrators.
const (
	// proxyToken is that of the service account of deploy/.
	proxyToken = "proxy"
	// kubeProxyToken is that of kube-proxy.
	kubeProxyToken = "kube-proxy"
	// blindToken is that of a user who may not read EndpointSlices.
	blindToken = "blind"
)

// users are the users of the tests, by their tokens.
func users() Users {
	return Users{
		proxyToken:     "system:serviceaccount:kube-system:nftproxy",
		kubeProxyToken: "system:kube-proxy",
		blindToken:     "blind",
	}
}

// shared is what the tests share: the binary and a control plane, both made when first asked for.
var shared struct {
	dir     string
	tools   *Tools
	binary  func() (string, error)
	cluster func() (*Cluster, error)
}

// TestMain gives the tests what they share and takes it away.
func TestMain(m *testing.M) {
	if root := os.Getenv(containerRoot); root != "" {
		fmt.Fprintln(os.Stderr, becomeContainer(root, os.Getenv(containerPrivileged) == "yes"))
		os.Exit(1)
	}
	os.Exit(runAll(m))
}

// runAll is TestMain without the end of the process.
func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "nftproxy-e2e-kube-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if shared.tools, err = FindTools("tools"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared.dir = dir
	shared.binary = sync.OnceValues(func() (string, error) { return daemon.Build(dir) })
	var cluster *Cluster
	shared.cluster = sync.OnceValues(func() (*Cluster, error) {
		cluster, err = Start(shared.tools, dir, users())
		if err != nil {
			return nil, err
		}
		return cluster, setUp(cluster)
	})
	code := m.Run()
	if cluster != nil {
		_ = cluster.Close()
	}
	return code
}

// setUp gives a control plane the users' rights and the nodes.
func setUp(c *Cluster) error {
	rights, err := os.ReadFile(filepath.Join("..", "..", "deploy", "kubernetes", "rbac.yaml"))
	if err != nil {
		return err
	}
	docs := string(rights) + "\n---\n" + blindDocs + "\n---\n" + nodeDocs
	// The API server makes its own namespaces a moment after it is ready.
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := c.Apply(context.Background(), docs)
		var status *StatusError
		if !errors.As(err, &status) || status.Code != 404 || time.Now().After(deadline) {
			return err
		}
	}
}

// blindDocs are the rights of the user blind: those of deploy/ without EndpointSlices.
const blindDocs = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: blind}
rules:
- {apiGroups: [""], resources: [services, nodes], verbs: [get, list, watch]}
- {apiGroups: [networking.k8s.io], resources: [servicecidrs], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: blind}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: blind}
subjects: [{kind: User, name: blind}]
`

// nodeDocs are two nodes; node-1 is the one of the tests.
const nodeDocs = `apiVersion: v1
kind: Node
metadata: {name: node-1}
spec: {podCIDR: 10.0.0.0/23, podCIDRs: [10.0.0.0/23]}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}
---
apiVersion: v1
kind: Node
metadata: {name: node-2}
spec: {podCIDR: 10.0.2.0/24, podCIDRs: [10.0.2.0/24]}
status: {addresses: [{type: InternalIP, address: 192.168.0.3}]}
`

// need skips the test, or fails it where nothing may be skipped, unless all is there to run it.
func need(t *testing.T) {
	t.Helper()
	missing := ""
	if unix.Geteuid() != 0 {
		missing = "root"
	}
	for _, p := range []string{"nft", "conntrack", "iptables"} {
		if _, err := exec.LookPath(p); err != nil {
			missing = "the program " + p
		}
	}
	switch {
	case missing == "" && testing.Short():
		t.Skip("this test runs a control plane, whose first build takes minutes")
	case missing == "":
	case os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all":
		t.Fatalf("this test needs %s", missing)
	default:
		t.Skipf("this test needs %s", missing)
	}
}
