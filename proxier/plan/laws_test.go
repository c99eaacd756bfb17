package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/fake"
	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// commit does both transactions of a plan and checks that the ruleset is closed after each.
func commit(t *rapid.T, k *fake.Kernel, p Plan) {
	t.Helper()
	for _, tx := range []nft.Tx{p.Tx, p.Later} {
		if err := k.Commit(tx); err != nil {
			t.Fatalf("commit: %v\n%s", err, tx)
		}
		if err := nft.Check(load(t, k)); err != nil {
			t.Fatalf("after a commit: %v\n%s", err, tx)
		}
	}
}

// load returns what a kernel holds.
func load(t *rapid.T, k *fake.Kernel) []nft.Table {
	t.Helper()
	tables, err := k.Load(TableName)
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

// text returns tables in an order that does not depend on history.
func text(tables []nft.Table) string {
	var s string
	for i := range tables {
		t := tables[i]
		t.Chains = slices.Clone(t.Chains)
		slices.SortFunc(t.Chains, func(a, b nft.Chain) int { return strings.Compare(a.Name, b.Name) })
		s += t.String()
	}
	return s
}

// walkConfig is testConfig on a kernel that has some schedulers of IPVS.
func walkConfig() Config {
	c := testConfig()
	c.Schedulers = []string{"lc", "rr"}
	return c
}

// follow makes of the virtual servers in have what ChangedServers says.
func follow(t *rapid.T, have ipvs.Table, changes []ServerChange) {
	t.Helper()
	for _, c := range changes {
		if old := have[c.Key]; (old == nil) != (c.Old == nil) || old != nil && !cmp.Equal(old, c.Old, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
			t.Fatalf("%s was %v; the change says %v", c.Key, old, c.Old)
		}
		if c.New == nil {
			delete(have, c.Key)
		} else {
			have[c.Key] = c.New
		}
	}
}

// TestLawConverge walks through random snapshots and expects of the kernel what the last State says,
// each time; and that the same transaction again has nothing to do.
func TestLawConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &fake.Kernel{}
		var have *State
		servers := ipvs.Table{}
		for _, snapshot := range randomWalk(t) {
			want := Compile(walkConfig(), snapshot, have)
			before := have
			if before == nil {
				before = &State{}
			}
			follow(t, servers, ChangedServers(before, want))
			if diff := cmp.Diff(ipvs.State{Servers: maps.Collect(want.Servers())}.String(), ipvs.State{Servers: servers}.String()); diff != "" {
				t.Fatalf("the virtual servers (-want +got):\n%s", diff)
			}
			if have == nil {
				commit(t, k, DiffTables(load(t, k), want))
			} else {
				commit(t, k, Diff(have, want))
			}
			have = want
			if diff := cmp.Diff(text(want.Tables()), text(load(t, k))); diff != "" {
				t.Fatalf("the kernel (-want +got):\n%s", diff)
			}
			if p := Diff(want, want); !p.Empty() {
				t.Fatalf("Diff(want, want) = %s; want nothing", p.Tx)
			}
			if p := Diff(have, Compile(walkConfig(), snapshot, have)); !p.Empty() {
				t.Fatalf("the same snapshot again gives %s; want nothing", p.Tx)
			}
		}
	})
}

// TestLawRestart compiles afresh at the end of a walk, as a process does that finds the ruleset of
// another: it must have nothing to do, wherever the endpoints have their places.
func TestLawRestart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &fake.Kernel{}
		walk := randomWalk(t)
		var have *State
		for _, snapshot := range walk {
			want := Compile(walkConfig(), snapshot, have)
			if have == nil {
				commit(t, k, DiffTables(nil, want))
			} else {
				commit(t, k, Diff(have, want))
			}
			have = want
		}
		tables := load(t, k)
		again := Compile(walkConfig(), walk[len(walk)-1], Recall(tables))
		if p := DiffTables(tables, again); !p.Empty() {
			t.Fatalf("after a restart:\n%s%s; want nothing", p.Tx, p.Later)
		}
	})
}

