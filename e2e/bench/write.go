package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
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
const explained = `Both programs ran in turn, each in a network namespace of its own, before the same API server. That is a small one of
our own (e2e/bench/apiserver), a process that lists and watches like the real one, in protobuf, with objects like
the real ones: the real one takes hours to create 50,000 Services.

* First sync: from the start of the process until the kernel holds the front end of every Service, asked for every 2 ms.
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
* New connections: TCP, made and broken off at once, by two clients from 250 addresses through the node, in rounds
  that take turns: straight to ten endpoints, through a Service with the same ten, through one with session affinity and 100.
* Another's transaction: another process adds an element to a table of its own every 5 ms during the first load of
  nftproxy, which is one more, by itself.
`

// writeResults writes RESULTS.md and the plot.
func (c *config) writeResults(results []*Result) error {
	dir := filepath.Join(c.root, "e2e", "bench")
	var b strings.Builder
	if err := c.document(&b, results); err != nil {
		return err
	}
	text := strings.TrimRight(b.String(), "\n") + "\n"
	return errors.Join(os.WriteFile(filepath.Join(dir, "RESULTS.md"), []byte(text), 0o644), drawPlot(filepath.Join(dir, "one-change.svg"), results))
}

// document writes the results with all that belongs to them.
func (c *config) document(w io.Writer, results []*Result) error {
	title, how, picture := "make bench", explained, "![One endpoint replaced, by the number of Services](one-change.svg)\n\n"
	if c.mode == modeIPVS {
		title, how, picture = "make bench-ipvs", ipvsExplained, ""
	}
	if _, err := fmt.Fprintf(w, "# Results of `%s`\n\n%s\n%s; Linux %s; %s, %d CPUs; %s\n\n%s", title, how,
		time.Now().UTC().Format(time.DateOnly), kernelRelease(), cpuModel(), runtime.NumCPU(), c.versions(), picture); err != nil {
		return err
	}
	return c.tables(w, results)
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

// drawPlot draws the median of one endpoint replaced against the number of Services.
func drawPlot(path string, results []*Result) error {
	p := plot.New()
	p.Title.Text = "One endpoint replaced: event to kernel, median"
	p.X.Label.Text, p.Y.Label.Text = "Services", "milliseconds"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left = true, true
	lines := map[string]plotter.XYs{}
	var names []string
	for _, r := range results {
		if r.Replace.N == 0 {
			continue
		}
		if lines[r.Program] == nil {
			names = append(names, r.Program)
		}
		lines[r.Program] = append(lines[r.Program], plotter.XY{X: float64(r.Services), Y: float64(r.Replace.P50) / float64(time.Millisecond)})
	}
	var args []any
	for _, name := range names {
		args = append(args, name, lines[name])
	}
	if len(args) == 0 {
		return nil
	}
	if err := plotutil.AddLinePoints(p, args...); err != nil {
		return fmt.Errorf("draw the plot: %w", err)
	}
	p.Add(plotter.NewGrid())
	return p.Save(16*vg.Centimeter, 11*vg.Centimeter, path)
}
