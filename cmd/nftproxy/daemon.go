package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nftproxy/nftproxy/cmd/nftproxy/options"
	"github.com/nftproxy/nftproxy/nft/kernel"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/plan"
	"github.com/nftproxy/nftproxy/watch"
)

// grace is how long the daemon, told to end, waits for what is under way: a transaction that was
// sent is done by the kernel whether we wait or not.
const grace = time.Second

// runCommand returns the command that is the daemon.
func runCommand() *cobra.Command {
	var f flags
	c := newCommand("run", "Program this node's nftables and follow every change", `
It follows the Services and their endpoints and the addresses of this node, programs
the tables "ip nftproxy" and "ip6 nftproxy", and follows every change, until it is
ended. SIGTERM and SIGINT end it at once and leave the rules, so that traffic
goes on; the next start sends the kernel only what differs. `+"`nftproxy cleanup`"+`
removes the rules.

The Services come from the Kubernetes API server that --kubeconfig or --master
name, or of whose cluster this is a pod; or, with --manifests, from a directory.
Both at once are refused. An API server that does not answer takes nothing away.

It needs CAP_NET_ADMIN. One daemon runs in a network namespace.`, `
  nftproxy run --kubeconfig /etc/nftproxy/kubeconfig --cluster-cidr 10.244.0.0/16
  nftproxy run --manifests /etc/nftproxy/manifests --cluster-cidr 10.244.0.0/16
  nftproxy run --manifests ./manifests --hostname-override node-1 \
    --detect-local-mode BridgeInterface --pod-bridge-interface cbr0 \
    --nodeport-addresses primary,192.0.2.0/24 --logging-format json -v 2`, func(c *cobra.Command) error {
		if done, err := instead(&f, c.OutOrStdout(), c.ErrOrStderr()); done {
			return err
		}
		cfg, err := f.config()
		if err != nil {
			return err
		}
		return runDaemon(c.Context(), cfg, c.ErrOrStderr())
	})
	f.registerAll(c)
	f.registerSocket(c)
	return c
}

// runDaemon is the daemon: sources -> hub -> engine -> kernel, until the context ends.
func runDaemon(ctx context.Context, cfg config, stderr io.Writer) error {
	log, verbosity, err := newLeveledLog(cfg.Log, stderr)
	if err != nil {
		return err
	}
	cfg.Plan.DisableIPv6 = !hasIPv6("/proc")
	warnings, err := checkFamilies(cfg.Plan)
	if err != nil {
		return err
	}
	cfg.Warnings = append(cfg.Warnings, warnings...)
	observer := newObserver(cfg, log, verbosity)
	from, client, err := sources(cfg, log)
	if err != nil {
		return err
	}
	lock, err := takeLock(lockName)
	if err != nil {
		return err
	}
	defer lock.Close()
	logConfiguration(log, cfg)
	if cfg.SetHost {
		setOOMScore(cfg, log)
		if err := setHost(cfg, log); err != nil {
			return err
		}
	}

	conn, err := kernel.Dial(kernel.Config{Keys: plan.Keys})
	if err != nil {
		return fmt.Errorf("open nftables (this needs CAP_NET_ADMIN): %w", err)
	}
	defer conn.Close()
	hub := watch.NewHub(
		watch.Config{NodeName: cfg.NodeName, Log: log, AllowExternalIPs: cfg.AllowExternalIPs, NodeIP: cfg.Options.BindAddress(), Queued: observer.queued}, from...)
	servers := ipvsKernel(cfg)
	defer servers.Close()
	engine := proxier.New(cfg.Plan, conn, servers, log)
	synced := firstSync(engine)
	inherit := takeOver(cfg, synced, log)
	observer.observe(engine, hub)
	clean, err := cleanConntrack(engine, log, observer.passed)
	if err != nil {
		return err
	}
	server, err := listenStatus(cfg.Socket, statusOf(cfg, engine, hub))
	if err != nil {
		return err
	}

	group, running := errgroup.WithContext(ctx)
	if err := observer.run(running, client, group.Go); err != nil {
		return err
	}
	group.Go(func() error { return loadAhead(conn, log) })
	group.Go(func() error { return hub.Run(running) })
	group.Go(func() error { return engine.Run(running, hub.Snapshots()) })
	group.Go(func() error { return server.run(running) })
	group.Go(func() error { return cfg.Options.Watch(running) })
	group.Go(func() error { return inherit(running) })
	group.Go(func() error { return clean(running) })
	group.Go(func() error { return watchForeign(running, synced, conn, engine, log) })
	group.Go(func() error { return freeStartMemory(running, synced) })
	return wait(ctx, group, log)
}

