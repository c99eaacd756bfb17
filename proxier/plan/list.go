package plan

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// A Front is one front end as programmed, for people to look at.
type Front struct {
	Service model.Name
	Port    string
	// Address is the address and port, or the node port.
	Address  string
	Family   nft.Family
	Protocol model.Protocol
	// Scheduler is how one of the endpoints is chosen, Plane who does it: ipvs or nftables.
	Scheduler, Plane string
	// Endpoints are where traffic goes, Local those of this node if the external traffic policy is
	// Local.
	Endpoints, Local []netip.AddrPort
	// Refuse is "reject" or "drop" if some traffic is refused for want of endpoints.
	Refuse string
}

// Fronts yields the front ends that are programmed, in no particular order.
func (s *State) Fronts() iter.Seq[Front] {
	return func(yield func(Front) bool) {
		for k := range s.claims.All() {
			c := s.holder(k)
			if k.kind != keyFrontEnd || c == nil {
				continue
			}
			f := Front{
				Service: c.service.Name, Port: c.port, Address: k.String(), Family: k.family, Protocol: k.proto,
				Scheduler: c.scheduler(), Plane: c.plane(),
				Endpoints: c.endpoints().cluster, Local: c.endpoints().local,
			}
			switch c.refuse.Kind {
			case nft.Drop:
				f.Refuse = "drop"
			case nft.Goto:
				f.Refuse = "reject"
			case nft.NoVerdict, nft.Accept, nft.Jump:
			}
			if !yield(f) {
				return
			}
		}
	}
}

// A Conflict is a front end that more than one Service claims.
type Conflict struct {
	Address string
	// Holder is the Service that has it, Loser one that does not.
	Holder, Loser model.Name
}

// Conflicts returns the front ends that more than one Service claims, sorted.
func (s *State) Conflicts() []Conflict {
	var all []Conflict
	for k, c := range s.contested.All() {
		all = append(all, c.conflicts(&k)...)
	}
	slices.SortFunc(all, Conflict.compare)
	return all
}

// ConflictsSince returns the conflicts that last did not have, and those that only last had.
func (s *State) ConflictsSince(last *State) (came, went []Conflict) {
	if last == nil {
		return s.Conflicts(), nil
	}
	for c := range model.Changes(last.contested, s.contested) {
		var before, now []Conflict
		if c.HasOld {
			before = c.Old.conflicts(&c.Key)
		}
		if c.HasNew {
			now = c.New.conflicts(&c.Key)
		}
		came = append(came, without(now, before)...)
		went = append(went, without(before, now)...)
	}
	return came, went
}

// without returns the conflicts that are in the first list only.
func without(list, others []Conflict) []Conflict {
	return slices.DeleteFunc(slices.Clone(list), func(c Conflict) bool { return slices.Contains(others, c) })
}

// conflicts returns the conflicts about one key.
func (c *claimants) conflicts(k *key) []Conflict {
	var all []Conflict
	for _, loser := range c.claims[1:] {
		all = append(all, Conflict{Address: k.String(), Holder: c.claims[0].claim.service.Name, Loser: loser.claim.service.Name})
	}
	return all
}

// compare orders conflicts by address.
func (c Conflict) compare(o Conflict) int {
	return cmp.Or(cmp.Compare(c.Address, o.Address), c.Loser.Compare(o.Loser), c.Holder.Compare(o.Holder))
}

// Services returns the number of Services that are programmed.
func (s *State) Services() int { return s.units.Len() }

// Uses reports whether a chain of balancers is in use, or always there.
func (s *State) Uses(chain string) bool {
	for b := range s.balancers {
		if b.name() == chain {
			return true
		}
	}
	return slices.ContainsFunc(preparedBalancers(), func(b balancer) bool { return b.name() == chain })
}

// portString returns a port with its protocol.
func portString(p model.Protocol, port uint16) string { return fmt.Sprintf("%d/%s", port, p) }
