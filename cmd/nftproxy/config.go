package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nftproxy/nftproxy/proxier/plan"
)

// defaultSocket is where the daemon answers `nftproxy status`.
const defaultSocket = "/run/nftproxy/nftproxy.sock"

// masqueradeBit is the bit of the packet mark that asks for masquerading; kube-proxy's default.
const masqueradeBit = 14

// gateExternalIPs is the one feature gate of kube-proxy that means something here.
const gateExternalIPs = "AllowServiceExternalIPs"

// flags are the raw values of the command line; [flags.config] makes sense of them.
type flags struct {
	manifests         string
	hostname          string
	nodeAddresses     []string
	clusterCIDR       string
	detectLocalMode   string
	podBridge         string
	podPrefix         string
	nodePortAddresses []string
	masqueradeAll     bool
	featureGates      map[string]string
	verbosity         int
	logFormat         string
	socket            string
}

// A config is what the command line means, checked.
type config struct {
	Manifests        string
	NodeName         string
	NodeAddresses    []netip.Addr
	Plan             plan.Config
	AllowExternalIPs bool
	Socket           string
	Log              logConfig
	// Warnings are what is allowed but probably not meant.
	Warnings []string
}

// register adds the flags that say what the ruleset should be to a command. They have kube-proxy's
// names where kube-proxy has them.
func (f *flags) register(c *cobra.Command) {
	s := c.Flags()
	s.StringVar(&f.manifests, "manifests", "", "`directory` of YAML or JSON: Services, EndpointSlices, Endpoints, Nodes, ServiceCIDRs (required)")
	s.StringVar(&f.hostname, "hostname-override", "", "`name` of this node's Node object (default: the host name in lower case)")
	s.StringVar(&f.clusterCIDR, "cluster-cidr", "", "pod `ranges` of the cluster: one CIDR, or one of each family separated by a comma")
	s.StringVar(&f.detectLocalMode, "detect-local-mode", "", "how to tell traffic of this node's pods: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix (default ClusterCIDR)")
	s.StringVar(&f.podBridge, "pod-bridge-interface", "", "`bridge` of this node's pods, for --detect-local-mode=BridgeInterface")
	s.StringVar(&f.podPrefix, "pod-interface-name-prefix", "", "beginning of the interface `names` of this node's pods, for --detect-local-mode=InterfaceNamePrefix")
	s.StringSliceVar(&f.nodePortAddresses, "nodeport-addresses", nil, "where node ports are served: `primary`, all, or CIDRs of node addresses; commas between (default primary)")
	s.BoolVar(&f.masqueradeAll, "masquerade-all", false, "masquerade everything sent to a cluster IP")
	s.StringToStringVar(&f.featureGates, "feature-gates", nil, "kube-proxy's feature `gates`; known: "+gateExternalIPs+"=true|false (default true)")
	must(c.MarkFlagDirname("manifests"))
	must(c.RegisterFlagCompletionFunc("detect-local-mode", cobra.FixedCompletions(
		[]cobra.Completion{string(plan.ClusterCIDR), string(plan.NodeCIDR), string(plan.BridgeInterface), string(plan.InterfaceNamePrefix)},
		cobra.ShellCompDirectiveNoFileComp)))
}

// registerNodeAddress adds the flag that stands for the interfaces of a node.
func (f *flags) registerNodeAddress(s *pflag.FlagSet) {
	s.StringSliceVar(&f.nodeAddresses, "node-address", nil, "`address` of the node's interfaces, as the daemon would find on the node; may be repeated")
}

