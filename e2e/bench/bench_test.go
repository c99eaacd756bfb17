package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestMain lets the test be the API server, as the benchmark is.
func TestMain(m *testing.M) {
	if done, err := child(os.Args); done {
		exit(err)
	}
	os.Exit(m.Run())
}

// TestQuick runs the benchmark at two small sizes with nftproxy alone, so that it does not rot. What it
// measures is of no interest.
func TestQuick(t *testing.T) {
	missing := ""
	if unix.Geteuid() != 0 {
		missing = "root"
	}
	if _, err := exec.LookPath("nft"); err != nil {
		missing = "the program nft"
	}
	switch {
	case missing == "":
	case os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all":
		t.Fatalf("this test needs %s", missing)
	default:
		t.Skipf("this test needs %s", missing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "e2e", "bench"), 0o755); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if err := command(ctx, &stdout, &stderr, []string{"-quick", "-peer=false", "-write", "-root", root}); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	checkTable(t, stdout.String())
	if t.Failed() {
		t.Logf("%s\n%s", stdout.String(), stderr.String())
	}
	for _, name := range []string{"RESULTS.md", "one-change.svg"} {
		b, err := os.ReadFile(filepath.Join(root, "e2e", "bench", name))
		if err != nil || len(b) < 1000 {
			t.Errorf("%s has %d bytes, %v", name, len(b), err)
		}
	}
}

// checkTable fails unless there is a table of each size with every row.
func checkTable(t *testing.T, out string) {
	t.Helper()
	for _, want := range []string{"nftproxy, 100 x 10", "nftproxy, 200 x 10"} {
		if !strings.Contains(out, want) {
			t.Errorf("no table of %s", want)
		}
	}
	for _, l := range lines() {
		// The rules of so few Services may fit into memory that the kernel has at hand.
		if n := strings.Count(out, "| "+l.what+" "); n != 2 && !strings.Contains(l.what, "kernel memory") {
			t.Errorf("%q was measured %d times; want 2", l.what, n)
		}
	}
}

func TestLatency(t *testing.T) {
	ms := func(list ...int) (out []time.Duration) {
		for _, n := range list {
			out = append(out, time.Duration(n)*time.Millisecond)
		}
		return out
	}
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i
	}
	tests := []struct {
		name string
		took []time.Duration
		want Latency
	}{
		{"none", nil, Latency{}},
		{"one", ms(3), Latency{N: 1, P50: 3 * time.Millisecond, P99: 3 * time.Millisecond, Max: 3 * time.Millisecond, CPU: time.Second}},
		{"out of order", ms(hundred...), Latency{N: 100, P50: 50 * time.Millisecond, P99: 99 * time.Millisecond, Max: 100 * time.Millisecond, CPU: 10 * time.Millisecond}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, latency(tt.took, time.Second)); diff != "" {
				t.Errorf("latency (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMarkdown(t *testing.T) {
	results := []*Result{
		{Program: "a", Services: 100, Endpoints: 10, First: 1500 * time.Millisecond, Plain: Rate{1000, 900, 0.9}},
		{Program: "b", Services: 100, Endpoints: 10, Skipped: "left out"},
		{Program: "a", Services: 200, Endpoints: 10},
	}
	groups := bySize(results)
	if len(groups) != 2 || len(groups[0]) != 2 {
		t.Fatalf("groups = %v; want two, the first with two results", groups)
	}
	var out strings.Builder
	if err := markdown(&out, table(groups[0])); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| a, 100 x 10", "| 1.5 s", "| left out", "| 1000 / 900 (0.90)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
}

// TestSections checks that a document keeps the sections of other sizes, and that the plot is read from it.
func TestSections(t *testing.T) {
	c := &config{}
	made, err := c.sections([]*Result{
		{Program: "a", Services: 200, Endpoints: 10, First: time.Second, Replace: Latency{N: 3, P50: 1500 * time.Microsecond}},
		{Program: "b", Services: 200, Endpoints: 10, First: time.Second, Replace: Latency{N: 3, P50: 2 * time.Second}},
		{Program: "a", Services: 1000, Endpoints: 10, First: time.Second, Stopped: "tired"},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := document("make bench", "How.\n", "", made)
	got := sections(text)
	if diff := cmp.Diff(made, got); diff != "" {
		t.Errorf("sections of what was written (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]float64{"a": 1.5, "b": 2000}, medians(got[200])); diff != "" {
		t.Errorf("medians (-want +got):\n%s", diff)
	}
	if got := medians(got[1000]); len(got) > 0 {
		t.Errorf("medians of what was not measured = %v; want none", got)
	}
}
