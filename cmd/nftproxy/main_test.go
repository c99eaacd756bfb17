package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts run this program as "nftproxy" and as "kube-proxy".
func TestMain(m *testing.M) {
	if os.Getenv(countVisitsIn) != "" {
		os.Exit(runCounting(m))
	}
	testscript.Main(m, map[string]func(){"nftproxy": main, "kube-proxy": main})
}

// TestScripts runs the scripts in testdata/script: each is a session at the command line.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Condition: func(name string) (bool, error) {
			if name != "netns" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return canUnshare(), nil
		},
	})
}

// canUnshare reports whether a script can have a network namespace. Where everything must be tested
// it says yes, so that the script fails rather than being skipped.
func canUnshare() bool {
	if os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all" {
		return true
	}
	return exec.Command("unshare", "--net", "nft", "list", "tables").Run() == nil
}

// exits is a command of the scripts: `exits CODE PROGRAM ARG...` runs a program and fails unless it
// ends with the exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code program [arg...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var failed *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failed) {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%q exits with %d; want %d", args[1:], got, want)
	}
}
