// Command demo shows nftproxy at work to a person.
//
// It makes a small network of namespaces (a node, two clients and three backends), runs the daemon on the
// manifests beside this file, sends requests, kills a backend, edits a manifest, and tells what
// happens. Nothing of it is left behind. It needs root and the program nft.
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

//go:embed *.yaml
var manifests embed.FS

// main runs the demonstration until it ends or a signal does.
func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run sets the stage, plays, and clears it.
func run(ctx context.Context) (err error) {
	if unix.Geteuid() != 0 {
		return errors.New("it makes network namespaces: please run it as root")
	}
	dir, err := os.MkdirTemp("", "nftproxy-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := copyManifests(filepath.Join(dir, "manifests")); err != nil {
		return err
	}
	p, err := newPlay(ctx, os.Stdout, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	for _, act := range p.acts() {
		if ctx.Err() != nil {
			return errors.New("ended by a signal")
		}
		if err := act(); err != nil {
			return err
		}
	}
	return nil
}

// copyManifests writes the manifests to a directory where they can be edited.
func copyManifests(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	names, err := fs.Glob(manifests, "*.yaml")
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := manifests.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// indent returns text with a bar before each line.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    │ " + line)
	}
	return b.String()
}
