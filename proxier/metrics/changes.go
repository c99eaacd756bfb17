package metrics

import (
	"slices"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// changes returns in how many Services the Service itself, and in how many the endpoints, differ
// between two snapshots.
func changes(before, after model.Snapshot) (services, endpoints int) {
	for c := range model.Changes(before.Services, after.Services) {
		switch {
		case !c.HasOld || !c.HasNew:
			services++
			if c.HasNew && hasEndpoints(c.New) || c.HasOld && hasEndpoints(c.Old) {
				endpoints++
			}
		default:
			if !c.Old.SameButEndpoints(c.New) {
				services++
			}
			if !c.Old.SameEndpoints(c.New) {
				endpoints++
			}
		}
	}
	return services, endpoints
}

// hasEndpoints reports whether a Service has any.
func hasEndpoints(s *model.Service) bool {
	return slices.ContainsFunc(s.Ports, func(p model.Port) bool { return len(p.Endpoints) > 0 })
}

// sameTriggers reports whether two snapshots bring the same trigger times, and not times that happen to
// be equal.
func sameTriggers(a, b model.Snapshot) bool {
	if len(a.Triggered) == 0 || len(b.Triggered) == 0 {
		return len(a.Triggered) == len(b.Triggered)
	}
	return len(a.Triggered) == len(b.Triggered) && &a.Triggered[0] == &b.Triggered[0]
}
