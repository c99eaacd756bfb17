package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// TestReadme keeps what the README tells complete: each set, map and chain that `nft list` shows,
// each command and each flag of the daemon.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	readme := string(b)
	check := func(kind, name string) {
		if !strings.Contains(readme, "`"+name+"`") {
			t.Errorf("README.md does not tell of %s `%s`", kind, name)
		}
	}
	number := regexp.MustCompile(`-[0-9]+(-[0-9]+)?$`)
	for _, table := range plan.Compile(plan.Config{}, model.Snapshot{}, nil).Tables() {
		for i := range table.Sets {
			check("set", table.Sets[i].Name)
		}
		for i := range table.Chains {
			check("chain", number.ReplaceAllString(table.Chains[i].Name, "-M"))
		}
	}
	for _, c := range rootCommand().Commands() {
		if !strings.Contains(readme, "    nftproxy "+c.Name()) {
			t.Errorf("README.md does not tell of the command %s", c.Name())
		}
		checkFlags(t, readme, c)
	}
}

// checkFlags fails for flags of a command that the README does not name.
func checkFlags(t *testing.T, readme string, c *cobra.Command) {
	t.Helper()
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(readme, "--"+f.Name) && !strings.Contains(readme, "`-"+f.Shorthand+" ") && !strings.Contains(readme, "(-"+f.Shorthand+" ") {
			t.Errorf("README.md does not tell of the flag --%s of %s", f.Name, c.Name())
		}
	})
}
