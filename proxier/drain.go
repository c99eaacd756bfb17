package proxier

import (
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// The periods of what nobody tells us about IPVS: whether connections ended, whether somebody else changed
// a virtual server, and whether the kernel has a scheduler by now that it did not have.
const (
	drainPeriod = 2 * time.Second
	checkPeriod = time.Minute
)

// drain takes away what nothing wants and has no connection.
func (s *servers) drain(want *plan.State, now time.Time) error {
	s.drained = now
	var ops []ipvs.Op
	for _, keys := range []map[ipvs.Key]bool{s.gone, s.fading} {
		for k := range keys {
			counts, err := s.kernel.Counts(k)
			if err != nil {
				return fmt.Errorf("read the connections of %s: %w", k, err)
			}
			wanted := want.ServerDests(k)
			busy := false
			for addr := range s.have.Servers[k].Dests {
				if _, ok := wanted[addr]; ok {
					continue
				}
				if counts[addr].Total() > 0 {
					busy = true
					continue
				}
				ops = append(ops, ipvs.Op{Verb: ipvs.DeleteDest, Key: k, Dest: ipvs.Dest{Addr: addr}})
			}
			switch {
			case busy:
			case s.gone[k]:
				ops = append(ops, ipvs.Op{Verb: ipvs.DeleteServer, Key: k})
			default:
				delete(s.fading, k)
			}
		}
	}
	if err := s.drop(ops); err != nil {
		return err
	}
	return s.drop(s.emptyAddresses())
}

// emptyAddresses returns the steps that take addresses without a server from the device.
func (s *servers) emptyAddresses() []ipvs.Op {
	var ops []ipvs.Op
	if len(s.have.Addresses) == len(s.at) {
		return nil
	}
	for a := range s.have.Addresses {
		if s.at[a] == 0 {
			ops = append(ops, ipvs.Op{Verb: ipvs.DeleteAddress, Address: a})
		}
	}
	return ops
}

// numbers returns the numbers for a Sync.
func (s *servers) numbers() Servers {
	return Servers{Virtual: len(s.have.Servers), Draining: s.draining(), Unfit: len(s.unfit), Failures: s.failures}
}

// draining returns how many virtual servers wait for the end of connections, or have a destination that
// does.
func (s *servers) draining() int { return len(s.gone) + len(s.fading) }

// used reports whether there is anything to look after.
func (s *servers) used() bool { return len(s.has) > 0 || len(s.have.Servers) > 0 }

// wait returns how long nothing has to be done.
func (s *servers) wait(now time.Time) time.Duration {
	next := time.Hour
	if s.draining() > 0 {
		next = max(0, s.drained.Add(drainPeriod).Sub(now))
	}
	if s.used() {
		next = min(next, max(0, s.checked.Add(checkPeriod).Sub(now)))
	}
	for _, at := range s.lacks {
		next = min(next, max(0, at.Add(checkPeriod).Sub(now)))
	}
	for _, r := range s.unfit {
		next = min(next, max(0, r.retry.Sub(now)))
	}
	return next
}

// due reports whether a sync may find something to do: a scheduler that the kernel may have by now, a
// Service to try again, or a change by somebody else.
func (s *servers) due(now time.Time) bool {
	for _, at := range s.lacks {
		if !now.Before(at.Add(checkPeriod)) {
			return true
		}
	}
	for _, r := range s.unfit {
		if !r.retry.After(now) {
			return true
		}
	}
	if !s.used() || now.Before(s.checked.Add(checkPeriod)) {
		return false
	}
	s.checked = now
	have, err := s.ours()
	if err == nil && s.same(have) {
		return false
	}
	s.log.Warn("somebody else changed virtual servers of ours, or they cannot be read; they are mended", zap.Error(err))
	s.known = false
	return true
}

// same reports whether the kernel holds what is known, whatever the connections.
func (s *servers) same(have ipvs.State) bool {
	return maps.Equal(s.have.Addresses, have.Addresses) && maps.EqualFunc(s.have.Servers, have.Servers, func(a, b *ipvs.Virtual) bool {
		return a.Server == b.Server && maps.Equal(a.Dests, b.Dests)
	})
}
