package leftovers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/e2e/netns"
)

// newNetNS returns a network namespace that lives as long as the test. Without root or iptables-nft
// the test is skipped, unless tests must not be.
func newNetNS(t *testing.T) *netns.NetNS {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all" {
		skip = t.Fatalf
	}
	for _, program := range []string{"nft", "iptables-nft-restore", "ip6tables-nft-restore"} {
		if _, err := exec.LookPath(program); err != nil {
			skip("needs nftables and iptables with nf_tables: %v", err)
		}
	}
	return netns.ForTest(t)
}

// program runs a program in a namespace and returns its output.
func program(t *testing.T, n *netns.NetNS, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := n.Output(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// restore loads the rules in a file of testdata for both families, as iptables-restore does.
func restore(t *testing.T, n *netns.NetNS, file string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	program(t, n, string(b), "iptables-nft-restore", "--noflush")
	six := strings.NewReplacer("10.96.0.", "fd00:96::", "10.244.0.0/16", "fd00:244::/48",
		"10.244.0.2:53", "[fd00:244::2]:53", "10.244.0.3:53", "[fd00:244::3]:53", "10.244.0.", "fd00:244::")
	program(t, n, six.Replace(string(b)), "ip6tables-nft-restore", "--noflush")
}

// listing returns all rules of a namespace, as iptables and nft see them.
func listing(t *testing.T, n *netns.NetNS) string {
	t.Helper()
	var lines []string
	for _, text := range []string{program(t, n, "", "iptables-nft-save"), program(t, n, "", "ip6tables-nft-save"), program(t, n, "", "nft", "list", "ruleset")} {
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") { // the time
				lines = append(lines, line)
			}
		}
	}
	return strings.Join(lines, "")
}

// remove calls Remove for a namespace.
func remove(t *testing.T, n *netns.NetNS) Report {
	t.Helper()
	r, err := Remove(Config{NetNS: n.FD()})
	if err != nil {
		t.Fatalf("Remove() = %v; want nil", err)
	}
	return r
}

// proxyTables are tables as kube-proxy's mode nftables makes them, and some that it does not make.
const proxyTables = `
table ip kube-proxy {
	comment "rules for kube-proxy"
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.10 . tcp . 53 : goto service-KSWYBV3E-kube-system/kube-dns/tcp/dns-tcp }
	}
	chain service-KSWYBV3E-kube-system/kube-dns/tcp/dns-tcp {
		numgen random mod 1 vmap { 0 : goto endpoint-X }
	}
	chain endpoint-X {
		meta l4proto tcp dnat to 10.244.0.2:53
	}
	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}
}
table ip6 kube-proxy {
	chain filter-input {
		type filter hook input priority 0; policy accept;
	}
}
`

// otherTables are nobody's of kube-proxy, however alike they look.
const otherTables = `
table inet kube-proxy {
	chain KUBE-SERVICES {
		accept
	}
}
table ip kube-proxy-2 {
	chain KUBE-SERVICES {
		accept
	}
}
table ip raw {
	chain KUBE-SERVICES {
		accept
	}
}
`

