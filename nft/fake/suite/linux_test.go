package suite_test

import (
	"os"
	"testing"

	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/nft/fake/suite"
	"github.com/nftproxy/nftproxy/nft/kernel"
)

// TestLinux runs the suite on Linux, each test in a network namespace of its own.
func TestLinux(t *testing.T) {
	suite.Run(t, func(t *testing.T) suite.Kernel {
		n, err := netns.New(t.Name())
		if err != nil {
			if os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all" {
				t.Fatal(err)
			}
			t.Skipf("needs root to make a network namespace: %v", err)
		}
		t.Cleanup(func() { n.Close() })
		c, err := kernel.Dial(kernel.Config{NetNS: n.FD()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	})
}
