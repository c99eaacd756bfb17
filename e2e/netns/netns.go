// Package netns makes network namespaces without a name and runs code and programs in them.
//
// A namespace lives as long as its [NetNS] is open and leaves nothing behind in the file system,
// even if the process that made it is killed.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// A NetNS is a network namespace.
type NetNS struct {
	name string
	file *os.File
	// start hands programs to the thread that made the namespace. The thread lives as long as the
	// namespace is open, so that a program that it started can be told of its death (Pdeathsig).
	start chan startRequest
	done  chan struct{}
}

// A startRequest asks the keeper of a namespace to start a program.
type startRequest struct {
	cmd  *exec.Cmd
	errs chan<- error
}

// New makes a network namespace with its loopback interface down. The name is for messages only.
func New(name string) (*NetNS, error) {
	n := &NetNS{name: name, start: make(chan startRequest), done: make(chan struct{})}
	errs := make(chan error)
	go n.keep(errs)
	if err := <-errs; err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return n, nil
}

// keep makes the namespace and starts programs in it until it is closed.
func (n *NetNS) keep(errs chan<- error) {
	// The thread is never unlocked: Go throws it away when the goroutine ends.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		errs <- err
		return
	}
	f, err := os.Open("/proc/thread-self/ns/net")
	n.file = f
	errs <- err
	if err != nil {
		return
	}
	for {
		select {
		case r := <-n.start:
			r.errs <- r.cmd.Start()
		case <-n.done:
			return
		}
	}
}

// String returns the name that New was given.
func (n *NetNS) String() string { return n.name }

// FD returns the file descriptor of the namespace, valid until it is closed.
func (n *NetNS) FD() int { return int(n.file.Fd()) }

// Do runs f in the namespace, on a thread of its own that is thrown away after. A goroutine that f
// starts is not in the namespace, but a socket that f opens stays there.
func (n *NetNS) Do(f func() error) error {
	errs := make(chan error)
	go func() {
		errs <- n.enter(f)
	}()
	return <-errs
}

// enter locks the goroutine to its thread for ever, moves the thread and calls f.
func (n *NetNS) enter(f func() error) (err error) {
	runtime.LockOSThread()
	if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n.name, err)
	}
	return f()
}

// Start starts a program in the namespace. The program is killed when the namespace is closed or
// this process ends, whichever is first.
func (n *NetNS) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	errs := make(chan error)
	select {
	case n.start <- startRequest{cmd: cmd, errs: errs}:
		return <-errs
	case <-n.done:
		return fmt.Errorf("start %s in %s: %w", cmd.Path, n.name, os.ErrClosed)
	}
}

// Output runs a program in the namespace and returns what it wrote to stdout. The error holds what it
// wrote to stderr.
func (n *NetNS) Output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := n.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("%s in %s: %w: %s", cmd, n.name, err, stderr.String())
	}
	return stdout.String(), nil
}

// Sysctl writes a value to /proc/sys/net/KEY in the namespace. A key that this kernel does not have
// is no error.
func (n *NetNS) Sysctl(key, value string) error {
	return n.Do(func() error {
		err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0o644)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
}

// Close gives the namespace up. The kernel removes it with its interfaces when nothing uses it any more.
func (n *NetNS) Close() error {
	close(n.done)
	return n.file.Close()
}
