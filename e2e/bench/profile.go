package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/nftproxy/nftproxy/e2e/netns"
)

const (
	// metricsAddress is where a program answers about itself.
	metricsAddress = "127.0.0.1:10249"
	// profileTime is how long CPU is profiled at most. What is idle costs nothing in a profile.
	profileTime = 30 * time.Second
)

// client returns a client in a namespace.
func client(ns *netns.NetNS) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (c net.Conn, err error) {
			err = ns.Do(func() error {
				c, err = net.DialTimeout("tcp", metricsAddress, time.Second)
				return err
			})
			return c, err
		},
	}}
}

// fetch gets a path of a program on a node.
func fetch(n *node, path string) ([]byte, error) {
	resp, err := client(n.host).Get("http://" + metricsAddress + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// profile starts a CPU profile of a phase, if profiles are wanted and the program is ours. The returned
// function ends it and writes it and a heap profile.
func (b *bench) profile(r *run, phase string) func() error {
	if b.profiles == "" || r.program != b.programs[0] {
		return func() error { return nil }
	}
	type answer struct {
		text []byte
		err  error
	}
	cpu := make(chan answer, 1)
	go func() {
		// The program answers some time after its start.
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			text, err := fetch(r.node, fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(profileTime.Seconds())))
			if err == nil || time.Now().After(deadline) {
				cpu <- answer{text, err}
				return
			}
		}
	}()
	return func() error {
		a := <-cpu
		heap, err := fetch(r.node, "/debug/pprof/heap")
		if err := errors.Join(a.err, err); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		name := func(kind string) string {
			return filepath.Join(b.profiles, fmt.Sprintf("%d-%s-%s.pprof", r.cluster.services, phase, kind))
		}
		b.say("profiles: %s, %s", name("cpu"), name("heap"))
		return errors.Join(os.WriteFile(name("cpu"), a.text, 0o644), os.WriteFile(name("heap"), heap, 0o644))
	}
}
