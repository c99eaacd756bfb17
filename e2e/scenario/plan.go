package scenario

import (
	"net/netip"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/plan"
)

// Plan returns the settings as the planner takes them.
func (s Settings) Plan() (plan.Config, error) {
	c := plan.Config{MasqueradeAll: s.MasqueradeAll, MasqueradeBit: 14}
	c.DetectLocal = plan.DetectLocal{Mode: plan.DetectMode(s.DetectLocal), Interface: s.Interface}
	if s.DetectLocal == "" {
		c.DetectLocal.Mode = plan.ClusterCIDR
	}
	for p := range strings.SplitSeq(s.ClusterCIDR, ",") {
		if p == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return c, err
		}
		c.DetectLocal.CIDRs = append(c.DetectLocal.CIDRs, prefix)
	}
	for _, w := range s.NodePortAddresses {
		switch w {
		case "primary":
			c.NodePortAddresses.Primary = true
		case "all":
			c.NodePortAddresses.All = true
		default:
			prefix, err := netip.ParsePrefix(w)
			if err != nil {
				return c, err
			}
			c.NodePortAddresses.CIDRs = append(c.NodePortAddresses.CIDRs, prefix)
		}
	}
	return c, nil
}
