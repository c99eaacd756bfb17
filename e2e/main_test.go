package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/daemon"
)

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
	builder.dir = dir
	builder.once = sync.OnceValues(func() (string, error) { return daemon.Build(builder.dir) })
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
