package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/bench/apiserver"
	"github.com/nftproxy/nftproxy/e2e/bench/see"
	"github.com/nftproxy/nftproxy/e2e/netns"
)

// apiCommand is the argument that makes this program the API server.
const apiCommand = "apiserver"

// An api is the API server, a process of its own that all nodes reach at apiAddress.
type api struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// serveAPI is the API server: it listens on the descriptors from 3 on, of which there are n.
func serveAPI(n int) error {
	var listeners []net.Listener
	for fd := 3; fd < 3+n; fd++ {
		l, err := net.FileListener(os.NewFile(uintptr(fd), "listener"))
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	return apiserver.Serve(os.Stdin, os.Stdout, listeners...)
}

// startAPI starts the API server for nodes.
func startAPI(nodes ...*netns.NetNS) (*api, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	a := &api{cmd: exec.Command(self, apiCommand, fmt.Sprint(len(nodes)))}
	a.cmd.Stderr = os.Stderr
	// An interrupt is for us, who end it.
	a.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	for _, n := range nodes {
		f, err := listen(n)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		a.cmd.ExtraFiles = append(a.cmd.ExtraFiles, f)
	}
	in, err := a.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a.in, a.out = in, json.NewDecoder(out)
	if err := a.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the API server: %w", err)
	}
	return a, nil
}

// listen listens at apiAddress in a namespace.
func listen(ns *netns.NetNS) (f *os.File, err error) {
	err = ns.Do(func() error {
		l, err := net.Listen("tcp", apiAddress)
		if err != nil {
			return err
		}
		defer l.Close()
		f, err = l.(*net.TCPListener).File()
		return err
	})
	return f, err
}

// do has the API server do something and returns when changes were written.
func (a *api) do(r apiserver.Request) ([]int64, error) {
	if err := json.NewEncoder(a.in).Encode(r); err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	var reply apiserver.Reply
	if err := a.out.Decode(&reply); err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	return reply.Written, nil
}

// change makes changes and returns when they were written.
func (a *api) change(changes ...apiserver.Change) ([]int64, error) {
	return a.do(apiserver.Request{Changes: changes})
}

// cpu returns the CPU time that it has used.
func (a *api) cpu() time.Duration {
	d, err := see.CPU(a.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	return d
}

// close ends it: it ends with its input.
func (a *api) close() error {
	err := a.in.Close()
	done := make(chan error, 1)
	go func() { done <- a.cmd.Wait() }()
	select {
	case e := <-done:
		return errors.Join(err, e)
	case <-time.After(5 * time.Second):
		_ = a.cmd.Process.Kill()
		<-done
		return errors.Join(err, errors.New("the API server did not end within 5 s"))
	}
}