func TestRemove(t *testing.T) {
	n := newNetNS(t)
	restore(t, n, "others.rules")
	program(t, n, otherTables, "nft", "-f", "-")
	others := listing(t, n)
	if r := remove(t, n); len(r.Removed)+len(r.Kept) > 0 {
		t.Errorf("Remove() where kube-proxy never was = %+v; want nothing", r)
	}
	if diff := cmp.Diff(others, listing(t, n)); diff != "" {
		t.Fatalf("Remove() where kube-proxy never was (-before +after):\n%s", diff)
	}

	restore(t, n, "kube-proxy.rules")
	program(t, n, proxyTables, "nft", "-f", "-")
	if listing(t, n) == others {
		t.Fatal("the rules of kube-proxy did not get there")
	}
	want := Report{Removed: []string{"table ip kube-proxy", "table ip6 kube-proxy"}}
	for _, family := range families() {
		for _, s := range []string{"1 chains KUBE-* and 0 jumps to them in table %s mangle", "10 chains KUBE-* and 3 jumps to them in table %s nat", "6 chains KUBE-* and 7 jumps to them in table %s filter"} {
			want.Removed = append(want.Removed, fmt.Sprintf(s, family))
		}
	}
	if diff := cmp.Diff(want, remove(t, n)); diff != "" {
		t.Errorf("Remove() differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(others, listing(t, n)); diff != "" {
		t.Errorf("rules of others after Remove() (-before +after):\n%s", diff)
	}
	if r := remove(t, n); len(r.Removed)+len(r.Kept) > 0 {
		t.Errorf("second Remove() = %+v; want nothing", r)
	}
}

func TestRemoveKeeps(t *testing.T) {
	n := newNetNS(t)
	restore(t, n, "others.rules")
	restore(t, n, "kube-proxy.rules")
	program(t, n, "", "iptables-nft", "-t", "nat", "-A", "CNI-HOSTPORT-DNAT", "-j", "KUBE-MARK-MASQ")
	r := remove(t, n)
	if diff := cmp.Diff([]string{"chain KUBE-MARK-MASQ in table ip nat: chain CNI-HOSTPORT-DNAT jumps to it"}, r.Kept); diff != "" {
		t.Errorf("Remove() keeps (-want +got):\n%s", diff)
	}
	rules := program(t, n, "", "iptables-nft-save", "-t", "nat")
	for _, want := range []string{"-A CNI-HOSTPORT-DNAT -j KUBE-MARK-MASQ", "-A KUBE-MARK-MASQ -j MARK"} {
		if !strings.Contains(rules, want) {
			t.Errorf("after Remove() the rule %q is gone:\n%s", want, rules)
		}
	}
	if strings.Contains(rules, "KUBE-SERVICES") || strings.Contains(rules, "KUBE-SEP") {
		t.Errorf("after Remove() there still is:\n%s", rules)
	}
}

// TestRemoveMany removes what a large cluster leaves, which is more than a socket takes at once.
func TestRemoveMany(t *testing.T) {
	n := newNetNS(t)
	var b strings.Builder
	b.WriteString("*nat\n:KUBE-SERVICES - [0:0]\n:PREROUTING ACCEPT [0:0]\n")
	const many = 5000
	name := func(i int) string {
		return "KUBE-SEP-" + strings.NewReplacer("0", "Q", "1", "R", "8", "S", "9", "T").Replace(fmt.Sprintf("%016d", i))
	}
	for i := range many {
		fmt.Fprintf(&b, ":%s - [0:0]\n", name(i))
	}
	b.WriteString("-A PREROUTING -j KUBE-SERVICES\n")
	for i := range many {
		fmt.Fprintf(&b, "-A KUBE-SERVICES -d 10.96.%d.%d -j %s\n", i/250, i%250, name(i))
	}
	b.WriteString("COMMIT\n")
	program(t, n, b.String(), "iptables-nft-restore", "--noflush")
	r := remove(t, n)
	if diff := cmp.Diff([]string{fmt.Sprintf("%d chains KUBE-* and 1 jumps to them in table ip nat", many+1)}, r.Removed); diff != "" {
		t.Errorf("Remove() removed (-want +got):\n%s", diff)
	}
	if rules := program(t, n, "", "iptables-nft-save", "-t", "nat"); strings.Contains(rules, "KUBE-") {
		t.Errorf("after Remove() there still are chains of kube-proxy")
	}
}

func TestAdvice(t *testing.T) {
	proc := t.TempDir()
	if got := Advice(proc); len(got) > 0 {
		t.Errorf("Advice() with nothing there = %q; want none", got)
	}
	if err := os.Mkdir(filepath.Join(proc, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{"ip_tables_names": "nat\nfilter\nsecurity\n", "ip6_tables_names": "security\n"} {
		if err := os.WriteFile(filepath.Join(proc, "net", file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := Advice(proc)
	if len(got) != 1 || !strings.HasPrefix(got[0], "iptables-legacy has tables here (nat, filter)") {
		t.Errorf("Advice() = %q; want one sentence about nat and filter", got)
	}
}
