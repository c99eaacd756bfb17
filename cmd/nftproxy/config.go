package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	logs "k8s.io/component-base/logs/api/v1"

	"github.com/nftproxy/nftproxy/cmd/nftproxy/options"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// defaultSocket is where the daemon answers `nftproxy status`.
const defaultSocket = "/run/nftproxy/nftproxy.sock"

// flags are the raw values of the command line; [flags.config] makes sense of them.
type flags struct {
	// options are those that kube-proxy has too.
	options *options.Options
	// set is the set of flags that they are registered in.
	set *pflag.FlagSet
	// kubernetes allows for Kubernetes as the source, where there are no manifests.
	kubernetes    bool
	manifests     string
	nodeAddresses []string
	socket        string
}

// A config is what the command line and the configuration file mean, checked.
type config struct {
	// Options are kube-proxy's settings as they were made; what is below is made from them.
	Options          *options.Options
	Manifests        string
	NodeName         string
	NodeAddresses    []netip.Addr
	Plan             plan.Config
	AllowExternalIPs bool
	// StandIn says that nftproxy stands in for kube-proxy, whose rules it removes on its first start.
	StandIn bool
	// SetHost has the sysctls and the OOM score set, as kube-proxy does.
	SetHost bool
	Socket  string
	Log     logConfig
	// Warnings are what is allowed but probably not meant.
	Warnings []string
}

// register adds the flags that say what the ruleset should be to a command. They have kube-proxy's
// names where kube-proxy has them.
func (f *flags) register(c *cobra.Command) {
	f.registerManifests(c)
	f.options.RegisterRules(f.set)
	f.completions(c)
}

