// Package fake is a kernel in memory: it keeps nft tables by the rules of Linux, and follows packets through them.
//
// [Kernel] takes the same transactions as nft/kernel and refuses what Linux refuses; the package
// nft/fake/suite has the tests that both must pass. [Trace] says what becomes of one packet.
package fake

import (
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
)

// ErrLost is what Commit returns for a transaction that was done although nobody said so, as when
// there is no room for the acknowledgement.
const ErrLost = unix.ENOBUFS

// A Kernel holds tables. The zero value is an empty kernel. It may be used from several goroutines.
type Kernel struct {
	// Fail, if set, is asked before each step; the transaction is refused at that step with the
	// error that it returns.
	Fail func(nft.Op) error
	// Refuse is the probability that a transaction is refused at its first step.
	Refuse float64
	// Lose is the probability that a transaction is done, but Commit returns ErrLost.
	Lose float64
	// Rand decides by Refuse and Lose; required if one of them is not zero.
	Rand *rand.Rand

	mu     sync.Mutex
	tables []*table
	stats  Stats
}

// Stats counts what a Kernel did.
type Stats struct {
	Commits  int // transactions that were done
	Refusals int // transactions that were not
	Ops      int // steps of transactions that were done
	Loads    int
}

// Stats returns the counts so far.
func (k *Kernel) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stats
}

// Load returns copies of the tables of a name, IPv4 first, with sorted elements.
func (k *Kernel) Load(name string) ([]nft.Table, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stats.Loads++
	var r []nft.Table
	for _, f := range nft.Families() {
		if t := k.table(f, name); t != nil {
			r = append(r, t.value())
		}
	}
	return r, nil
}

// Commit does all steps of a transaction, or none if it returns a *nft.RefusedError.
func (k *Kernel) Commit(tx nft.Tx) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if tx == nil {
		return nil
	}
	c := commit{kernel: k, refuse: k.chance(k.Refuse)}
	for op := range tx {
		if err := c.step(op); err != nil {
			c.rollback()
			k.stats.Refusals++
			return &nft.RefusedError{Op: clone(op), Err: err}
		}
		c.ops++
	}
	k.stats.Commits++
	k.stats.Ops += c.ops
	if k.chance(k.Lose) {
		return ErrLost
	}
	return nil
}

// chance reports true with a probability.
func (k *Kernel) chance(p float64) bool { return p > 0 && k.Rand.Float64() < p }

// Clear removes all tables, as "nft flush ruleset" does.
func (k *Kernel) Clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tables = nil
}

// table returns a table, or nil if it does not exist.
func (k *Kernel) table(f nft.Family, name string) *table {
	for _, t := range k.tables {
		if t.family == f && t.name == name {
			return t
		}
	}
	return nil
}

// A commit is a transaction on its way.
type commit struct {
	kernel *Kernel
	refuse bool // at the next step
	ops    int
	undo   []func() // what takes the steps back, the last first
}

// rollback takes back what was done.
func (c *commit) rollback() {
	for _, f := range slices.Backward(c.undo) {
		f()
	}
}

// step does one step, or returns the error of the kernel.
func (c *commit) step(op nft.Op) error {
	if c.refuse {
		return unix.ENOMEM
	}
	if c.kernel.Fail != nil {
		if err := c.kernel.Fail(op); err != nil {
			return err
		}
	}
	if op.Table != nil {
		return c.stepTable(op)
	}
	t := c.kernel.table(op.Family, op.Name)
	if t == nil {
		return unix.ENOENT
	}
	switch {
	case op.Set != nil && op.Element != nil:
		return c.stepElement(t, op)
	case op.Set != nil:
		return c.stepSet(t, op)
	case op.Chain != nil:
		return c.stepChain(t, op)
	}
	return unix.EINVAL
}

// clone returns op with a copy of its element, which the maker of the transaction may reuse.
func clone(op nft.Op) nft.Op {
	if op.Element != nil {
		e := *op.Element
		op.Element = &e
	}
	return op
}
