// Package options is the command line and the configuration file of kube-proxy.
//
// Flags and file are two ways to write the same KubeProxyConfiguration. Start reading at [Options].
package options

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	proxyconfig "k8s.io/kube-proxy/config/v1alpha1"
)

// The modes of kube-proxy. All of them mean nftables here, but that in the mode ipvs the Services that name
// no scheduler get that of the configuration.
const (
	ModeDefault  proxyconfig.ProxyMode = ""
	ModeIPTables proxyconfig.ProxyMode = "iptables"
	ModeIPVS     proxyconfig.ProxyMode = "ipvs"
	ModeNFTables proxyconfig.ProxyMode = "nftables"
)

// Options are what kube-proxy's command line and its configuration file say.
type Options struct {
	// Config is the configuration: of the file if there is one, else of the flags. Defaults are
	// filled in, so its pointers are not nil.
	Config proxyconfig.KubeProxyConfiguration
	// ConfigFile is the file (--config), empty if there is none.
	ConfigFile string
	// Master is the URL of the API server (--master), over what the kubeconfig says.
	Master string

	// WriteConfigTo, InitOnly, Cleanup and Version ask for something else than a daemon.
	WriteConfigTo string
	InitOnly      bool
	Cleanup       bool
	Version       bool

	// Warnings are what is accepted, but does not do what one may think: a sentence each.
	Warnings []string

	raw   raw
	given map[string]bool
	// content is what the file held.
	content []byte
}

// raw are flags that need a second look.
type raw struct {
	featureGates map[string]string
	vmodule      string
	verbosity    int
	healthzPort  int32
	metricsPort  int32
	// ignored and split take values that nobody reads.
	ignored string
	split   bool
}

// New returns the options of an empty command line.
func New() *Options {
	o := &Options{}
	setDefaults(&o.Config)
	o.raw.healthzPort, o.raw.metricsPort = healthzPort, metricsPort
	return o
}

// Complete makes sense of the flags that were parsed, and reads the file if there is one. The error
// names every flag or field that makes no sense.
func (o *Options) Complete(flags *pflag.FlagSet) error {
	o.given = map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { o.given[f.Name] = true })
	errs := o.fromFlags()
	if o.ConfigFile != "" {
		file, err := o.readFile()
		if err != nil {
			return err
		}
		o.useFile(file)
	}
	errs = append(errs, o.validate()...)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	o.warn()
	return nil
}

// Given reports whether the command line has a flag.
func (o *Options) Given(flag string) bool { return o.given[flag] }

// fromFlags finishes the configuration that the flags wrote into.
func (o *Options) fromFlags() []error {
	var errs []error
	c := &o.Config
	var err error
	if c.FeatureGates, err = parseGates(o.raw.featureGates); err != nil {
		errs = append(errs, fmt.Errorf("--feature-gates: %w", err))
	}
	if c.Logging.VModule, err = parseVModule(o.raw.vmodule); err != nil {
		errs = append(errs, fmt.Errorf("--vmodule: %w", err))
	}
	if err := setVerbosity(&c.Logging.Verbosity, o.raw.verbosity); err != nil {
		errs = append(errs, fmt.Errorf("--v: %w", err))
	}
	c.HealthzBindAddress = withDeprecatedPort(c.HealthzBindAddress, o.raw.healthzPort)
	c.MetricsBindAddress = withDeprecatedPort(c.MetricsBindAddress, o.raw.metricsPort)
	// kube-proxy has no flags of its own for nftables.
	c.NFTables.MasqueradeAll = c.IPTables.MasqueradeAll
	c.NFTables.SyncPeriod = c.IPTables.SyncPeriod
	c.NFTables.MinSyncPeriod = c.IPTables.MinSyncPeriod
	return errs
}

// useFile puts a file in the place of the flags, but for those flags that count beside a file.
func (o *Options) useFile(file proxyconfig.KubeProxyConfiguration) {
	flags := o.Config
	o.Config = file
	if flags.HostnameOverride != "" {
		o.Config.HostnameOverride = flags.HostnameOverride
	}
	l := &o.Config.Logging
	if o.Given("v") {
		l.Verbosity = flags.Logging.Verbosity
	}
	if o.Given("vmodule") {
		l.VModule = flags.Logging.VModule
	}
	if o.Given("logging-format") {
		l.Format = flags.Logging.Format
	}
	if o.Given("log-flush-frequency") {
		l.FlushFrequency = flags.Logging.FlushFrequency
	}
}

// Field returns how a person writes a field of the configuration: the flag, or the field in the
// file.
func (o *Options) Field(field string) string {
	if o.ConfigFile != "" {
		return o.ConfigFile + ": " + field
	}
	if flag := flagOf(field); flag != "" {
		return "--" + flag
	}
	return field
}

// defaultScheduler is that of kube-proxy's mode ipvs.
const defaultScheduler = "rr"

// Scheduler returns the scheduler of IPVS for Services that name none; empty if nftables serves them.
func (o *Options) Scheduler() string {
	if o.Config.Mode != ModeIPVS {
		return ""
	}
	return cmp.Or(o.Config.IPVS.Scheduler, defaultScheduler)
}

// ExcludeCIDRs returns the ranges of virtual servers to leave alone. What makes no sense is left out: it was
// refused by Complete.
func (o *Options) ExcludeCIDRs() []netip.Prefix {
	var out []netip.Prefix
	for _, w := range o.Config.IPVS.ExcludeCIDRs {
		if p, err := netip.ParsePrefix(w); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// MasqueradeAll reports whether the section of the mode asks to masquerade everything.
func (o *Options) MasqueradeAll() bool {
	if o.Config.Mode == ModeNFTables {
		return o.Config.NFTables.MasqueradeAll
	}
	return o.Config.IPTables.MasqueradeAll
}

// MasqueradeBit returns the bit of the packet mark in the section of the mode.
func (o *Options) MasqueradeBit() uint8 {
	if o.Config.Mode == ModeNFTables {
		return uint8(*o.Config.NFTables.MasqueradeBit)
	}
	return uint8(*o.Config.IPTables.MasqueradeBit)
}

// BindAddress returns the address that stands for the node's own in its family, invalid if none
// does.
func (o *Options) BindAddress() netip.Addr {
	a, err := netip.ParseAddr(o.Config.BindAddress)
	if err != nil || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a.Unmap()
}

// withDeprecatedPort returns an address with a port: --healthz-port and --metrics-port had it
// before. Port 0 switches off.
func withDeprecatedPort(address string, port int32) string {
	if port == 0 {
		return ""
	}
	return withPort(address, port)
}

// withPort returns an address with the port appended if it is an IP address alone.
func withPort(address string, port int32) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	if _, err := netip.ParseAddr(address); err != nil {
		return address
	}
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}

// parseGates returns what --feature-gates says.
func parseGates(words map[string]string) (map[string]bool, error) {
	gates := map[string]bool{}
	for name, value := range words {
		on, err := strconv.ParseBool(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("%s=%s is neither true nor false", name, value)
		}
		gates[strings.TrimSpace(name)] = on
	}
	return gates, nil
}

// sorted returns the keys of a map in order.
func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
