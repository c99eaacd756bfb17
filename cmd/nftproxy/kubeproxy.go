package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/proxier/host"
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
	return true, setHost(cfg, log)
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
		return fmt.Errorf("%w (once may do: run with --init-only and the right to write; 0 in the configuration leaves a setting as it is)", err)
	}
	return nil
}

// setOOMScore sets how readily the kernel kills us; a failure is not worth ending for.
func setOOMScore(cfg config, log *zap.Logger) {
	score := int(*cfg.Options.Config.OOMScoreAdj)
	if err := host.SetOOMScore("/", score); err != nil {
		log.Warn("the kernel kills this process like any other for memory", zap.Error(err))
	}
}
