package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/kernel"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/ipvs"
	ipvskernel "github.com/nftproxy/nftproxy/proxier/ipvs/kernel"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
	"github.com/nftproxy/nftproxy/watch"
	"github.com/nftproxy/nftproxy/watch/dir"
	"github.com/nftproxy/nftproxy/watch/node"
)

// renderCommand returns the command that prints the ruleset.
func renderCommand() *cobra.Command {
	var f flags
	c := newCommand("render", "Print the ruleset that the manifests lead to", `
The output is what `+"`nft list ruleset`"+` would print, and `+"`nft -c -f`"+` takes it. It needs
neither root nor a kernel with nftables, and looks at nothing of this machine but
its name; --node-address stands for the node's interfaces. Virtual servers of IPVS
are comments at the end, as if the kernel had every scheduler. What the manifests say
wrongly goes to standard error, and the rest is rendered.`, `
  nftproxy render --manifests ./manifests --hostname-override node-1 \
    --node-address 192.0.2.10,2001:db8::10 | less
  nftproxy render --manifests ./manifests | nft -c -f -`, func(c *cobra.Command) error {
		cfg, err := f.config()
		if err != nil {
			return err
		}
		return render(cfg, c.OutOrStdout(), c.ErrOrStderr())
	})
	f.register(c)
	f.registerNodeAddress(c.Flags())
	return c
}

// render writes the ruleset of the manifests to stdout.
func render(cfg config, stdout, stderr io.Writer) error {
	snapshot, err := readManifests(cfg, givenAddresses(cfg), stderr)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(stdout)
	cfg.Plan.Schedulers = ipvs.Schedulers()
	state := plan.Compile(cfg.Plan, snapshot, nil)
	if len(state.Balanced()) == 0 {
		// Rules about virtual servers are there only with one.
		cfg.Plan.Schedulers = nil
		state = plan.Compile(cfg.Plan, snapshot, state)
	}
	for _, t := range state.Tables() {
		if err := t.Write(out); err != nil {
			return fmt.Errorf("write the ruleset: %w", err)
		}
	}
	if err := writeSteps(out, newServers(state)); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the ruleset: %w", err)
	}
	return nil
}

// diffCommand returns the command that prints what a start of the daemon would change.
func diffCommand() *cobra.Command {
	var f flags
	c := newCommand("diff", "Print what would change on this node now", `
It compares what the kernel holds with what the manifests and this node's
addresses lead to, and prints the difference as an nft script. Steps of IPVS are
comments in it, in the words of ipvsadm. It changes nothing, but that the kernel may
load IPVS to say whether it has it; reading the ruleset needs CAP_NET_ADMIN. The exit code is 0 if nothing differs
and 3 if something does.`, `
  nftproxy diff --manifests /etc/nftproxy/manifests --cluster-cidr 10.244.0.0/16`, func(c *cobra.Command) error {
		cfg, err := f.config()
		if err != nil {
			return err
		}
		return diff(c.Context(), cfg, c.OutOrStdout(), c.ErrOrStderr())
	})
	f.register(c)
	return c
}

// diff writes the difference between the kernel and the manifests to stdout.
func diff(ctx context.Context, cfg config, stdout, stderr io.Writer) error {
	cfg.Plan.DisableIPv6 = !hasIPv6("/proc")
	here, err := firstPart(ctx, node.New(zap.NewNop()))
	if err != nil {
		return err
	}
	snapshot, err := readManifests(cfg, here, stderr)
	if err != nil {
		return err
	}
	conn, err := kernel.Dial(kernel.Config{})
	if err != nil {
		return fmt.Errorf("open nftables (this needs CAP_NET_ADMIN): %w", err)
	}
	defer conn.Close()
	have, err := conn.Load(plan.TableName)
	if err != nil {
		return fmt.Errorf("read the ruleset: %w", err)
	}
	servers := ipvsKernel(cfg)
	defer servers.Close()
	state, steps, err := proxier.Preview(cfg.Plan, servers, snapshot, plan.Recall(have))
	if err != nil {
		return err
	}
	p := plan.DiffTables(have, state)
	if p.Empty() && len(steps) == 0 {
		return nil
	}
	out := bufio.NewWriter(stdout)
	for _, tx := range []nft.Tx{p.Tx, p.Later} {
		if err := writeTx(out, tx); err != nil {
			return err
		}
	}
	if err := writeSteps(out, steps); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the difference: %w", err)
	}
	return exitError{code: exitDiffers}
}

