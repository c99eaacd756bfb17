package proxier

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// servers keeps the virtual servers of IPVS in line. It belongs to the goroutine of Engine.Run.
//
// IPVS knows no transactions. So a sync has three parts: prepare makes servers and destinations before
// nftables leads packets to them; then nftables changes; then finish takes away what nftables leads no
// packets to any more. What still has connections is not taken away but drained: it gets no new
// connections, and goes when it is idle.
type servers struct {
	kernel IPVS
	log    *zap.Logger

	// has are the schedulers that the kernel has, sorted; lacks those that it did not have when it was
	// asked at the time.
	has   []string
	lacks map[string]time.Time
	// have is what the kernel holds of ours: the servers at addresses of the device. If known is false
	// it has to be read.
	have  ipvs.State
	known bool
	// at counts the servers of each address in have.
	at map[netip.Addr]int
	// left are addresses that may be on the device without a server.
	left map[netip.Addr]bool
	// gone are servers in have that nothing wants; fading those that have destinations that nothing
	// wants, but are wanted themselves. They say when to look at their connections.
	gone, fading map[ipvs.Key]look
	// unfit are Services whose virtual servers the kernel refused.
	unfit map[model.Name]*refusal
	// checked is when have was compared with the kernel; nextLook is the earliest look at connections.
	checked, nextLook time.Time
	// failures is how many steps failed so far.
	failures uint64
}

func newServers(kernel IPVS, log *zap.Logger) *servers {
	return &servers{
		kernel: kernel, log: log, lacks: map[string]time.Time{}, at: map[netip.Addr]int{}, left: map[netip.Addr]bool{},
		gone: map[ipvs.Key]look{}, fading: map[ipvs.Key]look{}, unfit: map[model.Name]*refusal{},
	}
}

// ask asks the kernel for schedulers that it was not asked for lately, and reports whether it has one
// that it was not known to have.
func (s *servers) ask(schedulers map[string]int, now time.Time) (more bool) {
	maps.DeleteFunc(s.lacks, func(name string, _ time.Time) bool { return schedulers[name] == 0 })
	for name := range schedulers {
		if _, ok := slices.BinarySearch(s.has, name); ok {
			continue
		}
		at, asked := s.lacks[name]
		if asked && now.Before(at.Add(checkPeriod)) {
			continue
		}
		if err := s.kernel.Supports(name); err != nil {
			if !asked {
				s.log.Warn("no IPVS with this scheduler; nftables serves the Services that ask for it", zap.String("scheduler", name), zap.Error(err))
			}
			s.lacks[name] = now
			continue
		}
		if asked {
			s.log.Info("the kernel has a scheduler now that it did not have", zap.String("scheduler", name))
		}
		delete(s.lacks, name)
		s.has = append(slices.Clone(s.has), name)
		slices.Sort(s.has)
		more = true
	}
	return more
}

// read reads what the kernel holds, if that is not known.
func (s *servers) read(now time.Time) error {
	if s.known {
		return nil
	}
	have, err := s.ours()
	if err != nil {
		return err
	}
	s.have, s.known, s.checked = have, true, now
	clear(s.at)
	clear(s.gone)
	clear(s.fading)
	s.nextLook = time.Time{}
	for k := range s.have.Servers {
		s.at[k.Addr.Addr()]++
	}
	s.left = maps.Clone(s.have.Addresses)
	return nil
}

// ours returns the servers in the kernel that are ours: those at addresses of the device. A server
// elsewhere is somebody else's.
func (s *servers) ours() (ipvs.State, error) {
	have, err := s.kernel.Load()
	if err != nil {
		return have, fmt.Errorf("read the virtual servers: %w", err)
	}
	maps.DeleteFunc(have.Servers, func(k ipvs.Key, _ *ipvs.Virtual) bool { return !have.Addresses[k.Addr.Addr()] })
	if have.Servers == nil {
		have.Servers = ipvs.Table{}
	}
	if have.Addresses == nil {
		have.Addresses = map[netip.Addr]bool{}
	}
	return have, nil
}

