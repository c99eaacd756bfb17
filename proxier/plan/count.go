package plan

import (
	"github.com/nftproxy/nftproxy/nft"
)

// families is the number of families that there are.
const families = 2

// familyIndex returns the place of a family in arrays.
func familyIndex(f nft.Family) int {
	if f == nft.IPv6 {
		return 1
	}
	return 0
}

// Counts are numbers of what there is in one family.
type Counts struct {
	// FrontEnds are the front ends that a Service holds, Endpoints their endpoints: one counts once
	// for each front end.
	FrontEnds, Endpoints int
	// NoLocalInternal and NoLocalExternal are the Service ports that drop traffic to the cluster IP,
	// or from outside, since the traffic policy is Local, there are endpoints, and none is here.
	NoLocalInternal, NoLocalExternal int
}

// Counts returns the numbers of one family. They are kept up to date, not counted.
func (s *State) Counts(f nft.Family) Counts { return s.counts[familyIndex(f)] }

// Contested returns the number of front ends that more than one Service claims.
func (s *State) Contested() int { return s.contested.Len() }

// familyCounts are the Counts of each family.
type familyCounts [families]Counts

// noLocal is the part of Counts that comes from one Service.
type noLocal struct{ internal, external int }

// addNoLocal adds n times what comes from a Service.
func (c *familyCounts) addNoLocal(u *unit, n int) {
	for i, add := range u.noLocal {
		c[i].NoLocalInternal += n * add.internal
		c[i].NoLocalExternal += n * add.external
	}
}

// addHolder adds n times the front end that claims of one key stand for, if there are any.
func (c *familyCounts) addHolder(claims []keyedClaim, n int) {
	if len(claims) == 0 || claims[0].key.kind != keyFrontEnd {
		return
	}
	to := &c[familyIndex(claims[0].key.family)]
	to.FrontEnds += n
	to.Endpoints += n * len(claims[0].claim.endpoints().cluster)
}
