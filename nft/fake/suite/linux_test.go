package suite_test

import (
	"testing"

	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/nft/fake/suite"
	"github.com/nftproxy/nftproxy/nft/kernel"
)

// TestLinux runs the suite on Linux, each test in a network namespace of its own.
func TestLinux(t *testing.T) {
	suite.Run(t, func(t *testing.T) suite.Kernel {
		n := netns.ForTest(t)
		c, err := kernel.Dial(kernel.Config{NetNS: n.FD()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	})
}
