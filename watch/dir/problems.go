package dir

import (
	"slices"

	"github.com/nftproxy/nftproxy/watch"
)

// problems returns what is wrong with the files, sorted.
func (s *state) problems() []watch.Problem {
	var out []watch.Problem
	for name, f := range s.files {
		if f.fault != "" {
			out = append(out, watch.Problem{Where: name, Message: f.fault})
		}
		for i, d := range f.documents {
			for _, e := range d.entries {
				for _, fault := range e.faults {
					out = append(out, watch.Problem{
						Where: claim{name, i, 0, e}.where(), Object: e.key.String(),
						Field: fault.Field, Message: fault.Message, Minor: fault.Minor,
					})
				}
			}
		}
	}
	for k := range s.twice {
		claims := s.claims[k]
		for _, c := range claims[1:] {
			out = append(out, watch.Problem{
				Where: c.where(), Object: k.String(), Message: "is there twice; what counts is " + claims[0].where(),
			})
		}
	}
	for i := range out {
		out[i].Source = sourceName(s.path)
	}
	slices.SortFunc(out, watch.Problem.Compare)
	return out
}
