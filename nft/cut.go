package nft

import "iter"

// Cut yields a transaction in pieces, in order: a new one begins where [Op].Cut allows it and the last
// one has as many steps. The kernel serves nobody else's transactions during one, so a long one is better
// cut. A piece is valid until the next one.
func Cut(tx Tx, steps int) iter.Seq[Tx] {
	return func(yield func(Tx) bool) {
		var c cutter
		for op := range tx {
			if op.Cut && len(c.ops) > 0 && len(c.ops) >= steps {
				if !yield(c.piece) {
					return
				}
				c.ops, c.elements = c.ops[:0], c.elements[:0]
			}
			c.add(op)
		}
		if len(c.ops) > 0 {
			yield(c.piece)
		}
	}
}

// A cutter holds the steps of a piece. Elements are copied, since each is valid for one step only.
type cutter struct {
	ops      []Op
	elements []Element
}

// add appends a step.
func (c *cutter) add(op Op) {
	if op.Element != nil {
		c.elements = append(c.elements, *op.Element)
	}
	c.ops = append(c.ops, op)
}

// piece is the transaction.
func (c *cutter) piece(yield func(Op) bool) {
	next := 0
	for _, op := range c.ops {
		if op.Element != nil {
			op.Element = &c.elements[next]
			next++
		}
		if !yield(op) {
			return
		}
	}
}
