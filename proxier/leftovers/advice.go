package leftovers

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Advice returns what kube-proxy may have left that Remove does not reach, and what to run instead: a
// sentence each. proc is where the proc file system is.
func Advice(proc string) []string {
	var advice []string
	for _, f := range []struct{ file, command string }{{"ip_tables_names", "iptables"}, {"ip6_tables_names", "ip6tables"}} {
		if tables := legacyTables(filepath.Join(proc, "net", f.file)); len(tables) > 0 {
			advice = append(advice, f.command+"-legacy has tables here ("+strings.Join(tables, ", ")+"), which cannot be reached from nf_tables. If `"+
				f.command+"-legacy-save | grep KUBE-SERVICES` prints something they hold rules of kube-proxy, which go before ours: run `kube-proxy --cleanup` with the image that made them")
		}
	}
	return advice
}

// legacyTables returns the tables that iptables-legacy has and kube-proxy would use.
func legacyTables(file string) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		// Without the modules of iptables-legacy there is no such file.
		return nil
	}
	return slices.DeleteFunc(strings.Fields(string(b)), func(name string) bool { return !table{name: name}.compatible() })
}
