package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// ipvsExplained says it of the mode ipvs.
const ipvsExplained = `Both programs ran in turn in the mode ipvs with the scheduler rr, in one virtual machine with a kernel that has IPVS
(e2e/vm), without hardware acceleration: all is much slower than on a real machine, and only the comparison counts. See
RESULTS.md for what is measured. IPVS does not notify changes: its virtual servers are looked at every millisecond.
`

// explained says in the results how they were made.
const explained = `At each size both programs ran in turn, each in a network namespace of its own, before the same API server. That is a small one of
our own (e2e/bench/apiserver), a process that lists and watches like the real one, in protobuf, with objects like
the real ones: the real one takes hours to create 50,000 Services.

* First sync: from the start of the process until the kernel holds the front end of every Service, asked for every 2 ms,
  and in the end every 250 ms.
* One change: from the moment before the API server writes the event to the socket until the kernel's notification of
  the commit arrives, which the kernel sends after it. One change at a time, each after the one before was done, and for
  kube-proxy after its minSyncPeriod of 1 s was over, so that it does not count. A Service that is added is there when its
  endpoints are; it comes with two events, and where kube-proxy syncs after the first it waits 1 s for the second. At p99 of fewer than 100 times stands the
  largest. CPU is what the program used, with the programs that it ran, until it was at rest.
* Burst: changes of 1,000 Services written at once. Rolling update: 1,000 endpoints are added, and each time an old
  one is removed, 100 in a second.
* Restart: the program ends, a Service comes, the program starts; until the kernel holds that Service. Meanwhile a
  client connects about a thousand times in a second; a connection fails if it does not come about within a second.
* Resident memory is that of the program after all changes, and its peak; of kube-proxy without the nft processes that
  it runs. Kernel memory: how much more of SUnreclaim, VmallocUsed and Percpu of /proc/meminfo there was after the first sync.
* kube-proxy: what it did not begin within ten minutes of its start at a size is not measured ("-").
* New connections: TCP, made and broken off at once, by two clients from 250 addresses through the node, in rounds
  that take turns: straight to ten endpoints, through a Service with the same ten, through one with session affinity and 100.
  Most of that is the work of TCP at both ends. First packets: only those (SYNs), from one thread, dropped by the
  server, 100,000 in each round: from 250 addresses, and from 30,000 as clients of a busy Service are.
* Another's transaction: another process adds an element to a table of its own every 5 ms during the first load of
  nftproxy, which is one more, by itself.
`

// writeResults writes RESULTS.md and the plot. What RESULTS.md has of other sizes stays.
func (c *config) writeResults(results []*Result) error {
	path := filepath.Join(c.root, "e2e", "bench", "RESULTS.md")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all := sections(string(old))
	now, err := c.sections(results)
	if err != nil {
		return err
	}
	maps.Copy(all, now)
	text := document("make bench", explained, "![One endpoint replaced, by the number of Services](one-change.svg)\n\n", all)
	return errors.Join(os.WriteFile(path, []byte(text), 0o644), drawPlot(filepath.Join(c.root, "e2e", "bench", "one-change.svg"), all))
}

// document returns the results of all sizes with what belongs to them.
func document(title, how, picture string, all map[int]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Results of `%s`\n\n%s\n%s", title, how, picture)
	for _, n := range slices.Sorted(maps.Keys(all)) {
		b.WriteString(all[n])
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// sections returns a section for each size: what was measured, when and where.
func (c *config) sections(results []*Result) (map[int]string, error) {
	all := map[int]string{}
	for _, group := range bySize(results) {
		var b strings.Builder
		fmt.Fprintf(&b, "## %d Services\n\n%s; Linux %s; %s, %d CPUs; %s\n\n", group[0].Services,
			time.Now().UTC().Format(time.DateOnly), kernelRelease(), cpuModel(), runtime.NumCPU(), c.versions())
		if err := c.tables(&b, group); err != nil {
			return nil, err
		}
		all[group[0].Services] = b.String()
	}
	return all, nil
}

// sections returns the sections of a document, by the number of Services.
func sections(text string) map[int]string {
	all := map[int]string{}
	for i, part := range strings.Split(text, "\n## ") {
		number, _, _ := strings.Cut(part, " ")
		if n, err := strconv.Atoi(number); err == nil && i > 0 {
			all[n] = "## " + strings.TrimRight(part, "\n") + "\n\n"
		}
	}
	return all
}

// versions returns the versions of the programs.
func (c *config) versions() string {
	var words []string
	for _, p := range c.programs {
		words = append(words, p.version)
	}
	return strings.Join(words, "; ")
}

// kernelRelease returns the release of the kernel.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// cpuModel returns the name of the CPU.
func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	m := regexp.MustCompile(`(?m)^model name\s*:\s*(.*)$`).FindSubmatch(b)
	if err != nil || m == nil {
		return runtime.GOARCH
	}
	return string(m[1])
}

// replaced begins the row of the tables that is drawn.
const replaced = "one endpoint replaced: p50 /"

// medians returns the medians of one endpoint replaced that a section tells, in milliseconds, by program.
func medians(section string) map[string]float64 {
	out := map[string]float64{}
	var programs []string
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if what := strings.TrimSpace(cells[0]); what == "" && programs == nil {
			for _, head := range cells[1:] {
				name, _, _ := strings.Cut(strings.TrimSpace(head), ",")
				programs = append(programs, name)
			}
		} else if strings.HasPrefix(what, replaced) {
			for i, cell := range cells[1:] {
				first, _, _ := strings.Cut(cell, " / ")
				if d, err := time.ParseDuration(strings.ReplaceAll(first, " ", "")); err == nil && i < len(programs) {
					out[programs[i]] = float64(d) / float64(time.Millisecond)
				}
			}
		}
	}
	return out
}

// drawPlot draws the median of one endpoint replaced against the number of Services.
func drawPlot(path string, all map[int]string) error {
	p := plot.New()
	p.Title.Text = "One endpoint replaced: event to kernel, median"
	p.X.Label.Text, p.Y.Label.Text = "Services", "milliseconds"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left = true, true
	lines := map[string]plotter.XYs{}
	for _, n := range slices.Sorted(maps.Keys(all)) {
		for name, ms := range medians(all[n]) {
			lines[name] = append(lines[name], plotter.XY{X: float64(n), Y: ms})
		}
	}
	if len(lines) == 0 {
		return nil
	}
	var args []any
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		args = append(args, name, lines[name])
	}
	if err := plotutil.AddLinePoints(p, args...); err != nil {
		return fmt.Errorf("draw the plot: %w", err)
	}
	p.Add(plotter.NewGrid())
	return p.Save(16*vg.Centimeter, 11*vg.Centimeter, path)
}
