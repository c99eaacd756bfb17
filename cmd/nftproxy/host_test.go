package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeProc returns a directory with the given files.
func fakeProc(t *testing.T, files map[string]string) string {
	t.Helper()
	proc := t.TempDir()
	for name, content := range files {
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return proc
}

func TestHasIPv6(t *testing.T) {
	const disabled = "sys/net/ipv6/conf/all/disable_ipv6"
	tests := []struct {
		name  string
		files map[string]string
		want  bool
	}{
		{"OK", map[string]string{"net/if_inet6": "", disabled: "0\n"}, true},
		{"bad no IPv6 in the kernel", nil, false},
		{"bad switched off", map[string]string{"net/if_inet6": "", disabled: "1\n"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := hasIPv6(fakeProc(t, tt.files)); got != tt.want {
				t.Errorf("hasIPv6() = %v; want %v", got, tt.want)
			}
		})
	}
}

func TestHostWarnings(t *testing.T) {
	const v4, v6 = "sys/net/ipv4/ip_forward", "sys/net/ipv6/conf/all/forwarding"
	const warn4 = "sysctl net.ipv4.ip_forward is 0: this node does not forward IPv4 to pods"
	const warn6 = "sysctl net.ipv6.conf.all.forwarding is 0: this node does not forward IPv6 to pods"
	tests := []struct {
		name  string
		files map[string]string
		ipv6  bool
		want  []string
	}{
		{"OK both", map[string]string{v4: "1\n", v6: "1\n"}, true, nil},
		{"bad both", map[string]string{v4: "0\n", v6: "0\n"}, true, []string{warn4, warn6}},
		{"bad IPv4, no IPv6", map[string]string{v4: "0\n", v6: "0\n"}, false, []string{warn4}},
		{"OK unknown", nil, true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, hostWarnings(fakeProc(t, tt.files), tt.ipv6)); diff != "" {
				t.Errorf("hostWarnings differs (-want +got):\n%s", diff)
			}
		})
	}
}
