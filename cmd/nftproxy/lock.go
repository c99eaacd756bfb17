package main

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// lockName is an abstract unix socket. Its name belongs to the network namespace, as our tables do,
// and it goes with the process that holds it, however that ends.
const lockName = "@nftproxy"

// takeLock makes this process the one that programs the network namespace; name is lockName but in
// tests. The lock is held until it is closed.
func takeLock(name string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: name, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("another nftproxy%s already programs this network namespace; stop it first", holder(addr))
	}
	if err != nil {
		return nil, fmt.Errorf("listen on unix socket %s, the lock of this network namespace: %w", name, err)
	}
	return l, nil
}

// holder returns " (pid N)" of the process that holds the lock, or nothing if that cannot be told.
func holder(addr *net.UnixAddr) string {
	c, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		return ""
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", cred.Pid)
}