// registerLog adds the flags about logging to a command.
func (f *flags) registerLog(c *cobra.Command) {
	c.Flags().IntVarP(&f.verbosity, "v", "v", 0, "verbosity of the log; 0 is for operators, 4 and more for developers")
	c.Flags().StringVar(&f.logFormat, "logging-format", "text", "`format` of the log: text or json")
	must(c.RegisterFlagCompletionFunc("logging-format", cobra.FixedCompletions([]cobra.Completion{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
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

// config returns what the flags mean. The error names every flag that makes no sense.
func (f *flags) config() (config, error) {
	c := config{Manifests: f.manifests, Socket: f.socket, Log: logConfig{Verbosity: f.verbosity, JSON: f.logFormat == "json"}}
	c.Plan = plan.Config{MasqueradeAll: f.masqueradeAll, MasqueradeBit: masqueradeBit}
	var errs []error
	check := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	if f.manifests == "" {
		check("manifests", errors.New("required: the directory with the manifests"))
	}
	var err error
	c.NodeName, err = nodeName(f.hostname, os.Hostname)
	check("hostname-override", err)
	c.NodeAddresses, err = parseAddresses(f.nodeAddresses)
	check("node-address", err)
	c.Plan.NodePortAddresses, err = parseNodePortAddresses(f.nodePortAddresses)
	check("nodeport-addresses", err)
	c.AllowExternalIPs, err = parseGates(f.featureGates)
	check("feature-gates", err)
	if f.verbosity < 0 {
		check("v", fmt.Errorf("%d is negative", f.verbosity))
	}
	if f.logFormat != "" && f.logFormat != "text" && f.logFormat != "json" {
		check("logging-format", fmt.Errorf("%q is neither text nor json", f.logFormat))
	}
	var local []error
	c.Plan.DetectLocal, c.Warnings, local = f.detectLocal()
	errs = append(errs, local...)
	if len(errs) > 0 {
		return config{}, exitError{code: exitUsage, err: errors.Join(errs...)}
	}
	return c, nil
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
			return n, errors.New("localhost is not supported: nftables cannot serve node ports on loopback addresses; use primary, all or CIDRs")
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

// parseGates returns the one gate that we know. Others are refused, as kube-proxy refuses unknown ones.
func parseGates(gates map[string]string) (allowExternalIPs bool, err error) {
	allowExternalIPs = true
	for name, value := range gates {
		if name != gateExternalIPs {
			return false, fmt.Errorf("unknown gate %q; known: %s", name, gateExternalIPs)
		}
		if allowExternalIPs, err = strconv.ParseBool(value); err != nil {
			return false, fmt.Errorf("%s=%s is neither true nor false", name, value)
		}
	}
	return allowExternalIPs, nil
}

// detectLocal returns what the four flags about local traffic mean together.
func (f *flags) detectLocal() (d plan.DetectLocal, warnings []string, errs []error) {
	d.Mode = plan.DetectMode(f.detectLocalMode)
	if d.Mode == "" {
		d.Mode = plan.ClusterCIDR
	}
	cidrs, err := parseClusterCIDR(f.clusterCIDR)
	if err != nil {
		errs = append(errs, fmt.Errorf("--cluster-cidr: %w", err))
	}
	switch d.Mode {
	case plan.ClusterCIDR:
		d.CIDRs = cidrs
		if f.clusterCIDR == "" {
			warnings = append(warnings, "--cluster-cidr is not set: traffic of this node's pods is not told from other traffic, cluster IPs are not masqueraded")
		}
	case plan.NodeCIDR:
	case plan.BridgeInterface:
		d.Interface, err = parseInterface("pod-bridge-interface", f.podBridge, d.Mode)
	case plan.InterfaceNamePrefix:
		d.Interface, err = parseInterface("pod-interface-name-prefix", f.podPrefix, d.Mode)
	default:
		err = fmt.Errorf("--detect-local-mode: %q is none of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix", f.detectLocalMode)
	}
	if err != nil && d.Mode != plan.ClusterCIDR {
		errs = append(errs, err)
	}
	unused := func(flag, value string, mode plan.DetectMode) {
		if value != "" && d.Mode != mode {
			warnings = append(warnings, fmt.Sprintf("--%s has no effect with --detect-local-mode=%s", flag, d.Mode))
		}
	}
	unused("pod-bridge-interface", f.podBridge, plan.BridgeInterface)
	unused("pod-interface-name-prefix", f.podPrefix, plan.InterfaceNamePrefix)
	return d, warnings, errs
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
func parseInterface(flag, name string, mode plan.DetectMode) (string, error) {
	// IFNAMSIZ is 16 with the final zero.
	const longest = 15
	bad := func(r rune) bool { return r <= ' ' || r == '/' || r == '"' || r == '*' || r > '~' }
	switch {
	case name == "":
		return "", fmt.Errorf("--%s: required with --detect-local-mode=%s", flag, mode)
	case len(name) > longest || slices.ContainsFunc([]rune(name), bad):
		return "", fmt.Errorf("--%s: %q is not the name of an interface", flag, name)
	}
	return name, nil
}
