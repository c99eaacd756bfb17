package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"k8s.io/client-go/rest"
)

// kubeconfig is one that names a server and a token.
const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

// parseRun returns what the command line of run means.
func parseRun(t *testing.T, args ...string) config {
	t.Helper()
	cfg, err := parse(t, append([]string{"--hostname-override=n", "--cluster-cidr=10.0.0.0/8"}, args...)...)
	if err != nil {
		t.Fatalf("config(%q): %v", args, err)
	}
	return cfg
}

func TestClientConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	const protobuf = "application/vnd.kubernetes.protobuf"
	tests := []struct {
		name       string
		args       []string
		host       string
		token      string
		wantType   string
		wantAccept string
		qps        float32
		burst      int
	}{
		{"OK a kubeconfig", []string{"--kubeconfig=" + path}, "https://192.0.2.1:6443", "t", protobuf, protobuf + ",application/json", 5, 10},
		{"OK another server", []string{"--kubeconfig=" + path, "--master=https://192.0.2.2"}, "https://192.0.2.2", "t", protobuf, protobuf + ",application/json", 5, 10},
		{"OK a server alone", []string{"--master=http://192.0.2.2:8080"}, "http://192.0.2.2:8080", "", protobuf, protobuf + ",application/json", 5, 10},
		{"OK JSON, and the pace", []string{"--kubeconfig=" + path, "--kube-api-content-type=application/json", "--kube-api-qps=50", "--kube-api-burst=100"}, "https://192.0.2.1:6443", "t", "application/json", "application/json", 50, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := clientConfig(parseRun(t, tt.args...))
			if err != nil {
				t.Fatal(err)
			}
			type view struct {
				Host, Token, ContentType, Accept, UserAgent string
				QPS                                         float32
				Burst                                       int
			}
			see := func(c *rest.Config) view {
				return view{c.Host, c.BearerToken, c.ContentType, c.AcceptContentTypes, strings.SplitAfter(c.UserAgent, "/")[0], c.QPS, c.Burst}
			}
			if diff := cmp.Diff(view{tt.host, tt.token, tt.wantType, tt.wantAccept, "nftproxy/", tt.qps, tt.burst}, see(got)); diff != "" {
				t.Errorf("clientConfig(%q) (-want +got):\n%s", tt.args, diff)
			}
		})
	}
}

func TestSources(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		want   string
		client bool
	}{
		{"OK manifests", []string{"--manifests=/m"}, "manifests /m, node addresses", false},
		{"OK Kubernetes", []string{"--master=http://192.0.2.2:8080"}, "kubernetes, node addresses", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, client, err := sources(parseRun(t, tt.args...), zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range list {
				names = append(names, s.String())
			}
			if got := strings.Join(names, ", "); got != tt.want || (client != nil) != tt.client {
				t.Errorf("sources(%q) = %s, client %t; want %s, %t", tt.args, got, client != nil, tt.want, tt.client)
			}
		})
	}
}