// compare returns how what is known to be in the kernel differs from what is wanted: by what changed
// since last or, where that is not known, by looking at everything.
func (s *servers) compare(last, want *plan.State) []plan.ServerChange {
	if last != nil {
		return plan.ChangedServers(last, want)
	}
	var changes []plan.ServerChange
	for k, v := range want.Servers() {
		changes = append(changes, plan.ServerChange{Key: k, New: v})
	}
	for k := range s.have.Servers {
		if _, ok := want.ServerOwner(k); !ok {
			changes = append(changes, plan.ServerChange{Key: k})
		}
	}
	return changes
}

// rescheduled returns the Services whose servers are to get another scheduler. The kernel refuses
// connections to a server while it changes that (ip_vs_edit_service waits for all users of the old one),
// so nftables serves them meanwhile.
func (s *servers) rescheduled(changes []plan.ServerChange, want *plan.State) map[model.Name]bool {
	names := map[model.Name]bool{}
	for _, c := range changes {
		have := s.have.Servers[c.Key]
		if have == nil || c.New == nil || have.Server.Scheduler == c.New.Server.Scheduler && !have.Server.Foreign {
			continue
		}
		if _, gone := s.gone[c.Key]; gone {
			continue
		}
		if owner, ok := want.ServerOwner(c.Key); ok {
			names[owner] = true
		}
	}
	return names
}

