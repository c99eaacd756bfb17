package suite

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// web is the server that the cases begin with.
func web() ipvs.Key { return Key(model.TCP, "10.96.0.1:80") }

// small returns the state that the cases begin with.
func small() ipvs.State {
	return ipvs.State{
		Servers: ipvs.Table{web(): {
			Server: ipvs.Server{Scheduler: "rr"},
			Dests:  map[netip.AddrPort]int{netip.MustParseAddrPort("10.1.0.1:8080"): 1, netip.MustParseAddrPort("10.1.0.2:8080"): 1},
		}},
		Addresses: map[netip.Addr]bool{netip.MustParseAddr("10.96.0.1"): true},
	}
}

// server returns a step about a virtual server.
func server(verb ipvs.Verb, k ipvs.Key, s ipvs.Server) ipvs.Op {
	return ipvs.Op{Verb: verb, Key: k, Server: s}
}

// dest returns a step about a destination of a virtual server.
func dest(verb ipvs.Verb, k ipvs.Key, addr string, weight int) ipvs.Op {
	return ipvs.Op{Verb: verb, Key: k, Dest: ipvs.Dest{Addr: netip.MustParseAddrPort(addr), Weight: weight}}
}

// address returns a step about an address.
func address(verb ipvs.Verb, addr string) ipvs.Op {
	return ipvs.Op{Verb: verb, Address: netip.MustParseAddr(addr)}
}

// cases are about single steps, and what becomes of the steps after one that fails.
func cases() []testCase {
	k, other, six := web(), Key(model.TCP, "10.96.0.2:80"), Key(model.UDP, "[fd00:96::1]:53")
	lc := ipvs.Server{Scheduler: "lc", Persistence: time.Minute}
	first := netip.MustParseAddrPort("10.1.0.1:8080")
	// last is a step that is done, whatever was before.
	last := dest(ipvs.SetDest, k, "10.1.0.1:8080", 7)
	done := func(s *ipvs.State) { s.Servers[k].Dests[first] = 7 }
	bad := func(name string, err unix.Errno, op ipvs.Op) testCase {
		return testCase{"bad " + name, []ipvs.Op{op, last}, at(err), done}
	}
	ok := func(name string, want func(*ipvs.State), ops ...ipvs.Op) testCase {
		return testCase{"OK " + name, ops, none(len(ops)), want}
	}
	return []testCase{
		ok("nothing to do", nil),
		ok("add a server that is there sets it", func(s *ipvs.State) { s.Servers[k].Server = lc }, server(ipvs.AddServer, k, lc)),
		ok("the same address and port in another protocol", func(s *ipvs.State) {
			s.Servers[Key(model.UDP, "10.96.0.1:80")] = &ipvs.Virtual{Server: lc}
		}, server(ipvs.AddServer, Key(model.UDP, "10.96.0.1:80"), lc)),
		ok("delete a server that is not there", nil, server(ipvs.DeleteServer, other, lc)),
		ok("delete a server with its destinations", func(s *ipvs.State) { delete(s.Servers, k) }, server(ipvs.DeleteServer, k, lc)),
		ok("a server deleted and made again has no destinations", func(s *ipvs.State) { s.Servers[k] = &ipvs.Virtual{Server: lc} },
			server(ipvs.DeleteServer, k, lc), server(ipvs.AddServer, k, lc)),
		ok("add a destination that is there sets it", done, dest(ipvs.AddDest, k, "10.1.0.1:8080", 7)),
		ok("a destination with another port is another", func(s *ipvs.State) {
			s.Servers[k].Dests[netip.MustParseAddrPort("10.1.0.1:8081")] = 0
		}, dest(ipvs.AddDest, k, "10.1.0.1:8081", 0)),
		ok("delete a destination that is not there", nil, dest(ipvs.DeleteDest, k, "10.1.0.9:8080", 0)),
		ok("delete a destination and add it again", done, dest(ipvs.DeleteDest, k, "10.1.0.1:8080", 0), dest(ipvs.AddDest, k, "10.1.0.1:8080", 7)),
		ok("IPv6", func(s *ipvs.State) {
			s.Servers[six] = &ipvs.Virtual{Server: lc, Dests: map[netip.AddrPort]int{netip.MustParseAddrPort("[fd00:1::1]:53"): 65535}}
			s.Addresses[six.Addr.Addr()] = true
		}, server(ipvs.AddServer, six, lc), dest(ipvs.AddDest, six, "[fd00:1::1]:53", 65535), address(ipvs.AddAddress, "fd00:96::1")),
		ok("add an address that is there", nil, address(ipvs.AddAddress, "10.96.0.1")),
		ok("delete addresses that are not there", nil, address(ipvs.DeleteAddress, "10.96.0.9"), address(ipvs.DeleteAddress, "fd00:96::9")),
		ok("an address added and deleted", nil, address(ipvs.AddAddress, "10.96.0.9"), address(ipvs.DeleteAddress, "10.96.0.9")),
		bad("server to set", unix.ESRCH, server(ipvs.SetServer, other, lc)),
		bad("scheduler", unix.ENOENT, server(ipvs.AddServer, other, ipvs.Server{Scheduler: "nosuch"})),
		bad("scheduler to set", unix.ENOENT, server(ipvs.SetServer, k, ipvs.Server{Scheduler: "nosuch"})),
		bad("scheduler for a server that is there", unix.ENOENT, server(ipvs.AddServer, k, ipvs.Server{Scheduler: "nosuch"})),
		bad("server of a new destination", unix.ESRCH, dest(ipvs.AddDest, other, "10.1.0.1:8080", 1)),
		bad("server of a destination to set", unix.ESRCH, dest(ipvs.SetDest, other, "10.1.0.1:8080", 1)),
		bad("server of a destination to delete", unix.ESRCH, dest(ipvs.DeleteDest, other, "10.1.0.1:8080", 1)),
		bad("destination to set", unix.ENOENT, dest(ipvs.SetDest, k, "10.1.0.9:8080", 1)),
		bad("weight", unix.ERANGE, dest(ipvs.AddDest, k, "10.1.0.9:8080", -1)),
		bad("weight to set", unix.ERANGE, dest(ipvs.SetDest, k, "10.1.0.1:8080", -1)),
		bad("destination of the other family", unix.EINVAL, dest(ipvs.AddDest, k, "[fd00:1::1]:8080", 1)),
		bad("destination that is many", unix.EINVAL, dest(ipvs.AddDest, k, "224.0.0.1:8080", 1)),
		bad("destination that is nowhere", unix.EINVAL, dest(ipvs.AddDest, k, "0.0.0.0:8080", 1)),
	}
}
