// Command bench measures nftproxy and kube-proxy before the same API server, at several numbers of
// Services, and prints one table and a plot.
//
// Each program has a network namespace of its own as its node, with clients and servers in others. The API
// server is e2e/bench/apiserver. Nothing is left behind. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/daemon"
	"github.com/nftproxy/nftproxy/e2e/kube"
	"github.com/nftproxy/nftproxy/e2e/vm"
)

// main runs the benchmark until it ends or a signal does; or the API server, as a child of the benchmark.
func main() {
	if done, err := child(os.Args); done {
		exit(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := command(ctx, os.Stdout, os.Stderr, os.Args[1:])
	stop()
	exit(err)
}

// child is the API server if the arguments say so, and reports whether they do.
func child(args []string) (bool, error) {
	if len(args) != 3 || args[1] != apiCommand {
		return false, nil
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return true, err
	}
	return true, serveAPI(n)
}

// exit ends the program.
func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A config is what the flags say.
type config struct {
	bench
	root, tools, binary     string
	peer, quick, only       bool
	write                   bool
	firstLimit, limit, hour time.Duration
}

// parse reads the flags.
func parse(args []string, talk io.Writer) (*config, error) {
	c := &config{bench: bench{talk: talk, began: time.Now()}}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(talk)
	sizes := f.String("sizes", "1000,10000,30000,50000", "`numbers` of Services to measure at")
	f.IntVar(&c.endpoints, "endpoints", 10, "endpoints of each Service")
	f.StringVar(&c.mode, "mode", modeNFTables, "`mode` of both programs: nftables or ipvs")
	f.BoolVar(&c.peer, "peer", true, "measure kube-proxy, too")
	f.IntVar(&c.skipPeer, "peer-skip", 0, "leave kube-proxy out above a `number` of Services")
	f.DurationVar(&c.firstLimit, "peer-limit", 10*time.Minute, "how long a first sync may take, longer ones are 'not done', and when nothing more of kube-proxy is begun")
	f.DurationVar(&c.limit, "limit", 4*time.Hour, "how long all may take")
	f.IntVar(&c.repeat, "n", 200, "how often to make one change")
	f.DurationVar(&c.rowTime, "row", time.Minute, "how long to make one change after another at most")
	f.BoolVar(&c.quick, "quick", false, "a look at 100 and 200 Services, to see that all works")
	f.BoolVar(&c.write, "write", false, "write e2e/bench/RESULTS.md and one-change.svg, too; in mode ipvs, print all of a file")
	f.StringVar(&c.profiles, "profile", "", "write CPU and heap profiles of nftproxy into a `directory`")
	f.DurationVar(&c.hour, "churn", 0, "instead, change Services without pause for a `time` and compare the heap")
	f.BoolVar(&c.only, "prepare", false, "only build kube-proxy, if it is not there")
	f.StringVar(&c.root, "root", ".", "root `directory` of the module")
	f.StringVar(&c.binary, "nftproxy", "", "`binary` of nftproxy (default: built)")
	f.StringVar(&c.tools, "kube-proxy", "", "`binary` of kube-proxy (default: built once and kept)")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	c.least, c.many, c.rounds, c.roundTime, c.knocks, c.look = 3, 1000, 8, time.Second, 100_000, 250*time.Millisecond
	if c.quick {
		*sizes, c.skipPeer, c.repeat, c.least, c.many = "100,200", 100, min(c.repeat, 2), 2, 100
		c.rounds, c.roundTime, c.knocks, c.rowTime, c.look = 1, 100*time.Millisecond, 2000, 5*time.Second, 50*time.Millisecond
	}
	if c.mode != modeNFTables && c.mode != modeIPVS {
		return nil, fmt.Errorf("-mode %s: it is %s or %s", c.mode, modeNFTables, modeIPVS)
	}
	for _, word := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 100 || n > 200000 {
			return nil, fmt.Errorf("-sizes %s: %q is no number from 100 to 200000", *sizes, word)
		}
		c.sizes = append(c.sizes, n)
	}
	return c, nil
}

// command is the program: tables go to out, and where it is to talk.
func command(ctx context.Context, out, talk io.Writer, args []string) (err error) {
	c, err := parse(args, talk)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if unix.Geteuid() != 0 {
		return errors.New("it makes network namespaces: please run it as root")
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	if c.dir, err = os.MkdirTemp("", "nftproxy-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	if err := c.prepare(); err != nil || c.only {
		return err
	}
	if vm.Inside() {
		// Loading takes seconds there, and is no program's merit or fault.
		if err := vm.LoadModules(append(vm.RulesetModules(), peerModules()...)...); err != nil {
			return err
		}
	}
	if c.hour > 0 {
		return c.churn(ctx, c.hour, out)
	}
	results, err := c.run(ctx)
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	c.say("done")
	return errors.Join(err, c.report(out, results))
}

// prepare builds the programs.
func (c *config) prepare() (err error) {
	if c.profiles != "" {
		if err := os.MkdirAll(c.profiles, 0o755); err != nil {
			return err
		}
	}
	if c.binary == "" && !c.only {
		c.say("building nftproxy")
		if c.binary, err = daemon.Build(c.dir); err != nil {
			return err
		}
	}
	if !c.only {
		c.programs = append(c.programs, ours(c.binary, c.mode, c.firstLimit, c.profiles != "" || c.hour > 0))
	}
	if !c.peer {
		return nil
	}
	if c.tools == "" {
		tools, err := kube.FindTools(filepath.Join(c.root, "e2e", "kube", "tools"))
		if err != nil {
			return err
		}
		if c.tools, err = tools.Path(kube.KubeProxy); err != nil || c.only {
			return err
		}
	}
	c.programs = append(c.programs, peer(c.tools, c.mode, c.firstLimit))
	return nil
}