// registerAll adds the flags of register and all others of kube-proxy to a command.
func (f *flags) registerAll(c *cobra.Command) {
	f.kubernetes = true
	f.registerManifests(c)
	f.options.Register(f.set)
	f.completions(c)
	must(c.MarkFlagFilename("write-config-to", "conf", "yaml"))
	must(c.MarkFlagFilename("kubeconfig"))
	must(c.RegisterFlagCompletionFunc("logging-format", cobra.FixedCompletions([]cobra.Completion{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
}

// registerManifests adds the flag that says where the manifests are.
func (f *flags) registerManifests(c *cobra.Command) {
	f.options, f.set = options.New(), c.Flags()
	f.set.StringVar(&f.manifests, "manifests", "", "`directory` of YAML or JSON: Services, EndpointSlices, Endpoints, Nodes, ServiceCIDRs")
	must(c.MarkFlagDirname("manifests"))
}

// completions adds what shells ask for.
func (f *flags) completions(c *cobra.Command) {
	must(c.MarkFlagFilename("config", "conf", "yaml"))
	must(c.RegisterFlagCompletionFunc("detect-local-mode", cobra.FixedCompletions(
		[]cobra.Completion{string(plan.ClusterCIDR), string(plan.NodeCIDR), string(plan.BridgeInterface), string(plan.InterfaceNamePrefix)},
		cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("proxy-mode", cobra.FixedCompletions(
		[]cobra.Completion{string(options.ModeNFTables), string(options.ModeIPTables), string(options.ModeIPVS)}, cobra.ShellCompDirectiveNoFileComp)))
}

// registerNodeAddress adds the flag that stands for the interfaces of a node.
func (f *flags) registerNodeAddress(s *pflag.FlagSet) {
	s.StringSliceVar(&f.nodeAddresses, "node-address", nil, "`address` of the node's interfaces, as the daemon would find on the node; may be repeated")
}

// registerSocket adds the flag that says where the daemon answers.
func (f *flags) registerSocket(c *cobra.Command) {
	c.Flags().StringVar(&f.socket, "socket", defaultSocket, "unix `socket` where the daemon answers `nftproxy status`")
	must(c.MarkFlagFilename("socket", "sock"))
}

// must panics if a flag was registered wrongly: a mistake in this file.
func must(err error) {
	if err != nil {
		panic("nftproxy: " + err.Error())
	}
}

// config returns what the flags and the file mean. The error names every flag or field that makes no
// sense.
func (f *flags) config() (config, error) {
	o := f.options
	var errs []error
	check := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	if f.manifests == "" && !f.kubernetes {
		check("--manifests", errors.New("required: the directory with the manifests"))
	}
	if err := o.Complete(f.set); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, checkSources(f.manifests, o.Config.ClientConnection.Kubeconfig, o.Master))
	c := config{Options: o, Manifests: f.manifests, Socket: f.socket, AllowExternalIPs: o.AllowExternalIPs(), StandIn: f.kubeProxy(), SetHost: f.setHost()}
	c.Log = logConfig{Verbosity: int(o.Config.Logging.Verbosity), JSON: o.Config.Logging.Format == logs.JSONLogFormat}
	c.Warnings = o.Warnings
	var err error
	c.NodeName, err = nodeName(o.Config.HostnameOverride, os.Hostname)
	check(o.Field("hostnameOverride"), err)
	c.NodeAddresses, err = parseAddresses(f.nodeAddresses)
	check("--node-address", err)
	c.Plan, err = f.plan(&c.Warnings)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		code := exitUsage
		if o.ConfigFile != "" {
			code = exitFailed
		}
		return config{}, exitError{code: code, err: err}
	}
	return c, nil
}

// kubeProxy reports whether nftproxy stands in for kube-proxy: an empty mode then means what it means
// there.
func (f *flags) kubeProxy() bool { return f.manifests == "" || f.options.ConfigFile != "" }

// setHost reports whether to do to the host what kube-proxy does: where nftproxy stands in for it, or
// somebody asks for it.
func (f *flags) setHost() bool {
	asked := f.options.Given("oom-score-adj")
	f.set.Visit(func(g *pflag.Flag) { asked = asked || strings.HasPrefix(g.Name, "conntrack-") })
	return f.kubeProxy() || asked
}

// plan returns what the settings mean for the ruleset.
func (f *flags) plan(warnings *[]string) (plan.Config, error) {
	o := f.options
	p := plan.Config{MasqueradeAll: o.MasqueradeAll(), MasqueradeBit: o.MasqueradeBit(), Scheduler: o.Scheduler(), ExcludeIPVS: o.ExcludeCIDRs()}
	var errs []error
	var err error
	if p.NodePortAddresses, err = parseNodePortAddresses(o.Config.NodePortAddresses); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", o.Field("nodePortAddresses"), err))
	}
	if len(o.Config.NodePortAddresses) == 0 && f.servesAll() {
		p.NodePortAddresses = plan.NodePortAddresses{All: true}
	}
	var notes []string
	p.DetectLocal, notes, err = f.detectLocal()
	*warnings = append(*warnings, notes...)
	return p, errors.Join(append(errs, err)...)
}

// servesAll reports whether node ports are served on all addresses if nothing is said: what
// kube-proxy does in all of its modes but nftables.
func (f *flags) servesAll() bool {
	switch f.options.Config.Mode {
	case options.ModeIPTables, options.ModeIPVS:
		return true
	case options.ModeDefault:
		return f.kubeProxy()
	}
	return false
}

// nodeName returns the name of this node: what was asked for or the host name, in lower case and
// without space around it, as kube-proxy does.
func nodeName(override string, hostname func() (string, error)) (string, error) {
	name := override
	if name == "" {
		h, err := hostname()
		if err != nil {
			return "", fmt.Errorf("not given, and the host name is unknown: %w", err)
		}
		name = h
	}
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" {
		return "", errors.New("empty node name")
	}
	return name, nil
}

// parseAddresses returns IP addresses.
func parseAddresses(words []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, w := range words {
		a, err := netip.ParseAddr(strings.TrimSpace(w))
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("%q is not an IP address", w)
		}
		addrs = append(addrs, a.Unmap())
	}
	return addrs, nil
}

// parseNodePortAddresses returns what --nodeport-addresses says; nothing means primary.
func parseNodePortAddresses(words []string) (plan.NodePortAddresses, error) {
	var n plan.NodePortAddresses
	for _, w := range words {
		switch w = strings.TrimSpace(w); w {
		case "primary":
			n.Primary = true
		case "all":
			n.All = true
		case "localhost":
			return n, errors.New("localhost: node ports on loopback addresses are not served yet; leave it out")
		default:
			p, err := netip.ParsePrefix(w)
			if err != nil {
				return n, fmt.Errorf("%q is neither primary, all nor a CIDR", w)
			}
			n.CIDRs = append(n.CIDRs, p.Masked())
		}
	}
	if len(words) == 0 {
		n.Primary = true
	}
	return n, nil
}

// detectLocal returns what the four settings about local traffic mean together.
func (f *flags) detectLocal() (d plan.DetectLocal, warnings []string, err error) {
	o := f.options
	c := &o.Config
	d.Mode = cmp.Or(plan.DetectMode(c.DetectLocalMode), plan.ClusterCIDR)
	var errs []error
	cidrs, err := parseClusterCIDR(c.ClusterCIDR)
	if err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", o.Field("clusterCIDR"), err))
	}
	bridge, prefix := o.Field("detectLocal.bridgeInterface"), o.Field("detectLocal.interfaceNamePrefix")
	err = nil
	switch d.Mode {
	case plan.ClusterCIDR:
		d.CIDRs = cidrs
		if c.ClusterCIDR == "" {
			warnings = append(warnings, o.Field("clusterCIDR")+" is not set: traffic of this node's pods is not told from other traffic, cluster IPs are not masqueraded")
		}
	case plan.NodeCIDR:
	case plan.BridgeInterface:
		d.Interface, err = parseInterface(bridge, c.DetectLocal.BridgeInterface, d.Mode)
	case plan.InterfaceNamePrefix:
		d.Interface, err = parseInterface(prefix, c.DetectLocal.InterfaceNamePrefix, d.Mode)
	default:
		err = fmt.Errorf("%s: %q is none of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix", o.Field("detectLocalMode"), c.DetectLocalMode)
	}
	unused := func(name, value string, mode plan.DetectMode) {
		if value != "" && d.Mode != mode {
			warnings = append(warnings, fmt.Sprintf("%s has no effect with the detect-local mode %s", name, d.Mode))
		}
	}
	unused(bridge, c.DetectLocal.BridgeInterface, plan.BridgeInterface)
	unused(prefix, c.DetectLocal.InterfaceNamePrefix, plan.InterfaceNamePrefix)
	return d, warnings, errors.Join(append(errs, err)...)
}

