package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/ipvs"
	ipvskernel "github.com/nftproxy/nftproxy/proxier/ipvs/kernel"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// arguments returns the arguments as nftproxy has them. Called as kube-proxy, or with flags alone as
// kube-proxy is, it means run.
func arguments(argv []string) []string {
	name, args := filepath.Base(argv[0]), argv[1:]
	switch {
	case len(args) == 0 && name == "kube-proxy":
		return []string{"run"}
	case len(args) == 0 || !strings.HasPrefix(args[0], "-"):
		return args
	case name != "kube-proxy" && (args[0] == "-h" || args[0] == "--help"):
		return args
	}
	return append([]string{"run"}, args...)
}

// instead does what the flags of kube-proxy ask for in the place of a daemon, and reports whether
// they do.
func instead(f *flags, stdout, stderr io.Writer) (bool, error) {
	if f.options.Version {
		return true, printVersion(stdout)
	}
	o := f.options
	if !o.Cleanup && !o.InitOnly && o.WriteConfigTo == "" {
		return false, nil
	}
	cfg, err := f.config()
	if err != nil {
		return true, err
	}
	log, err := newLog(cfg.Log, stderr)
	if err != nil {
		return true, err
	}
	switch {
	case o.WriteConfigTo != "":
		return true, writeConfig(cfg, log)
	case o.Cleanup:
		return true, cleanupAll(stdout)
	}
	logWarnings(log, cfg)
	return true, errors.Join(setHost(cfg, log), prepareIPVS(cfg, log))
}

// writeConfig writes the configuration with its defaults to the file that the command line names.
func writeConfig(cfg config, log *zap.Logger) error {
	b, err := cfg.Options.Encode()
	if err != nil {
		return err
	}
	name := cfg.Options.WriteConfigTo
	if err := os.WriteFile(name, b, 0o644); err != nil { //nolint:gosec // it holds no secrets
		return fmt.Errorf("write the configuration: %w", err)
	}
	log.Info("wrote the configuration", zap.String("file", name))
	return nil
}

// setHost sets the sysctls of connection tracking. Without one of them kube-proxy does not run, so
// neither do we.
func setHost(cfg config, log *zap.Logger) error {
	c := &cfg.Options.Config.Conntrack
	settings := host.Conntrack{
		MaxPerCore: int(*c.MaxPerCore), Min: int(*c.Min),
		TCPEstablished: c.TCPEstablishedTimeout.Duration, TCPCloseWait: c.TCPCloseWaitTimeout.Duration, TCPBeLiberal: c.TCPBeLiberal,
		UDP: c.UDPTimeout.Duration, UDPStream: c.UDPStreamTimeout.Duration,
	}.Settings(host.CPUs("/"))
	written, spared, err := host.Apply("/", settings)
	if errors.Is(errors.Join(spared, err), fs.ErrNotExist) {
		if err := host.LoadConntrack(); err != nil {
			return err
		}
		written, spared, err = host.Apply("/", settings)
	}
	for _, s := range written {
		log.Info("set", zap.Stringer("setting", s))
	}
	if spared != nil {
		log.Warn("the table of connections has fewer buckets than it should have", zap.Error(spared))
	}
	if err != nil {
		return fmt.Errorf("%w; it helps to run once with --init-only and the right to write it, or to leave it, with 0 in the configuration", err)
	}
	return nil
}

// prepareIPVS has the kernel load IPVS with the default scheduler, and sets its sysctls: what --init-only is
// for where the daemon itself may not. Without a default scheduler it does so if IPVS is loaded. That the
// kernel has no IPVS is no error, since nftables takes over.
func prepareIPVS(cfg config, log *zap.Logger) error {
	if cfg.Plan.Scheduler == "" && !ipvskernel.Available() {
		return nil
	}
	servers := ipvsKernel(cfg)
	defer servers.Close()
	err := servers.Supports(cfg.Plan.Scheduler)
	if errors.Is(err, ipvs.ErrUnsupported) {
		log.Warn("no IPVS with this scheduler; nftables will serve the Services", zap.String("scheduler", cfg.Plan.Scheduler), zap.Error(err))
		return nil
	}
	return err
}

// setOOMScore sets how readily the kernel kills us; a failure is not worth ending for.
func setOOMScore(cfg config, log *zap.Logger) {
	score := int(*cfg.Options.Config.OOMScoreAdj)
	if err := host.SetOOMScore("/", score); err != nil {
		log.Warn("the kernel kills this process like any other for memory", zap.Error(err))
	}
}

// checkFamilies returns what of a configuration does not fit the families that the host speaks: as
// warnings, or as an error where no traffic of pods would be told.
func checkFamilies(c plan.Config) (warnings []string, err error) {
	four, six := count(c.DetectLocal.CIDRs)
	if c.DisableIPv6 && six > 0 {
		if four == 0 {
			return nil, errors.New("the cluster CIDR is of IPv6, which this host does not speak")
		}
		warnings = append(warnings, "the cluster CIDR of IPv6 has no effect: this host does not speak IPv6")
	}
	four, six = count(c.NodePortAddresses.CIDRs)
	switch {
	case c.DisableIPv6 && six > 0:
		warnings = append(warnings, "the node port addresses of IPv6 have no effect: this host does not speak IPv6")
	case !c.DisableIPv6 && !c.NodePortAddresses.Primary && !c.NodePortAddresses.All && (four == 0) != (six == 0):
		warnings = append(warnings, "the node port addresses are of one family: node ports of the other are served on all of its addresses")
	}
	return warnings, nil
}

// count returns how many prefixes are of IPv4 and of IPv6.
func count(prefixes []netip.Prefix) (four, six int) {
	for _, p := range prefixes {
		if p.Addr().Is4() {
			four++
		} else {
			six++
		}
	}
	return four, six
}