// lingering returns the addresses of servers that will be gone after changes, sorted.
func (s *servers) lingering(changes []plan.ServerChange) []netip.Addr {
	gone := maps.Clone(s.gone)
	for _, c := range changes {
		if c.New == nil && s.have.Servers[c.Key] != nil {
			gone[c.Key] = look{}
		} else {
			delete(gone, c.Key)
		}
	}
	var addrs []netip.Addr
	for k := range gone {
		addrs = append(addrs, k.Addr.Addr())
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// prepare makes what is wanted, and keeps new connections from destinations that are not. It returns the
// Services whose servers the kernel refused, with the reasons; any other error means that it is not known
// what the kernel holds.
func (s *servers) prepare(changes []plan.ServerChange, want *plan.State, now time.Time) (map[model.Name]error, error) {
	var ops []ipvs.Op
	for _, c := range changes {
		have := s.have.Servers[c.Key]
		if c.New == nil {
			if have != nil {
				s.lookAt(s.gone, c.Key, now)
				delete(s.fading, c.Key) // all of it fades
			}
			continue
		}
		delete(s.gone, c.Key)
		ops = s.serverOps(ops, c.Key, have, c.New, now)
		if a := c.Key.Addr.Addr(); !s.have.Addresses[a] {
			s.have.Addresses[a] = true // once for all servers of the address
			ops = append(ops, ipvs.Op{Verb: ipvs.AddAddress, Address: a, Key: c.Key})
		}
	}
	return s.refusals(s.apply(ops), want)
}

// serverOps appends the steps that make one server. have is nil if there is none.
func (s *servers) serverOps(ops []ipvs.Op, k ipvs.Key, have, want *ipvs.Virtual, now time.Time) []ipvs.Op {
	switch {
	case have == nil:
		have = &ipvs.Virtual{}
		ops = append(ops, ipvs.Op{Verb: ipvs.AddServer, Key: k, Server: want.Server})
	case have.Server != want.Server:
		ops = append(ops, ipvs.Op{Verb: ipvs.SetServer, Key: k, Server: want.Server})
	}
	for addr, weight := range want.Dests {
		old, ok := have.Dests[addr]
		d := ipvs.Dest{Addr: addr, Weight: weight}
		switch {
		case !ok:
			ops = append(ops, ipvs.Op{Verb: ipvs.AddDest, Key: k, Dest: d})
		case old != weight:
			ops = append(ops, ipvs.Op{Verb: ipvs.SetDest, Key: k, Dest: d})
		}
	}
	delete(s.fading, k)
	for addr, weight := range have.Dests {
		if _, ok := want.Dests[addr]; ok {
			continue
		}
		if k.Protocol == model.UDP || !skipsZero(want.Server.Scheduler) {
			ops = append(ops, ipvs.Op{Verb: ipvs.DeleteDest, Key: k, Dest: ipvs.Dest{Addr: addr}})
			continue
		}
		s.lookAt(s.fading, k, now)
		if weight != 0 {
			ops = append(ops, ipvs.Op{Verb: ipvs.SetDest, Key: k, Dest: ipvs.Dest{Addr: addr}})
		}
	}
	return ops
}

// skipsZero reports whether a scheduler finds another destination than one of weight 0. That of dh is the hash of
// the server's address, whatever the weight (ip_vs_dh_schedule): while one drained no new connection to the Service
// would come about.
func skipsZero(scheduler string) bool { return scheduler != "dh" }

// finish keeps new connections from servers that nothing wants. Those of UDP go at once: there a
// connection is only what the kernel makes of it.
func (s *servers) finish() error {
	var ops []ipvs.Op
	for k := range s.gone {
		if k.Protocol == model.UDP {
			ops = append(ops, ipvs.Op{Verb: ipvs.DeleteServer, Key: k})
			continue
		}
		for addr, weight := range s.have.Servers[k].Dests {
			if weight != 0 {
				ops = append(ops, ipvs.Op{Verb: ipvs.SetDest, Key: k, Dest: ipvs.Dest{Addr: addr}})
			}
		}
	}
	err := s.drop(ops)
	if err != nil {
		return err
	}
	return s.drop(s.emptyAddresses())
}

// drop does steps that take something away. One that fails means that it is not known what there is.
func (s *servers) drop(ops []ipvs.Op) error {
	failed := s.apply(ops)
	if len(failed) == 0 {
		return nil
	}
	s.known = false
	return fmt.Errorf("change virtual servers: %w", failed[0])
}

// apply does steps and notes what they did.
func (s *servers) apply(ops []ipvs.Op) []ipvs.OpError {
	if len(ops) == 0 {
		return nil
	}
	failed := s.kernel.Apply(ops)
	s.failures += uint64(len(failed))
	not := make(map[ipvs.Op]bool, len(failed))
	for _, f := range failed {
		not[f.Op] = true
	}
	for _, op := range ops {
		if !not[op] {
			s.note(op)
		} else if op.Verb == ipvs.AddAddress {
			delete(s.have.Addresses, op.Address)
		}
	}
	return failed
}

// note notes what a step did.
func (s *servers) note(op ipvs.Op) {
	v := s.have.Servers[op.Key]
	switch op.Verb {
	case ipvs.AddServer:
		s.have.Servers[op.Key] = &ipvs.Virtual{Server: op.Server, Dests: map[netip.AddrPort]int{}}
		s.at[op.Key.Addr.Addr()]++
	case ipvs.SetServer:
		v.Server = op.Server
	case ipvs.DeleteServer:
		delete(s.have.Servers, op.Key)
		delete(s.gone, op.Key)
		if a := op.Key.Addr.Addr(); s.at[a] > 1 {
			s.at[a]--
		} else {
			delete(s.at, a)
			s.left[a] = true
		}
	case ipvs.AddDest, ipvs.SetDest:
		v.Dests[op.Dest.Addr] = op.Dest.Weight
	case ipvs.DeleteDest:
		delete(v.Dests, op.Dest.Addr)
	case ipvs.AddAddress:
		s.have.Addresses[op.Address] = true
		s.left[op.Address] = true // its server may have been refused
	case ipvs.DeleteAddress:
		delete(s.have.Addresses, op.Address)
	}
}
