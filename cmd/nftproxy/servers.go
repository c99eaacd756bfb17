package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	ipvskernel "github.com/nftproxy/nftproxy/proxier/ipvs/kernel"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// ipvsKernel returns IPVS with the settings of the configuration. It does nothing until a Service asks for
// it.
func ipvsKernel(cfg config) *ipvskernel.Kernel {
	c := &cfg.Options.Config.IPVS
	return ipvskernel.New(ipvskernel.Options{
		StrictARP: c.StrictARP, TCPTimeout: c.TCPTimeout.Duration, TCPFinTimeout: c.TCPFinTimeout.Duration, UDPTimeout: c.UDPTimeout.Duration,
		ExcludeCIDRs: cfg.Plan.ExcludeIPVS,
	})
}

// diffServers compiles a snapshot for the schedulers that the kernel has, and returns the steps that the
// virtual servers are away from it.
func diffServers(cfg config, snapshot model.Snapshot, last *plan.State) (*plan.State, []ipvs.Op, error) {
	kernel := ipvsKernel(cfg)
	defer kernel.Close()
	have, err := kernel.Load()
	if err != nil {
		return nil, nil, fmt.Errorf("read the virtual servers: %w", err)
	}
	asked := plan.Compile(cfg.Plan, snapshot, nil).Asked()
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		if err := kernel.Supports(name); err == nil {
			cfg.Plan.Schedulers = append(cfg.Plan.Schedulers, name)
		} else if !errors.Is(err, ipvs.ErrUnsupported) {
			return nil, nil, fmt.Errorf("ask for the scheduler %s: %w", name, err)
		}
	}
	state := plan.Compile(cfg.Plan, snapshot, last)
	return state, serverSteps(have, state), nil
}

// serverSteps returns the steps that make the virtual servers of a State of what there is. Servers at
// addresses that are not on the device are somebody else's.
func serverSteps(have ipvs.State, state *plan.State) []ipvs.Op {
	want := ipvs.State{Servers: maps.Collect(state.Servers()), Addresses: map[netip.Addr]bool{}}
	for k := range want.Servers {
		want.Addresses[k.Addr.Addr()] = true
	}
	maps.DeleteFunc(have.Servers, func(k ipvs.Key, _ *ipvs.Virtual) bool { return !have.Addresses[k.Addr.Addr()] })
	before, after := ipvs.Diff(have, want)
	return slices.Concat(before, after)
}

// writeSteps writes steps of IPVS as comments of an nft script.
func writeSteps(w io.Writer, steps []ipvs.Op) error {
	for _, op := range steps {
		if _, err := fmt.Fprintln(w, "# ipvs:", op); err != nil {
			return fmt.Errorf("write the virtual servers: %w", err)
		}
	}
	return nil
}
