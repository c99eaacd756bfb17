package netns

import (
	"os"
	"testing"
)

// ForTest returns a namespace that lives as long as the test. Where namespaces cannot be made the test is
// skipped or, where nothing may be skipped (CI, NFTPROXY_TEST=all), fails.
func ForTest(t testing.TB) *NetNS {
	t.Helper()
	n, err := New(t.Name())
	switch {
	case err == nil:
	case os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all":
		t.Fatalf("this test makes network namespaces: %v", err)
	default:
		t.Skipf("needs root to make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close the namespace of the test: %v", err)
		}
	})
	return n
}
