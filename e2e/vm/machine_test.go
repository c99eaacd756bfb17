package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// testEnv is a variable that tells that the environment reached the machine.
const testEnv = "NFTPROXY_VM_TEST"

// build builds the exec program as `make test-vm` does.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "vm")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "github.com/nftproxy/nftproxy/e2e/vm/exec")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the exec program: %v\n%s", err, out)
	}
	return bin
}

// TestMachine runs this test binary in a machine, for TestInside alone, and looks at what comes out.
func TestMachine(t *testing.T) {
	if Inside() {
		t.Skip("this test starts a machine, and runs in one")
	}
	needRoot(t)
	need(t, "qemu-system-x86_64", "busybox", "apt-get", "dpkg", "nft")
	if testing.Short() {
		t.Skip("this test starts a virtual machine")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(build(t), self, "-test.run=^TestInside$", "-test.v")
	cmd.Env = append(os.Environ(), testEnv+"=a value", "NFTPROXY_TEST=")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != insideStatus {
		t.Errorf("exit = %v; want status %d", err, insideStatus)
	}
	if !strings.Contains(stdout.String(), "--- PASS: TestInside") {
		t.Errorf("stdout = %s", &stdout)
	}
	if !strings.HasSuffix(stderr.String(), insideWords) {
		t.Errorf("stderr = %q; want %q at its end", &stderr, insideWords)
	}
}

// What TestInside leaves behind.
const (
	insideStatus = 42
	insideWords  = "these words\nare for stderr\n"
)

// TestMain gives TestMachine words on stderr and an exit status to see.
func TestMain(m *testing.M) {
	code := m.Run()
	if Inside() && os.Getenv(testEnv) != "" && code == 0 {
		fmt.Fprint(os.Stderr, insideWords)
		code = insideStatus
	}
	os.Exit(code)
}

// TestInside is what must be so in a machine.
func TestInside(t *testing.T) {
	if !Inside() {
		t.Skip("this test runs in a virtual machine: TestMachine and `make test-vm` do that")
	}
	if uid := os.Getuid(); uid != 0 {
		t.Errorf("uid = %d; want 0", uid)
	}
	if v := os.Getenv(testEnv); v != "" && v != "a value" {
		t.Errorf("%s = %q", testEnv, v)
	}
	if _, err := os.Stat("machine_test.go"); err != nil {
		t.Errorf("the working directory is not the package's: %v", err)
	}
	// Nothing has asked for IPVS yet: the kernel loads it.
	if f, err := netlink.GenlFamilyGet("IPVS"); err != nil {
		t.Errorf("ask for the netlink family of IPVS: %v", err)
	} else {
		t.Logf("IPVS is family %d", f.ID)
	}
	if out, err := exec.Command("nft", "add table ip t; add chain ip t c { type nat hook prerouting priority -100; }; list ruleset").CombinedOutput(); err != nil || !strings.Contains(string(out), "table ip t") {
		t.Errorf("nft: %v\n%s", err, out)
	}
	dummy := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "kube-ipvs0"}}
	if err := netlink.LinkAdd(dummy); err != nil {
		t.Errorf("add a dummy device: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen on the loopback interface: %v", err)
	}
	defer l.Close()
	if c, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "file"), []byte("text"), 0o644); err != nil {
		t.Error(err)
	}
}

// TestEnds starts a program that never ends in a machine, and takes the machine away.
func TestEnds(t *testing.T) {
	if Inside() {
		t.Skip("this test starts a machine, and runs in one")
	}
	needRoot(t)
	need(t, "qemu-system-x86_64", "busybox", "apt-get", "dpkg")
	if testing.Short() {
		t.Skip("this test starts a virtual machine")
	}
	k, err := FindKernel()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m := Machine{Kernel: k, Init: build(t), Memory: 512, CPUs: 1}
	said := writer(func(p []byte) { cancel() })
	_, err = m.Run(ctx, Command{Path: "/bin/sh", Args: []string{"-c", "echo up; sleep 1000"}, Env: os.Environ(), Dir: "/"}, said, os.Stderr)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v; want %v", err, context.Canceled)
	}
	if _, err := m.Run(context.Background(), Command{Path: "/no/such/program", Dir: "/"}, os.Stdout, os.Stderr); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("run a program that is not there: %v; want an error", err)
	}
}

// A writer is a function that is an [io.Writer].
type writer func(p []byte)

// Write calls the function.
func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}