// TestLawAnyRoad programs the end of a walk from any snapshot before it, without knowing what the
// kernel holds.
func TestLawAnyRoad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		walk := randomWalk(t)
		k := &fake.Kernel{}
		first := Compile(walkConfig(), walk[rapid.IntRange(0, len(walk)-1).Draw(t, "first")], nil)
		commit(t, k, DiffTables(nil, first))
		tables := load(t, k)
		want := Compile(walkConfig(), walk[len(walk)-1], Recall(tables))
		commit(t, k, DiffTables(tables, want))
		if diff := cmp.Diff(text(want.Tables()), text(load(t, k))); diff != "" {
			t.Fatalf("the kernel (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(members(Compile(walkConfig(), walk[len(walk)-1], nil)), members(want)); diff != "" {
			t.Fatalf("but for the places of endpoints (-fresh +got):\n%s", diff)
		}
	})
}

// members returns the front ends of a State, a line each, with their endpoints sorted.
func members(s *State) []string {
	var lines []string
	for f := range s.Fronts() {
		f.Endpoints, f.Local = slices.Clone(f.Endpoints), slices.Clone(f.Local)
		slices.SortFunc(f.Endpoints, netip.AddrPort.Compare)
		slices.SortFunc(f.Local, netip.AddrPort.Compare)
		lines = append(lines, fmt.Sprint(f))
	}
	slices.Sort(lines)
	return lines
}

// TestLawDeterministic compiles the same Services put together in different orders.
func TestLawDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var services []*model.Service
		for name, s := range randomWalk(t)[1].Services.All() {
			_ = name
			services = append(services, s)
		}
		a := Compile(walkConfig(), snapshotOf(services...), nil)
		b := Compile(walkConfig(), snapshotOf(rapid.Permutation(services).Draw(t, "order")...), nil)
		if diff := cmp.Diff(text(a.Tables()), text(b.Tables())); diff != "" {
			t.Fatalf("in another order (-first +second):\n%s", diff)
		}
	})
}

// TestLawFlat counts the steps and the compiled Services of one changed endpoint among many: two
// elements and one Service, whatever the size. It is what guards against a cost that follows the
// number of Services.
func TestLawFlat(t *testing.T) {
	for _, n := range []int{100, 10_000} {
		snapshot := cluster(n, 10)
		have := Compile(testConfig(), snapshot, nil)
		name := model.Name{Namespace: "default", Name: "service-7"}
		service, _ := snapshot.Services.Get(name)
		want := Compile(testConfig(), withService(snapshot, replaced(service, 4, netip.MustParseAddrPort("11.0.0.1:8080"))), have)
		steps := 0
		for op := range Diff(have, want).Tx {
			if steps++; op.Element == nil || op.Set.Name != setEndpoints {
				t.Errorf("%d Services: step %s; want elements of %s only", n, op, setEndpoints)
			}
		}
		if steps != 2 {
			t.Errorf("%d Services: one endpoint replaced takes %d steps; want 2", n, steps)
		}
		compiled := 0
		for range model.Changes(have.units, want.units) {
			compiled++
		}
		if compiled != 1 {
			t.Errorf("%d Services: %d were compiled; want 1", n, compiled)
		}
	}
}

// TestChains counts the chains of 10,000 Services with 10 endpoints each.
func TestChains(t *testing.T) {
	for _, table := range Compile(testConfig(), cluster(10_000, 10), nil).Tables() {
		if n := len(table.Chains); n >= 150 {
			t.Errorf("table %s has %d chains; want fewer than 150", table.Family, n)
		}
	}
}

// TestUnusedChains lets the number of endpoints go up and down beyond what is prepared: the chain is
// made and, later, deleted.
func TestUnusedChains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &fake.Kernel{}
		small, large := cluster(2, 3), cluster(2, 70)
		have := Compile(testConfig(), small, nil)
		commit(t, k, DiffTables(nil, have))
		first := text(load(t, k))
		want := Compile(testConfig(), large, have)
		commit(t, k, Diff(have, want))
		if !want.Uses("lb-70") {
			t.Fatal("Uses(lb-70) = false with 70 endpoints; want true")
		}
		back := Compile(testConfig(), small, want)
		p := Diff(want, back)
		if p.Later.Empty() {
			t.Fatal("nothing to delete later; want chain lb-70")
		}
		commit(t, k, p)
		if diff := cmp.Diff(first, text(load(t, k))); diff != "" {
			t.Fatalf("there and back (-before +after):\n%s", diff)
		}
	})
}

