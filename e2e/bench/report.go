package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A line is a row of the table: what it tells and how to read it from a result.
type line struct {
	what string
	cell func(*Result) string
}

// lines returns the rows of the table.
func lines() []line {
	latencies := func(of func(*Result) Latency) func(*Result) string {
		return func(r *Result) string {
			l := of(r)
			if l.N == 0 {
				return "-"
			}
			return fmt.Sprintf("%s / %s / %s (%d)", short(l.P50), short(l.P99), short(l.Max), l.N)
		}
	}
	cpu := func(of func(*Result) Latency) func(*Result) string {
		return func(r *Result) string { return short(of(r).CPU) }
	}
	many := func(of func(*Result) Latency) func(*Result) string {
		return func(r *Result) string {
			l := of(r)
			if l.N == 0 {
				return "-"
			}
			return fmt.Sprintf("%s, CPU %s, %d transactions", short(l.All), short(l.CPU*time.Duration(l.N)), l.Transactions)
		}
	}
	replace, add := func(r *Result) Latency { return r.Replace }, func(r *Result) Latency { return r.Add }
	appear, vanish := func(r *Result) Latency { return r.Appear }, func(r *Result) Latency { return r.Vanish }
	burst, rolling := func(r *Result) Latency { return r.Burst }, func(r *Result) Latency { return r.Rolling }
	return []line{
		{"first sync", func(r *Result) string { return short(r.First) }},
		{"first sync: CPU", func(r *Result) string { return short(r.FirstCPU) }},
		{"one endpoint replaced: p50 / p99 / max (times)", latencies(replace)},
		{"one endpoint replaced: CPU each", cpu(replace)},
		{"one endpoint added: p50 / p99 / max (times)", latencies(add)},
		{"one endpoint added: CPU each", cpu(add)},
		{"one Service added: p50 / p99 / max (times)", latencies(appear)},
		{"one Service added: CPU each", cpu(appear)},
		{"one Service removed: p50 / p99 / max (times)", latencies(vanish)},
		{"one Service removed: CPU each", cpu(vanish)},
		{"burst of changes, until the last", many(burst)},
		{"rolling update, until the last", many(rolling)},
		{"rolling update, each endpoint: p50 / p99 / max", latencies(rolling)},
		{"restart", func(r *Result) string { return short(r.Restart.Took) }},
		{"restart: CPU", func(r *Result) string { return short(r.Restart.CPU) }},
		{"restart: failed connections", func(r *Result) string {
			if r.Restart.Asked == 0 {
				return "-"
			}
			return fmt.Sprintf("%d of %d, slowest %s", r.Restart.Failed, r.Restart.Asked, short(r.Restart.Slowest))
		}},
		{"resident memory, steady / peak", func(r *Result) string { return megabytes(r.Steady, r.Peak) }},
		{"kernel memory of the rules", func(r *Result) string { return megabytes(r.Kernel) }},
		{"new connections/s: straight / Service (ratio)", func(r *Result) string { return r.Plain.String() }},
		{"the same with affinity, 100 endpoints", func(r *Result) string { return r.Sticky.String() }},
		{"first packets/s: straight / Service (ratio)", func(r *Result) string { return r.PlainKnocks.String() }},
		{"first packets/s with affinity, 100 endpoints", func(r *Result) string { return r.StickyKnocks.String() }},
		{"the same from 30,000 addresses", func(r *Result) string { return r.ManyKnocks.String() }},
		{"another's transaction during the first load: p99 / max", func(r *Result) string {
			if r.Foreign.N == 0 {
				return "-"
			}
			return short(r.Foreign.P99) + " / " + short(r.Foreign.Max)
		}},
		{"(CPU of the API server meanwhile)", func(r *Result) string { return short(r.APICPU) }},
	}
}

// String returns a rate for the table.
func (r Rate) String() string {
	if r.Straight == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f / %.0f (%.2f)", r.Straight, r.Through, r.Ratio)
}

// short returns a duration for the table.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d >= time.Second:
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
	return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
}

// megabytes returns amounts of memory for the table.
func megabytes(list ...int64) string {
	var words []string
	for _, n := range list {
		if n == 0 {
			return "-"
		}
		words = append(words, fmt.Sprintf("%.0f", mib(n)))
	}
	return strings.Join(words, " / ") + " MiB"
}

// table returns results as a table: its head, and the rows in which something was measured.
func table(results []*Result) [][]string {
	head := []string{""}
	for _, r := range results {
		head = append(head, fmt.Sprintf("%s, %d x %d", r.Program, r.Services, r.Endpoints))
	}
	rows := [][]string{head}
	for i, l := range lines() {
		row, some := []string{l.what}, false
		for _, r := range results {
			cell := ""
			switch {
			case r.Skipped == "":
				cell = l.cell(r)
			case i == 0:
				cell = r.Skipped
			}
			row, some = append(row, cell), some || cell != "" && cell != "-"
		}
		if some {
			rows = append(rows, row)
		}
	}
	return rows
}

// markdown writes a table with its columns aligned.
func markdown(w io.Writer, rows [][]string) error {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			fmt.Fprintf(&b, "| %-*s ", width[i], cell)
		}
		b.WriteString("|\n")
		for i := range row {
			if n == 0 {
				b.WriteString("|" + strings.Repeat("-", width[i]+2))
			}
		}
		if n == 0 {
			b.WriteString("|\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// bySize returns results in groups of one size.
func bySize(results []*Result) [][]*Result {
	var groups [][]*Result
	for _, r := range results {
		if last := len(groups) - 1; last >= 0 && groups[last][0].Services == r.Services {
			groups[last] = append(groups[last], r)
			continue
		}
		groups = append(groups, []*Result{r})
	}
	return groups
}

// report prints the tables and, if that is wanted, writes the files. What a virtual machine writes is gone
// with it: there, all is printed.
func (c *config) report(w io.Writer, results []*Result) error {
	switch {
	case len(results) == 0:
		return nil
	case c.write && c.mode == modeIPVS:
		all, err := c.sections(results)
		if err != nil {
			return err
		}
		_, err = io.WriteString(w, document("make bench-ipvs", ipvsExplained, "", all))
		return err
	}
	if err := c.tables(w, results); err != nil || !c.write {
		return err
	}
	return c.writeResults(results)
}

// tables writes a table for each size, since one for all is too wide to read.
func (c *config) tables(w io.Writer, results []*Result) error {
	for _, group := range bySize(results) {
		if err := markdown(w, table(group)); err != nil {
			return err
		}
		fmt.Fprintln(w)
		for _, r := range group {
			if r.Stopped != "" {
				fmt.Fprintf(w, "%s stopped: %s\n\n", r.Program, r.Stopped)
			}
		}
	}
	return nil
}
