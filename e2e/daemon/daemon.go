// Package daemon builds nftproxy and runs it in a network namespace.
package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nftproxy/nftproxy/e2e/netns"
)

// Build builds the binary, static as it is released, into a directory and returns its path. It works
// from every directory of the module.
func Build(dir string) (string, error) {
	bin := filepath.Join(dir, "nftproxy")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "github.com/nftproxy/nftproxy/cmd/nftproxy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nftproxy: %w\n%s", err, out)
	}
	return bin, nil
}

// Config says what to run and how.
type Config struct {
	// Binary is the program, as Build returned it.
	Binary string
	// Dir is where the manifests (in a directory "manifests") and the socket are.
	Dir string
	// NodeName is the name of the node.
	NodeName string
	// Flags are further flags of "nftproxy run" that concern the ruleset.
	Flags []string
	// RunFlags are further flags that only "nftproxy run" has.
	RunFlags []string
	// Log receives what the daemon says as well; nil for nobody.
	Log io.Writer
}

// Manifests returns the directory of manifests.
func (c Config) Manifests() string { return filepath.Join(c.Dir, "manifests") }

// Socket returns the path of the daemon's socket.
func (c Config) Socket() string { return filepath.Join(c.Dir, "nftproxy.sock") }

// Command returns a command of the binary with the flags that the ruleset depends on.
func (c Config) Command(name string, more ...string) *exec.Cmd {
	args := []string{name, "--manifests", c.Manifests(), "--hostname-override", c.NodeName}
	return exec.Command(c.Binary, append(append(args, c.Flags...), more...)...)
}

// A Daemon is a running nftproxy.
type Daemon struct {
	Config
	ns   *netns.NetNS
	cmd  *exec.Cmd
	log  *netns.Buffer
	done chan struct{} // closed when the program has ended
	err  error         // how it ended, valid after done
}

// Start runs the daemon in a namespace.
func Start(ns *netns.NetNS, cfg Config) (*Daemon, error) {
	d := &Daemon{Config: cfg, ns: ns, log: &netns.Buffer{}, done: make(chan struct{})}
	d.cmd = cfg.Command("run", append(cfg.RunFlags[:len(cfg.RunFlags):len(cfg.RunFlags)], "--socket", cfg.Socket())...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if cfg.Log != nil {
		w := io.MultiWriter(d.log, cfg.Log)
		d.cmd.Stdout, d.cmd.Stderr = w, w
	}
	if err := ns.Start(d.cmd); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

// Log returns what the daemon has said so far.
func (d *Daemon) Log() string { return d.log.String() }

// PID returns the process number.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Ended returns a channel that is closed when the daemon has ended.
func (d *Daemon) Ended() <-chan struct{} { return d.done }

// Stop ends the daemon with SIGTERM and returns an error if it did not end well or at once.
func (d *Daemon) Stop() error {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
		return d.err
	case <-time.After(10 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.done
		return errors.New("the daemon did not end within 10 s of SIGTERM")
	}
}

// Wait returns how the daemon ended.
func (d *Daemon) Wait() error {
	<-d.done
	return d.err
}

// Status asks the daemon for its status and decodes it into v.
func (d *Daemon) Status(v any) error {
	out, err := d.ns.Output(exec.Command(d.Binary, "status", "-o", "json", "--socket", d.Socket()))
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("decode status %q: %w", out, err)
	}
	return nil
}

// WriteFile puts a file into a directory at once: a reader sees the old text or the new.
func WriteFile(dir, name, text string) error {
	tmp := filepath.Join(dir, "."+name+".new")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}