// loadAhead reads the rules while the sources still collect what is wanted. A failure is the engine's to
// deal with, which meets it again.
func loadAhead(conn *kernel.Conn, log *zap.Logger) error {
	if err := conn.LoadAhead(plan.TableName); err != nil {
		log.Debug("the rules are not read ahead", zap.Error(err))
	}
	return nil
}

// steadyGOGC is how much garbage there may be, in percent of what is in use: at 10,000 Services with 10 endpoints 113 MiB
// are resident, and with 100 127 MiB. A change of an endpoint costs 0.75 ms with either.
const steadyGOGC = 75

// freeStartMemory gives back after the first sync what only the start needed. The first load of a large cluster makes
// more garbage than all that follows, and the runtime would keep room for as much again.
//
// From then on GOGC is steadyGOGC, unless the operator chose one. Until the first sync it is Go's own: at 10,000 Services
// with 10 endpoints 200 and 400 made it neither sooner nor cheaper than 100, in three runs each.
func freeStartMemory(ctx context.Context, synced <-chan struct{}) error {
	select {
	case <-ctx.Done():
	case <-synced:
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(steadyGOGC)
		}
		debug.FreeOSMemory()
	}
	return nil
}

// wait waits for the tasks. That they end because ctx did is no error, and not worth waiting for
// longer than grace.
func wait(ctx context.Context, group *errgroup.Group, log *zap.Logger) error {
	done := make(chan error, 1)
	go func() { done <- group.Wait() }()
	select {
	case err := <-done:
		if ctx.Err() == nil {
			return err
		}
	case <-ctx.Done():
		select {
		case <-done:
		case <-time.After(grace):
		}
	}
	log.Info("told to end; the rules stay, `nftproxy cleanup` removes them")
	return nil
}

// logConfiguration logs once what the daemon works with, and what is probably not meant.
func logConfiguration(log *zap.Logger, cfg config) {
	b := thisBuild()
	log.Info("nftproxy starts",
		zap.String("version", b.Version), zap.String("commit", b.Commit), zap.String("go", b.Go), zap.Int("pid", os.Getpid()),
		zap.String("config", cfg.Options.ConfigFile), zap.String("node", cfg.NodeName), zap.String("manifests", cfg.Manifests), zap.String("socket", cfg.Socket),
		zap.String("detectLocalMode", string(cfg.Plan.DetectLocal.Mode)), zap.Stringers("clusterCIDR", cfg.Plan.DetectLocal.CIDRs),
		zap.String("podInterface", cfg.Plan.DetectLocal.Interface),
		zap.Bool("nodePortPrimary", cfg.Plan.NodePortAddresses.Primary), zap.Bool("nodePortAll", cfg.Plan.NodePortAddresses.All),
		zap.Stringers("nodePortCIDRs", cfg.Plan.NodePortAddresses.CIDRs),
		zap.String("scheduler", cfg.Plan.Scheduler), zap.Stringers("ipvsExcludeCIDRs", cfg.Plan.ExcludeIPVS),
		zap.Bool("masqueradeAll", cfg.Plan.MasqueradeAll), zap.Uint8("masqueradeBit", cfg.Plan.MasqueradeBit),
		zap.Bool("ipv6", !cfg.Plan.DisableIPv6), zap.Bool(options.GateExternalIPs, cfg.AllowExternalIPs))
	if cfg.Plan.DisableIPv6 {
		log.Info("this host does not speak IPv6: only the IPv4 table is programmed")
	}
	logWarnings(log, cfg)
	for _, w := range hostWarnings("/proc", !cfg.Plan.DisableIPv6) {
		log.Warn(w)
	}
}

// logWarnings logs what is probably not meant.
func logWarnings(log *zap.Logger, cfg config) {
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
}
