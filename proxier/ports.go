package proxier

import "github.com/nftproxy/nftproxy/nft"

// A Kernel holds the ruleset. Package nft/kernel is the real one, nft/fake one in memory.
type Kernel interface {
	// Load reads the tables of a name, those that exist.
	Load(name string) ([]nft.Table, error)
	// Commit does all steps of a transaction or none. The error is an *nft.RefusedError if the
	// kernel refused a step; after any other it is not known what the kernel holds.
	Commit(tx nft.Tx) error
}
