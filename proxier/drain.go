package proxier

import (
	"fmt"
	"maps"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// The periods of what nobody tells us about IPVS: whether connections ended, which is looked at soon and then
// less and less often, whether somebody else changed a virtual server, and whether the kernel has a scheduler by now
// that it did not have.
const (
	firstLook   = 20 * time.Millisecond
	drainPeriod = 2 * time.Second
	checkPeriod = time.Minute
)

// A look is when the connections of a virtual server are counted next, and how long after the last time that is.
type look struct {
	at    time.Time
	after time.Duration
}

// lookAt has a server looked at soon, unless that is to come anyway.
func (s *servers) lookAt(keys map[ipvs.Key]look, k ipvs.Key, now time.Time) {
	if _, ok := keys[k]; !ok {
		keys[k] = look{now.Add(firstLook), firstLook}
		s.sooner(keys[k].at)
	}
}

// sooner notes a time of a look.
func (s *servers) sooner(at time.Time) {
	if s.nextLook.IsZero() || at.Before(s.nextLook) {
		s.nextLook = at
	}
}

// drain takes away what nothing wants and has no connection.
func (s *servers) drain(want *plan.State, now time.Time) error {
	s.nextLook = time.Time{}
	var ops []ipvs.Op
	for _, keys := range []map[ipvs.Key]look{s.gone, s.fading} {
		for k, l := range keys {
			if l.at.After(now) {
				s.sooner(l.at)
				continue
			}
			idle, busy, err := s.unwanted(k, want)
			if err != nil {
				s.known = false // the steps so far are not done: reading finds what is left
				return err
			}
			_, gone := s.gone[k]
			switch {
			case busy:
				l.after = min(2*l.after, drainPeriod)
				l.at = now.Add(l.after)
				keys[k] = l
				s.sooner(l.at)
				ops = append(ops, idle...)
			case gone: // with its destinations
				ops = append(ops, ipvs.Op{Verb: ipvs.DeleteServer, Key: k})
			default:
				ops = append(ops, idle...)
				delete(s.fading, k)
			}
		}
	}
	if err := s.drop(ops); err != nil {
		return err
	}
	return s.drop(s.emptyAddresses())
}

// unwanted returns the steps that take away the destinations of a server that nothing wants and that have no
// connection, and whether others have some.
func (s *servers) unwanted(k ipvs.Key, want *plan.State) (idle []ipvs.Op, busy bool, err error) {
	counts, err := s.kernel.Counts(k)
	if err != nil {
		return nil, false, fmt.Errorf("read the connections of %s: %w", k, err)
	}
	wanted := want.ServerDests(k)
	for addr := range s.have.Servers[k].Dests {
		if _, ok := wanted[addr]; ok {
			continue
		}
		if counts[addr].Total() > 0 {
			busy = true
			continue
		}
		idle = append(idle, ipvs.Op{Verb: ipvs.DeleteDest, Key: k, Dest: ipvs.Dest{Addr: addr}})
	}
	return idle, busy, nil
}

// emptyAddresses returns the steps that take addresses without a server from the device.
func (s *servers) emptyAddresses() []ipvs.Op {
	if len(s.left) == 0 {
		return nil
	}
	var ops []ipvs.Op
	for a := range s.left {
		if s.have.Addresses[a] && s.at[a] == 0 {
			ops = append(ops, ipvs.Op{Verb: ipvs.DeleteAddress, Address: a})
		}
	}
	s.left = map[netip.Addr]bool{} // a new map: that of the first sync is as large as the cluster
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
		next = max(0, s.nextLook.Sub(now))
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
