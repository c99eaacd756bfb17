package fake

import (
	"maps"

	"github.com/nftproxy/nftproxy/nft"
)

// Outcomes returns what may become of a packet: a result for each way in which numgen may choose,
// as if each were the only packet. What the packet writes into dynamic maps is forgotten.
func (t *Tracer) Outcomes(p Packet, from nft.Hook) []Result {
	kept := t.dynamic
	defer func() { t.dynamic = kept }()
	var r []Result
	var o odometer
	for {
		t.dynamic = maps.Clone(kept)
		o.at = 0
		r = append(r, t.Trace(p, from, o.pick))
		if !o.advance() {
			return r
		}
	}
}

// An odometer goes through all choices of a number of picks, of which only the next run tells how many
// there are.
type odometer struct {
	choices []choice
	at      int // the next pick of this run
}

// A choice is one pick: n of mod.
type choice struct{ n, mod uint32 }

// pick returns the choice for the next pick.
func (o *odometer) pick(mod uint32) uint32 {
	if o.at == len(o.choices) {
		o.choices = append(o.choices, choice{mod: mod})
	}
	n := o.choices[o.at].n
	o.at++
	return n
}

// advance goes on to the next way, and reports whether there is one.
func (o *odometer) advance() bool {
	o.choices = o.choices[:o.at]
	for i := len(o.choices) - 1; i >= 0; i-- {
		c := &o.choices[i]
		if c.n++; c.n < c.mod {
			o.choices = o.choices[:i+1]
			return true
		}
	}
	return false
}
