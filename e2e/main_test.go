package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/daemon"
	"github.com/nftproxy/nftproxy/e2e/vm"
)

// proxyBinary is for where nothing can be built, such as in the machine of package vm.
var proxyBinary = flag.String("nftproxy", "", "the program to test; empty to build it")

// scheduler has all Services served by IPVS, but those that say otherwise themselves.
var scheduler = flag.String("scheduler", "", "run the program with --proxy-mode=ipvs and this scheduler")

// slow returns how long to wait for what takes d at most on a real machine: in the machine of package vm, to
// start a program or to connect takes tens of times longer.
func slow(d time.Duration) time.Duration {
	if inside {
		return 6 * d
	}
	return d
}

// inside tells whether the tests run in a machine of package vm.
var inside = vm.Inside()

// builder builds the binary once for all tests, in a directory that TestMain removes.
var builder struct {
	dir  string
	once func() (string, error)
}

// TestMain gives the tests a place for the binary.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "nftproxy-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	builder.dir = dir
	builder.once = sync.OnceValues(func() (string, error) {
		if *proxyBinary != "" {
			return filepath.Abs(*proxyBinary)
		}
		return daemon.Build(builder.dir)
	})
	if inside {
		err := vm.LoadModules(vm.RulesetModules()...)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// built returns the path of the binary. It skips the test where it cannot run, or fails it where
// nothing may be skipped.
func built(t *testing.T) string {
	t.Helper()
	missing := ""
	if unix.Geteuid() != 0 {
		missing = "root"
	}
	for _, p := range []string{"nft", "conntrack"} {
		if _, err := exec.LookPath(p); err != nil {
			missing = "the program " + p
		}
	}
	if missing != "" {
		if os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all" {
			t.Fatalf("this test needs %s", missing)
		}
		t.Skipf("this test needs %s", missing)
	}
	bin, err := builder.once()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