// writeTx writes a transaction as an nft script.
func writeTx(w io.Writer, tx nft.Tx) error {
	if tx == nil {
		return nil
	}
	for op := range tx {
		if _, err := fmt.Fprintln(w, op); err != nil {
			return fmt.Errorf("write the difference: %w", err)
		}
	}
	return nil
}

// readManifests returns what the manifests and a node's addresses say together. What cannot be used
// goes to stderr, a line each.
func readManifests(cfg config, addresses watch.Part, stderr io.Writer) (model.Snapshot, error) {
	part, err := dir.Read(cfg.Manifests)
	if err != nil {
		return model.Snapshot{}, fmt.Errorf("read the manifests: %w", err)
	}
	snapshot, problems := watch.Join(watch.Config{NodeName: cfg.NodeName, AllowExternalIPs: cfg.AllowExternalIPs, NodeIP: cfg.Options.BindAddress()}, part, addresses)
	for _, p := range problems {
		fmt.Fprintln(stderr, "nftproxy:", p)
	}
	return snapshot, nil
}

// givenAddresses returns the part that stands for the interfaces of a node: what --node-address says.
func givenAddresses(cfg config) watch.Part {
	var p watch.Part
	for i, a := range cfg.NodeAddresses {
		p.Addresses = append(p.Addresses, watch.Address{Addr: a, Index: i + 1})
	}
	return p
}

// firstPart runs a source until it has spoken.
func firstPart(ctx context.Context, s watch.Source) (watch.Part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var first *watch.Part
	err := s.Run(ctx, func(p watch.Part) {
		if first == nil && !p.Waiting {
			first = &p
			cancel()
		}
	})
	if first == nil {
		return watch.Part{}, fmt.Errorf("read %s: %w", s, errors.Join(err, ctx.Err()))
	}
	return *first, nil
}

// cleanupCommand returns the command that removes what is ours.
func cleanupCommand() *cobra.Command {
	return newCommand("cleanup", "Remove all that is ours from this node, and say what", `
It deletes the tables "ip nftproxy" and "ip6 nftproxy", the device kube-ipvs0 and the
virtual servers of IPVS at its addresses, and prints what they held.
Services stop working on this node; established connections go on. It refuses to
while a daemon runs, which would make the tables again. It needs CAP_NET_ADMIN.`, `
  nftproxy cleanup`, func(c *cobra.Command) error {
		lock, err := takeLock(lockName)
		if err != nil {
			return err
		}
		defer lock.Close()
		return cleanup(c.OutOrStdout())
	})
}

// cleanup deletes our tables and virtual servers and writes to stdout what there was.
func cleanup(stdout io.Writer) error {
	conn, err := kernel.Dial(kernel.Config{})
	if err != nil {
		return fmt.Errorf("open nftables (this needs CAP_NET_ADMIN): %w", err)
	}
	defer conn.Close()
	tables, err := conn.Load(plan.TableName)
	if err != nil {
		return fmt.Errorf("read the ruleset: %w", err)
	}
	balancer := ipvskernel.New(ipvskernel.Options{})
	defer balancer.Close()
	servers, err := balancer.Cleanup()
	if err != nil {
		return fmt.Errorf("delete our virtual servers: %w", err)
	}
	if servers != (ipvskernel.Removed{}) {
		if _, err := fmt.Fprintln(stdout, "deleted", servers); err != nil {
			return fmt.Errorf("write what was deleted: %w", err)
		}
	}
	if len(tables) == 0 {
		if servers == (ipvskernel.Removed{}) {
			_, err = fmt.Fprintln(stdout, "nothing of nftproxy is here")
		}
		return err
	}
	err = conn.Commit(func(yield func(nft.Op) bool) {
		for i := range tables {
			if !yield(nft.Op{Verb: nft.Delete, Family: tables[i].Family, Name: tables[i].Name, Table: &tables[i]}) {
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("delete our tables: %w", err)
	}
	for i := range tables {
		if _, err := fmt.Fprintln(stdout, removed(&tables[i])); err != nil {
			return fmt.Errorf("write what was deleted: %w", err)
		}
	}
	return nil
}

// removed says what went with a table.
func removed(t *nft.Table) string {
	elements := 0
	for _, list := range t.Elements {
		elements += len(list)
	}
	return fmt.Sprintf("deleted table %s %s: %d chains, %d sets and maps, %d elements", t.Family, t.Name, len(t.Chains), len(t.Sets), elements)
}
