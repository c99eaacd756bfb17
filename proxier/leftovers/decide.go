package leftovers

import (
	"fmt"
	"slices"
	"strings"
)

// proxyTable is the name of the tables of kube-proxy's nftables mode.
const proxyTable = "kube-proxy"

// A table is a table of nf_tables.
type table struct {
	// family is ip or ip6.
	family string
	name   string
}

// String returns the table as nft writes it.
func (t table) String() string { return "table " + t.family + " " + t.name }

// compatible reports whether iptables keeps rules in the table that kube-proxy uses.
func (t table) compatible() bool { return slices.Contains([]string{"nat", "filter", "mangle"}, t.name) }

// A chain is a chain in a table of iptables.
type chain struct {
	table table
	name  string
	// base is set for those that the kernel calls: INPUT and the like.
	base bool
}

// A jump is a rule that goes to another chain of its table.
type jump struct {
	table  table
	from   string
	handle uint64
	to     string
}

// A ruleset is what decide looks at.
type ruleset struct {
	// tables are those of kube-proxy's nftables mode.
	tables []table
	chains []chain
	// jumps are those out of chains that are not kube-proxy's, and out of those of kube-proxy's that
	// are jumped to from there.
	jumps []jump
}

// A removal is what is to be removed.
type removal struct {
	tables []table
	jumps  []jump
	chains []chain
	// kept says which chains of kube-proxy stay, and why: a sentence each.
	kept []string
}

// empty reports whether there is nothing to remove.
func (r *removal) empty() bool { return len(r.tables)+len(r.jumps)+len(r.chains) == 0 }

// lines says what is removed, a line for each table.
func (r *removal) lines() []string {
	var lines []string
	for _, t := range r.tables {
		lines = append(lines, t.String())
	}
	chains, jumps := map[table]int{}, map[table]int{}
	var tables []table
	note := func(t table) {
		if !slices.Contains(tables, t) {
			tables = append(tables, t)
		}
	}
	for _, c := range r.chains {
		chains[c.table]++
		note(c.table)
	}
	for _, j := range r.jumps {
		jumps[j.table]++
		note(j.table)
	}
	for _, t := range tables {
		lines = append(lines, fmt.Sprintf("%d chains KUBE-* and %d jumps to them in %s", chains[t], jumps[t], t))
	}
	return lines
}

// decide returns what to remove of a ruleset: the tables; the chains of kube-proxy; and the jumps to
// them in the chains that the kernel calls. A chain that somebody else's chain jumps to stays with all
// that it leads to, since it is in use.
func decide(rs ruleset) removal {
	r := removal{tables: rs.tables}
	base := map[table]map[string]bool{}
	for _, c := range rs.chains {
		if base[c.table] == nil {
			base[c.table] = map[string]bool{}
		}
		base[c.table][c.name] = c.base
	}
	kept := map[table]map[string]string{}
	keep := func(j jump) bool {
		if kept[j.table] == nil {
			kept[j.table] = map[string]string{}
		}
		if kept[j.table][j.to] != "" {
			return false
		}
		kept[j.table][j.to] = j.from
		return true
	}
	for again := true; again; {
		again = false
		for _, j := range rs.jumps {
			from := !ours(j.from) && !base[j.table][j.from] || kept[j.table][j.from] != ""
			again = ours(j.to) && from && keep(j) || again
		}
	}
	for _, c := range rs.chains {
		if !ours(c.name) || c.base {
			continue
		}
		if from := kept[c.table][c.name]; from != "" {
			r.kept = append(r.kept, fmt.Sprintf("chain %s in %s: chain %s jumps to it", c.name, c.table, from))
			continue
		}
		r.chains = append(r.chains, c)
	}
	for _, j := range rs.jumps {
		if ours(j.to) && base[j.table][j.from] && !ours(j.from) && kept[j.table][j.to] == "" {
			r.jumps = append(r.jumps, j)
		}
	}
	return r
}

// ours reports whether a chain is one that kube-proxy makes in any of its modes, and nobody else:
// neither kubelet (KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT) nor a network plugin
// (KUBE-ROUTER-INPUT).
func ours(name string) bool {
	switch name {
	case "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ",
		"KUBE-FORWARD", "KUBE-PROXY-FIREWALL", "KUBE-PROXY-CANARY",
		// The mode ipvs.
		"KUBE-SOURCE-RANGES-FIREWALL", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER":
		return true
	}
	for _, prefix := range []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-FW-", "KUBE-EXT-", "KUBE-SEP-", "KUBE-XLB-"} {
		if hash, ok := strings.CutPrefix(name, prefix); ok {
			return isHash(hash)
		}
	}
	return false
}

// isHash reports whether s is the hash of a Service port or endpoint as kube-proxy writes it: 16
// letters of base32.
func isHash(s string) bool {
	const length = 16
	return len(s) == length && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}
