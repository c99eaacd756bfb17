package main

import (
	"fmt"
	"io"
	"maps"
	"net/netip"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	ipvskernel "github.com/nftproxy/nftproxy/proxier/ipvs/kernel"
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

// newServers returns the steps that make the virtual servers of a State out of nothing.
func newServers(state *plan.State) []ipvs.Op {
	want := ipvs.State{Servers: maps.Collect(state.Servers()), Addresses: map[netip.Addr]bool{}}
	for k := range want.Servers {
		want.Addresses[k.Addr.Addr()] = true
	}
	steps, _ := ipvs.Diff(ipvs.State{}, want)
	return steps
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
