// Command exec runs a program in a virtual machine with the kernel of Debian:
//
//	CGO_ENABLED=0 go build -o bin/vm ./e2e/vm/exec
//	go test -exec "$PWD/bin/vm" ./e2e/vm
//	bin/vm -console /usr/sbin/ipvsadm -Ln
//
// Arguments, environment and working directory are handed on, and the exit status comes back. See package
// vm for what else there is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/vm"
)

func main() {
	if vm.InGuest() {
		vm.Guest()
		return
	}
	memory := flag.Int("memory", 2048, "memory in MiB")
	cpus := flag.Int("cpus", 2, "number of processors")
	limit := flag.Duration("limit", time.Hour, "how long the machine may live")
	console := flag.Bool("console", false, "print what the kernel says to stderr")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: vm [flags] program [arguments]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	m := vm.Machine{Memory: *memory, CPUs: *cpus}
	if *console {
		m.Console = os.Stderr
	}
	status, err := start(m, *limit, flag.Arg(0), flag.Args()[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(125)
	}
	os.Exit(status)
}

// start runs a program in a machine, which ends with the time limit, a signal, or the parent of
// this process.
func start(m vm.Machine, limit time.Duration, program string, args []string) (int, error) {
	parent := os.Getppid()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return 0, err
	}
	if os.Getppid() != parent {
		return 0, errors.New("the parent has gone")
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	path, err := exec.LookPath(program)
	if err != nil {
		return 0, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return 0, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	if m.Init, err = os.Executable(); err != nil {
		return 0, err
	}
	if m.Kernel, err = vm.FindKernel(); err != nil {
		return 0, err
	}
	return m.Run(ctx, vm.Command{Path: path, Args: args, Env: os.Environ(), Dir: dir}, os.Stdout, os.Stderr)
}
