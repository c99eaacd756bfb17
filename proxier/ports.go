package proxier

import (
	"net/netip"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/ipvs"
)

// A Kernel holds the ruleset. Package nft/kernel is the real one, nft/fake one in memory.
type Kernel interface {
	// Load reads the tables of a name, those that exist.
	Load(name string) ([]nft.Table, error)
	// Commit does all steps of a transaction or none. The error is an *nft.RefusedError if the
	// kernel refused a step; after any other it is not known what the kernel holds.
	Commit(tx nft.Tx) error
}

// IPVS is the load balancer of the kernel. Package ipvs/kernel is the real one, ipvs/fake one in memory.
type IPVS interface {
	// Supports reports nil if the kernel has IPVS and a scheduler; with "", IPVS alone. It asks the
	// kernel, which loads modules for that, and remembers a yes. An error that says what is missing is an
	// ipvs.ErrUnsupported.
	Supports(scheduler string) error
	// Load reads all virtual servers, with their destinations and counts, and the addresses of the
	// device. A kernel without IPVS has none.
	Load() (ipvs.State, error)
	// Apply does the steps in order and goes on after one that failed. It returns those that failed, in
	// order.
	Apply(ops []ipvs.Op) []ipvs.OpError
	// Counts reads the connections of each destination of a virtual server; none if there is no such
	// server.
	Counts(k ipvs.Key) (map[netip.AddrPort]ipvs.Counts, error)
}
