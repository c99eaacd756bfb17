package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/coverage"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
)

// countVisitsIn names the directory for the counters, in the environment of the test that counts.
const countVisitsIn = "NFTPROXY_COUNT_VISITS"

// visitRounds is how often each change is done while it is counted.
const visitRounds = 8

// tooManyVisits reports whether a block of code that runs so often among few and among many Services looks at
// all of them. The maps are trees, one level deeper among many: their blocks run up to 1.9 times as often. A
// loop over all Services runs ten times as often, and is too much even if only one round has it.
func tooManyVisits(amongFew, amongMany int) bool {
	return amongMany > 2*amongFew+many/4
}

// TestChangeVisits counts how often each block of the program runs for a change, among few Services and among
// many, in several worlds. Like TestChangeCost it times nothing, and it sees a loop over all Services that allocates nothing, too,
// but not one inside a package that is not ours. It runs itself with counters.
func TestChangeVisits(t *testing.T) {
	if dir := os.Getenv(countVisitsIn); dir != "" {
		countVisits(t, dir)
		return
	}
	dir := t.TempDir()
	c := exec.CommandContext(t.Context(), "go", "test", "-run", "^$", "-count=1", "-vet=off",
		"-covermode=atomic", "-coverpkg="+module+"/...", ".")
	c.Env = append(os.Environ(), countVisitsIn+"="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", c, err, out)
	}
	for _, w := range worlds() {
		for _, change := range guardedChanges() {
			t.Run(w.name+"/"+change.name, func(t *testing.T) {
				a, b := visits(t, visitsDir(dir, w, change, few)), visits(t, visitsDir(dir, w, change, many))
				if len(a) == 0 {
					t.Fatal("nothing was counted")
				}
				for _, block := range slices.Sorted(maps.Keys(b)) {
					if tooManyVisits(a[block], b[block]) {
						t.Errorf("%s runs %d times among %d Services and %d times among %d: it looks at all of them",
							block, a[block], few, b[block], many)
					}
				}
			})
		}
	}
}

// worlds returns the worlds in which visits are counted.
func worlds() []world {
	return []world{
		{name: "TCP", protocol: v1.ProtocolTCP},
		{name: "UDP", protocol: v1.ProtocolUDP},
		{name: "IPVS", protocol: v1.ProtocolTCP, ipvs: true},
		{name: "IPVS-UDP", protocol: v1.ProtocolUDP, ipvs: true},
	}
}

// runCounting runs TestChangeVisits where it counts. Counters can be read after a first run only, here one
// without tests.
func runCounting(m *testing.M) int {
	if code := m.Run(); code != 0 {
		return code
	}
	if err := flag.Set("test.run", "^TestChangeVisits$"); err != nil {
		panic(err)
	}
	return m.Run()
}

// visitsDir returns the directory for the counters of a change in a world with n Services.
func visitsDir(dir string, w world, change guardedChange, n int) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%s-%d", w.name, change.name, n))
}

// countVisits does the changes and writes the counters of each to a directory below dir.
func countVisits(t *testing.T, dir string) {
	t.Helper()
	for _, w := range worlds() {
		for _, change := range guardedChanges() {
			for _, n := range []int{few, many} {
				synctest.Test(t, func(t *testing.T) { countChange(t, guard(t, w, n), change, visitsDir(dir, w, change, n)) })
			}
		}
	}
}

// countChange writes the counters of a change to a directory. In the bubble it can wait for all that a change
// sets off, what is put off for some seconds included, and ends before the virtual servers are checked, which
// is once a minute.
func countChange(t *testing.T, g *guarded, change guardedChange, to string) {
	t.Helper()
	do := func(round int) {
		g.send(func() { change.do(g, round) })
		time.Sleep(3 * time.Second)
		synctest.Wait()
	}
	do(0)
	if err := errors.Join(os.Mkdir(to, 0o700), coverage.WriteMetaDir(to), coverage.ClearCounters()); err != nil {
		t.Fatal(err)
	}
	for round := range visitRounds {
		do(1 + round)
	}
	if err := coverage.WriteCountersDir(to); err != nil {
		t.Fatal(err)
	}
}

// visits reads how often each block ran, by file and line.
func visits(t *testing.T, dir string) map[string]int {
	t.Helper()
	name := filepath.Join(dir, "text")
	c := exec.CommandContext(t.Context(), "go", "tool", "covdata", "textfmt", "-i="+dir, "-o="+name)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", c, err, out)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for line := range strings.Lines(string(text)) {
		// A line is file:line.column,line.column statements count.
		fields := strings.Fields(strings.TrimPrefix(line, module+"/"))
		if len(fields) != 3 {
			continue
		}
		n, err := strconv.Atoi(fields[2])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out[fields[0]] = n
	}
	return out
}
