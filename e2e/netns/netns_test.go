package netns

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newNetNS makes a namespace for a test. It skips the test, or fails it where nothing may be skipped,
// unless namespaces can be made.
func newNetNS(t *testing.T) *NetNS {
	t.Helper()
	if unix.Geteuid() != 0 {
		if os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all" {
			t.Fatal("this test makes network namespaces: it needs root")
		}
		t.Skip("this test makes network namespaces: it needs root")
	}
	n, err := New("test")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// links returns the names of the interfaces of the calling thread's namespace.
func links(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range all {
		names = append(names, l.Name)
	}
	return strings.Join(names, " ")
}

func TestDo(t *testing.T) {
	n := newNetNS(t)
	defer n.Close()
	before := links(t)
	if err := n.Do(func() error {
		if got, want := links(t), "lo"; got != want {
			t.Errorf("interfaces inside = %q; want %q", got, want)
		}
		return exec.Command("ip", "link", "add", "inside0", "type", "bridge").Run()
	}); err != nil {
		t.Fatal(err)
	}
	if got := links(t); got != before {
		t.Errorf("interfaces outside = %q; want %q", got, before)
	}
	out, err := n.Output(exec.Command("ip", "-o", "link"))
	if err != nil || !strings.Contains(out, "inside0") {
		t.Errorf("ip link inside = %q, %v; want inside0 in it", out, err)
	}
}

// TestCloseKills starts a program that never ends: closing the namespace ends it.
func TestCloseKills(t *testing.T) {
	n := newNetNS(t)
	cmd := exec.Command("sleep", "1000")
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("the program outlived the namespace by 10 s")
	}
	if err := n.Start(exec.Command("true")); err == nil {
		t.Error("Start in a closed namespace = nil; want an error")
	}
}

func TestOutputError(t *testing.T) {
	n := newNetNS(t)
	defer n.Close()
	_, err := n.Output(exec.Command("ip", "link", "show", "nowhere0"))
	if err == nil || !strings.Contains(err.Error(), "nowhere0") {
		t.Errorf("Output = %v; want what the program said", err)
	}
}
