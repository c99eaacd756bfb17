package nft_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// run runs a shell script in a network namespace of its own. It needs root and nft 1.0.6.
func run(t *testing.T, script string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("nft"); os.Geteuid() != 0 || err != nil {
		if os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all" {
			t.Fatal("needs root and nft 1.0.6 or newer")
		}
		t.Skip("needs root and nft 1.0.6 or newer")
	}
	cmd := exec.Command("unshare", append([]string{"-n", "sh", "-ec", script, "sh"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// file writes text to a file and returns its name.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ruleset.nft")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// text returns the text of both tables.
func text(tables []nft.Table) string {
	var b strings.Builder
	for i := range tables {
		b.WriteString(tables[i].String())
	}
	return b.String()
}

// lines returns the lines of a listing with its elements sorted.
func lines(text string) []string { return strings.Split(nfttest.Sorted(text), "\n") }

// TestTableText loads our text with nft and expects it back in the listing.
func TestTableText(t *testing.T) {
	want := text(nfttest.Tables())
	got := run(t, `nft -c -f "$1"; nft -f "$1"; nft list ruleset`, file(t, want))
	if diff := cmp.Diff(lines(want), lines(got)); diff != "" {
		t.Errorf("nft lists other text than it loaded (-loaded +listed):\n%s", diff)
	}
}

// TestTxText loads the script of a transaction that makes all, and then that which removes all.
func TestTxText(t *testing.T) {
	tables := nfttest.Tables()
	got := run(t, `nft -c -f "$1"; nft -f "$1"; nft list ruleset`, file(t, nfttest.Make(tables).String()))
	if diff := cmp.Diff(lines(text(tables)), lines(got)); diff != "" {
		t.Errorf("nft lists another table than the script makes (-want +got):\n%s", diff)
	}
	got = run(t, `nft -f "$1"; nft -f "$2"; nft list ruleset`,
		file(t, nfttest.Make(tables).String()), file(t, nfttest.Remove(tables).String()))
	if want := "table ip everything {\n\tcomment \"everything that we can say\"\n}\ntable ip6 everything {\n\tcomment \"everything that we can say\"\n}\n"; got != want {
		t.Errorf("after Remove(tables) nft lists\n%s; want\n%s", got, want)
	}
}
