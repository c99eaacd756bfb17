package ipvs

import (
	"fmt"
	"net/netip"
	"time"
)

// Verb is what an Op does.
type Verb uint8

// The verbs. The kernel deletes the destinations of a server with it.
const (
	AddServer Verb = iota
	SetServer
	DeleteServer
	AddDest
	SetDest
	DeleteDest
	AddAddress
	DeleteAddress
)

// An Op is one step.
//
// Steps may be done again: adding a server or destination that is there sets it, adding an address that is
// there and deleting anything that is not counts as done. Setting what is not there fails (ESRCH for a server,
// ENOENT for a destination), as does a destination for a server that is not there (ESRCH).
type Op struct {
	Verb Verb
	// Key is the virtual server, of steps about servers and destinations.
	Key Key
	// Server is how it is to be, of AddServer and SetServer.
	Server Server
	// Dest is the destination. DeleteDest looks at its address only.
	Dest Dest
	// Address is the address of the device, of AddAddress and DeleteAddress. The first one that is
	// added makes the device.
	Address netip.Addr
}

// String returns the step in a line, in the words of ipvsadm.
func (o Op) String() string {
	switch o.Verb {
	case AddServer:
		return fmt.Sprintf("add %s %s", o.Key, o.Server)
	case SetServer:
		return fmt.Sprintf("edit %s %s", o.Key, o.Server)
	case DeleteServer:
		return fmt.Sprintf("delete %s", o.Key)
	case AddDest:
		return fmt.Sprintf("add %s -> %s", o.Key, o.Dest)
	case SetDest:
		return fmt.Sprintf("edit %s -> %s", o.Key, o.Dest)
	case DeleteDest:
		return fmt.Sprintf("delete %s -> %s", o.Key, o.Dest.Addr)
	case AddAddress:
		return fmt.Sprintf("add address %s to %s", o.Address, Device)
	case DeleteAddress:
		return fmt.Sprintf("delete address %s from %s", o.Address, Device)
	}
	return "unknown step"
}

// String returns the server without its address, in the words of ipvsadm.
func (s Server) String() string {
	text := "scheduler " + s.Scheduler
	if s.Persistence > 0 {
		text += fmt.Sprintf(" persistent %d", s.Persistence/time.Second)
	}
	if s.Foreign {
		text += " foreign"
	}
	return text
}

// String returns the destination in the words of ipvsadm.
func (d Dest) String() string {
	if d.Weight == ForeignWeight {
		return fmt.Sprintf("%s foreign", d.Addr)
	}
	return fmt.Sprintf("%s weight %d", d.Addr, d.Weight)
}

// An OpError is a step that failed.
type OpError struct {
	Op Op
	// Err is the kernel's error, usually a unix.Errno.
	Err error
}

// Error returns the step and the kernel's error.
func (e OpError) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

// Unwrap returns the kernel's error.
func (e OpError) Unwrap() error { return e.Err }
