package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"go.uber.org/zap"

	ipvskernel "github.com/nftproxy/nftproxy/proxier/ipvs/kernel"
	"github.com/nftproxy/nftproxy/proxier/leftovers"
)

// takeOver returns the task that removes the rules of kube-proxy once ours are in place, so that no
// connection is lost. There is nothing to do unless nftproxy stands in for kube-proxy. It happens at
// every start, as kube-proxy does it: who goes there and back, or was killed in the middle, has no
// old rules left.
func takeOver(cfg config, synced <-chan struct{}, log *zap.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		if !cfg.StandIn {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-synced:
		}
		report, err := leftovers.Remove(leftovers.Config{})
		if err != nil {
			// Ours work beside them, as they did until now, if with surprises once a Service changes.
			log.Error("the rules of kube-proxy stay; remove them with `nftproxy run --cleanup`, which removes ours too, and start again", zap.Error(err))
		}
		servers, err := removeServers(ipvskernel.Options{ExcludeCIDRs: cfg.Plan.ExcludeIPVS})
		if err != nil {
			log.Error("virtual servers of kube-proxy stay; `ipvsadm -Ln` shows them", zap.Error(err))
		}
		for _, r := range append(report.Removed, servers...) {
			log.Info("removed what kube-proxy left", zap.String("what", r))
		}
		for _, k := range append(report.Kept, leftovers.Advice("/proc")...) {
			log.Warn(k)
		}
		return nil
	}
}

// removeServers removes the virtual servers that kube-proxy left for node ports.
func removeServers(o ipvskernel.Options) ([]string, error) {
	k := ipvskernel.New(o)
	removed, err := leftovers.RemoveServers(k)
	return removed, errors.Join(err, k.Close())
}

// cleanupAll removes what is ours and what kube-proxy left, and writes to stdout what that was.
func cleanupAll(stdout io.Writer) error {
	lock, err := takeLock(lockName)
	if err != nil {
		return err
	}
	defer lock.Close()
	// Before the device goes, which tells that kube-proxy made some.
	servers, err := removeServers(ipvskernel.Options{})
	if err != nil {
		return err
	}
	if err := cleanup(stdout); err != nil {
		return err
	}
	report, err := leftovers.Remove(leftovers.Config{})
	if err != nil {
		return err
	}
	for _, r := range append(report.Removed, servers...) {
		if _, err := fmt.Fprintln(stdout, "deleted of kube-proxy:", r); err != nil {
			return fmt.Errorf("write what was deleted: %w", err)
		}
	}
	for _, k := range append(report.Kept, leftovers.Advice("/proc")...) {
		if _, err := fmt.Fprintln(stdout, "not deleted:", k); err != nil {
			return fmt.Errorf("write what was not deleted: %w", err)
		}
	}
	return nil
}
