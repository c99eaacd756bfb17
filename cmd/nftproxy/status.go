package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/watch"
)

// A report is what the daemon says of itself; `nftproxy status -o json` prints it.
type report struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Node    string    `json:"node"`
	Started time.Time `json:"started"`
	IPv6    bool      `json:"ipv6"`
	// Ready says that every source has spoken; before, nothing is written to the kernel.
	Ready bool `json:"ready"`
	proxier.Status
	// Problems are what the input says wrongly.
	Problems []problem `json:"problems"`
}

// A problem is a [watch.Problem] as JSON.
type problem struct {
	Source  string `json:"source,omitempty"`
	Where   string `json:"where,omitempty"`
	Object  string `json:"object,omitempty"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	Minor   bool   `json:"minor,omitempty"`
}

// statusOf returns the function that makes the report of a daemon; with all, it lists every front
// end.
func statusOf(cfg config, engine *proxier.Engine, hub *watch.Hub) func(all bool) report {
	started := time.Now()
	return func(all bool) report {
		r := report{
			Version: thisBuild().Version, PID: os.Getpid(), Node: cfg.NodeName, Started: started, IPv6: !cfg.Plan.DisableIPv6,
			Status: engine.Status(all), Problems: []problem{},
		}
		select {
		case <-hub.Ready():
			r.Ready = true
		default:
		}
		for _, p := range hub.Problems() {
			r.Problems = append(r.Problems, problem(p))
		}
		return r
	}
}

// statusCommand returns the command that asks the running daemon.
func statusCommand() *cobra.Command {
	var f flags
	var output string
	var all bool
	c := newCommand("status", "Show what the running daemon serves, and what it could not", `
It asks the daemon over its unix socket: Services, front ends (an address, protocol
and port that the node serves), endpoints (counted for each front end), the last
sync, front ends that the kernel refused or that two Services claim, and what the
manifests say wrongly. The exit code is 0 if the daemon answered, whatever it said.`, `
  nftproxy status
  nftproxy status --all
  nftproxy status -o json | jq .refused`, func(c *cobra.Command) error {
		return showStatus(c.Context(), f.socket, output, all, c.OutOrStdout())
	})
	f.registerSocket(c)
	c.Flags().StringVarP(&output, "output", "o", "table", "`format`: table or json")
	c.Flags().BoolVar(&all, "all", false, "list every front end with its endpoints")
	must(c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]cobra.Completion{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// showStatus asks the daemon behind a socket and writes what it says.
func showStatus(ctx context.Context, socket, output string, all bool, out io.Writer) error {
	if output != "table" && output != "json" {
		return usagef("--output: %q is neither table nor json", output)
	}
	res, err := askStatus(ctx, socket, all)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if output == "json" {
		_, err := io.Copy(out, res.Body)
		return err
	}
	var r report
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
		return fmt.Errorf("read the answer of the daemon on %s: %w", socket, err)
	}
	return writeReport(out, &r, time.Now())
}

// writeReport writes a report for a person.
func writeReport(out io.Writer, r *report, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(cells ...any) { fmt.Fprintln(w, strings.TrimRight(strings.Join(words(cells), "\t"), "\t")) }
	row("Daemon", fmt.Sprintf("nftproxy %s, pid %d, on node %s, up %s", r.Version, r.PID, r.Node, ago(now, r.Started)))
	row("State", r.state())
	row("Services", r.Services)
	row("Front ends", r.FrontEnds)
	row("Endpoints", r.Endpoints)
	if len(r.Balanced) > 0 {
		row("By IPVS", numbers(r.Balanced))
	}
	if len(r.Fallbacks) > 0 {
		row("No IPVS for", numbers(r.Fallbacks))
	}
	if r.LastSync.IsZero() {
		row("Last sync", "never")
	} else {
		row("Last sync", fmt.Sprintf("%s ago: %d steps in %s", ago(now, r.LastSync), r.LastSteps, r.LastDuration.Round(time.Microsecond)))
	}
	row("Syncs", fmt.Sprintf("%d, %d failed", r.Syncs, r.Failures))
	if len(r.Refused) > 0 {
		row("")
		row("REFUSED BY THE KERNEL", "SERVICE", "FOR", "ATTEMPTS", "REASON")
		for _, f := range r.Refused {
			row(f.FrontEnd, f.Service, ago(now, f.Since), f.Attempts, f.Reason)
		}
	}
	if len(r.Conflicts) > 0 {
		row("")
		row("CLAIMED TWICE", "HELD BY", "NOT SERVED FOR")
		for _, c := range r.Conflicts {
			row(c.FrontEnd, c.Holder, c.Loser)
		}
	}
	if len(r.Fronts) > 0 {
		row("")
		row("SERVICE", "FRONT END", "BY", "SCHEDULER", "ENDPOINTS", "LOCAL")
		for _, f := range r.Fronts {
			row(f.Service, f.FrontEnd, f.Plane, f.Scheduler, cmp.Or(f.Refuse, list(f.Endpoints), "none"), list(f.Local))
		}
	}
	if r.ServersError != "" {
		row("")
		row("VIRTUAL SERVERS", r.ServersError)
	}
	if len(r.Servers) > 0 {
		row("")
		row("VIRTUAL SERVER", "SERVICE", "SCHEDULER", "AFFINITY", "DESTINATION", "WEIGHT", "ACTIVE", "INACTIVE")
		for _, s := range r.Servers {
			for _, cells := range serverRows(&s) {
				row(cells...)
			}
		}
	}
	if len(r.Problems) > 0 {
		row("")
		row("PROBLEMS IN THE INPUT")
		for _, p := range r.Problems {
			row(watch.Problem(p))
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

// serverRows returns the rows of a virtual server: one for each destination, the first of which says what it
// belongs to.
func serverRows(s *proxier.Server) [][]any {
	affinity := "none"
	if s.Persistence > 0 {
		affinity = s.Persistence.String()
	}
	head := []any{s.Address, cmp.Or(s.Service, "none: its connections end"), s.Scheduler, affinity}
	if len(s.Destinations) == 0 {
		return [][]any{append(head, "none")}
	}
	var rows [][]any
	for _, d := range s.Destinations {
		rows = append(rows, append(head, d.Endpoint, d.Weight, d.Active, d.Inactive))
		head = []any{"", "", "", ""}
	}
	return rows
}

// state says in a few words how the daemon is doing.
func (r *report) state() string {
	switch {
	case !r.Ready:
		return "waiting for the Services and the addresses of the node; nothing written yet"
	case r.LastError != "":
		return "FAILING: " + r.LastError
	case !r.Healthy:
		return "starting"
	case len(r.Refused) > 0:
		return fmt.Sprintf("in line with the input, but for %d front ends that the kernel refused", len(r.Refused))
	}
	return "in line with the input"
}

// words returns the cells of a row as text.
func words(cells []any) []string {
	out := make([]string, len(cells))
	for i, c := range cells {
		out[i] = fmt.Sprint(c)
	}
	return out
}

// ago returns how long before now a time was, as roughly as a person wants it.
func ago(now, then time.Time) string {
	d := max(now.Sub(then), 0)
	switch {
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// numbers returns the numbers of Services by scheduler.
func numbers(m map[string]int) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%d Services (%s)", m[name], name))
	}
	return strings.Join(out, ", ")
}

// list returns endpoints with commas between.
func list(endpoints []netip.AddrPort) string {
	var b strings.Builder
	for i, e := range endpoints {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(e.String())
	}
	return b.String()
}
