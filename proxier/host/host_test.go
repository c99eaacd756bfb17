package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSettings(t *testing.T) {
	tests := []struct {
		name string
		c    Conntrack
		cpus int
		want string
	}{
		{"nothing asked for", Conntrack{}, 4, ""},
		{"the minimum counts only with a number per CPU", Conntrack{Min: 1000}, 4, ""},
		{"a small machine gets the minimum", Conntrack{MaxPerCore: 32768, Min: 131072}, 2, "net.netfilter.nf_conntrack_max=131072 /sys/module/nf_conntrack/parameters/hashsize=32768"},
		{"a large machine gets more", Conntrack{MaxPerCore: 32768, Min: 131072}, 8, "net.netfilter.nf_conntrack_max=262144 /sys/module/nf_conntrack/parameters/hashsize=65536"},
		{"a huge machine gets no more than a million", Conntrack{MaxPerCore: 32768, Min: 131072}, 256, "net.netfilter.nf_conntrack_max=1048576 /sys/module/nf_conntrack/parameters/hashsize=262144"},
		{"a minimum that somebody asks for may be more", Conntrack{MaxPerCore: 1, Min: 2 << 20}, 1, "net.netfilter.nf_conntrack_max=2097152 /sys/module/nf_conntrack/parameters/hashsize=524288"},
		{"kube-proxy's times", Conntrack{TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour}, 1, "net.netfilter.nf_conntrack_tcp_timeout_established=86400 net.netfilter.nf_conntrack_tcp_timeout_close_wait=3600"},
		{"all times", Conntrack{TCPBeLiberal: true, UDP: 10 * time.Second, UDPStream: time.Minute}, 1, "net.netfilter.nf_conntrack_tcp_be_liberal=1 net.netfilter.nf_conntrack_udp_timeout=10 net.netfilter.nf_conntrack_udp_timeout_stream=60"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := text(tt.c.Settings(tt.cpus)); got != tt.want {
				t.Errorf("Settings(%d) = %s; want %s", tt.cpus, got, tt.want)
			}
		})
	}
}

// text returns settings as one line.
func text(settings []Setting) string {
	words := make([]string, len(settings))
	for i, s := range settings {
		words[i] = s.String()
	}
	return strings.Join(words, " ")
}

// root makes a file system with files.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestApply(t *testing.T) {
	dir := root(t, map[string]string{"proc/sys/less": "5\n", "proc/sys/same": "7\n", "sys/more": "9\n", "sys/few": "1\n"})
	settings := []Setting{
		{Path: "proc/sys/less", Value: 7},
		{Path: "proc/sys/same", Value: 7},
		{Path: "sys/more", Value: 7, AtLeast: true},
		{Path: "sys/none", Value: 7, Spare: true},
		{Path: "sys/few", Value: 7, AtLeast: true},
	}
	// A write would change the time of what is right already.
	same := filepath.Join(dir, "proc/sys/same")
	old := time.Unix(1, 0)
	if err := os.Chtimes(same, old, old); err != nil {
		t.Fatal(err)
	}
	written, spared, err := Apply(dir, settings)
	if err != nil || !errors.Is(spared, fs.ErrNotExist) {
		t.Errorf("Apply() spares %v and fails with %v; want only the missing file spared", spared, err)
	}
	if got, want := text(written), "less=7 /sys/few=7"; got != want {
		t.Errorf("Apply() wrote %s; want %s", got, want)
	}
	if info, err := os.Stat(same); err != nil || !info.ModTime().Equal(old) {
		t.Errorf("Apply() wrote a value that was there already (%v)", err)
	}
	got := map[string]string{}
	for _, name := range []string{"proc/sys/less", "proc/sys/same", "sys/more", "sys/few"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got[name] = strings.TrimSpace(string(b))
	}
	want := map[string]string{"proc/sys/less": "7", "proc/sys/same": "7", "sys/more": "9", "sys/few": "7"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files after Apply() (-want +got):\n%s", diff)
	}
	if written, _, err := Apply(dir, settings); err != nil || len(written) > 0 {
		t.Errorf("second Apply() = %s, %v; want nothing written", text(written), err)
	}
}

func TestApplyFails(t *testing.T) {
	dir := root(t, map[string]string{"proc/sys/net/x": "what", "proc/sys/later": "1"})
	tests := []struct {
		name string
		path string
		want string
	}{
		{"a file that is missing", "proc/sys/net/none", "set net.none=7: open "},
		{"a file that holds no number", "proc/sys/net/x", `set net.x=7: it is "what"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			written, _, err := Apply(dir, []Setting{{Path: tt.path, Value: 7}, {Path: "proc/sys/later", Value: 2}})
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(written) > 0 {
				t.Errorf("Apply() = %s, %v; want nothing and %q", text(written), err, tt.want)
			}
		})
	}
}

func TestCPUs(t *testing.T) {
	tests := []struct {
		online string
		want   int
	}{{"0\n", 1}, {"0-3\n", 4}, {"0-3,5,8-9\n", 7}}
	for _, tt := range tests {
		if got := CPUs(root(t, map[string]string{"sys/devices/system/cpu/online": tt.online})); got != tt.want {
			t.Errorf("CPUs() with %q online = %d; want %d", tt.online, got, tt.want)
		}
	}
	for _, online := range []string{"", "3-0", "x"} {
		if got := CPUs(root(t, map[string]string{"sys/devices/system/cpu/online": online})); got < 1 {
			t.Errorf("CPUs() with %q online = %d; want that of the process", online, got)
		}
	}
}

func TestSetOOMScore(t *testing.T) {
	dir := root(t, map[string]string{"proc/self/oom_score_adj": "0\n"})
	if err := SetOOMScore(dir, -999); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "proc/self/oom_score_adj")); err != nil || string(b) != "-999" {
		t.Errorf("oom_score_adj = %q, %v; want -999", b, err)
	}
	if err := SetOOMScore(t.TempDir(), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("SetOOMScore() without the file = %v; want that it is missing", err)
	}
}