// TestLawCut does the plans of a walk in pieces, down to the smallest: after each the
// ruleset is closed, and a Service that anything leads to is there with all that it was or will be.
func TestLawCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &fake.Kernel{}
		have := Compile(walkConfig(), snapshotOf(), nil)
		for _, snapshot := range randomWalk(t) {
			tables := load(t, k)
			want := Compile(walkConfig(), snapshot, Recall(tables))
			old, now := whole(have), whole(want)
			steps := rapid.IntRange(1, 30).Draw(t, "steps of a piece")
			for piece := range nft.Cut(DiffTables(tables, want).Tx, steps) {
				if err := k.Commit(piece); err != nil {
					t.Fatalf("commit: %v\n%s", err, piece)
				}
				between := load(t, k)
				if err := nft.Check(between); err != nil {
					t.Fatalf("after a piece: %v\n%s", err, piece)
				}
				halfMade(t, between, old, now)
			}
			if diff := cmp.Diff(text(want.Tables()), text(load(t, k))); diff != "" {
				// Chains that nothing uses are still there.
				commit(t, k, Plan{Later: DiffTables(load(t, k), want).Later})
			}
			if diff := cmp.Diff(text(want.Tables()), text(load(t, k))); diff != "" {
				t.Fatalf("the kernel (-want +got):\n%s", diff)
			}
			have = want
		}
	})
}

// A wholeService are the elements of a Service port's front ends in one family: for each that packets meet
// first, all of the Service's.
type wholeService map[string][]string

// whole returns for each element that leads somewhere what must be there with it.
func whole(s *State) wholeService {
	w := wholeService{}
	for _, f := range nft.Families() {
		for service := range s.services(f) {
			var all []string
			for _, p := range service {
				for _, e := range p.entries {
					all = append(all, elementLine(f, &e))
				}
			}
			for _, p := range service {
				for _, e := range p.entries {
					if leads(e.set) {
						w[elementLine(f, &e)] = all
					}
				}
			}
		}
	}
	return w
}

// elementLine returns an element as a string.
func elementLine(f nft.Family, e *entry) string {
	return fmt.Sprintf("%s %s %x %x %x %s %s", f, e.set, e.element.Key.Bytes(), e.element.End.Bytes(), e.element.Data.Bytes(), e.element.Verdict, e.element.Comment)
}

// firewalled reports whether the front end of a range, whose fields are given, is still filtered for the Service
// that all belongs to, and not for what comes after it.
func firewalled(source, all []string, there map[string]bool, now wholeService) bool {
	address := 8 // digits
	if source[0] == nft.IPv6.String() {
		address = 32
	}
	front := source[2][:len(source[2])-address]
	return slices.ContainsFunc(all, func(line string) bool {
		f := strings.Fields(line)
		return there[line] && now[line] == nil && f[0] == source[0] && f[1] == setFirewall && f[2] == front
	})
}

// halfMade fails if something leads to a Service of which neither all that was nor all that will be is
// there. A Service that was and is going may miss front ends, but not what one leads to.
func halfMade(t *rapid.T, tables []nft.Table, old, now wholeService) {
	t.Helper()
	there := map[string]bool{}
	taken := map[string]bool{} // by another Service, or in another way
	var leading []string
	for i := range tables {
		for set, elements := range tables[i].Elements {
			for j := range elements {
				line := elementLine(tables[i].Family, &entry{set, elements[j]})
				there[line] = true
				taken[strings.Join(strings.Fields(line)[:3], " ")] = true
				if leads(set) {
					leading = append(leading, line)
				}
			}
		}
	}
	missing := func(all []string, front bool) string {
		for _, line := range all {
			f := strings.Fields(line)
			switch {
			case there[line], !front && (leads(f[1]) || taken[strings.Join(f[:3], " ")]):
			case !front && f[1] == setSourceRanges && !firewalled(f, all, there, now):
				// The front end has other ranges by now, of this Service or of another.
			default:
				return line
			}
		}
		return ""
	}
	for _, line := range leading {
		was, isOld := old[line]
		will, isNew := now[line]
		if isNew && missing(will, true) == "" || isOld && missing(was, false) == "" {
			continue
		}
		t.Fatalf("%s is there without %q (or %q)", line, missing(will, true), missing(was, false))
	}
}
