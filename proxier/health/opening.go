package health

import (
	"net/netip"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// A place is where to listen. The unspecified address stands for all addresses of its family.
type place struct{ addr netip.AddrPort }

// network returns the network that Go listens on: of this family only.
func (p place) network() string {
	if p.addr.Addr().Is4() {
		return "tcp4"
	}
	return "tcp6"
}

// String returns the place as people write it.
func (p place) String() string { return p.addr.String() }

// An opening is what to answer on one place.
type opening struct {
	place place
	check plan.Check
	// holder is the Service that has the place instead; empty if the check has it.
	holder model.Name
}

// mine reports whether an open listener is for this opening.
func (o *opening) mine(l *listener) bool {
	return o.holder == (model.Name{}) && o.check.Service == l.service
}

// openings returns where to answer the checks: on the addresses, and on all of some families. Checks
// of the same port all want the same places; the first one gets them.
func openings(checks []plan.Check, addrs []netip.Addr, all []nft.Family) []opening {
	var out []opening
	holders := map[place]model.Name{}
	add := func(c plan.Check, a netip.Addr) {
		o := opening{place: place{netip.AddrPortFrom(a, c.Port)}, check: c}
		if holder, taken := holders[o.place]; taken {
			o.holder = holder
		} else {
			holders[o.place] = c.Service
		}
		out = append(out, o)
	}
	for _, c := range checks {
		for _, f := range all {
			if f == c.Family {
				add(c, unspecified(f))
			}
		}
		for _, a := range addrs {
			if (c.Family == nft.IPv4) == a.Is4() {
				add(c, a)
			}
		}
	}
	return out
}

// unspecified returns the address that stands for all of a family.
func unspecified(f nft.Family) netip.Addr {
	if f == nft.IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