// parseClusterCIDR returns one CIDR or a pair of both families; none for the empty string.
func parseClusterCIDR(s string) ([]netip.Prefix, error) {
	if s == "" {
		return nil, nil
	}
	var cidrs []netip.Prefix
	for w := range strings.SplitSeq(s, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(w))
		if err != nil {
			return nil, fmt.Errorf("%q is not a CIDR", w)
		}
		cidrs = append(cidrs, p.Masked())
	}
	if len(cidrs) > 2 || len(cidrs) == 2 && cidrs[0].Addr().Is4() == cidrs[1].Addr().Is4() {
		return nil, fmt.Errorf("%q is neither one CIDR nor a pair of an IPv4 and an IPv6 CIDR", s)
	}
	return cidrs, nil
}

// parseInterface returns the name, or the beginning of the name, of an interface.
func parseInterface(field, name string, mode plan.DetectMode) (string, error) {
	// IFNAMSIZ is 16 with the final zero.
	const longest = 15
	bad := func(r rune) bool { return r <= ' ' || r == '/' || r == '"' || r == '*' || r > '~' }
	switch {
	case name == "":
		return "", fmt.Errorf("%s: required with the detect-local mode %s", field, mode)
	case len(name) > longest || slices.ContainsFunc([]rune(name), bad):
		return "", fmt.Errorf("%s: %q is not the name of an interface", field, name)
	}
	return name, nil
}
