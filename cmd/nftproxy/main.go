// Command nftproxy programs the node's nftables so that connections to Kubernetes Services reach
// their endpoints.
//
// It is the only package that names concrete sources and kernels. Start reading at [run], then
// config.go (what the flags mean) and daemon.go (how the parts are joined).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes, as `nftproxy --help` and the README document them.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitDiffers = 3
)

// main exits with the code of [run].
func main() { os.Exit(run(arguments(os.Args), os.Stdout, os.Stderr)) }

// run runs one command line and returns the exit code. A SIGINT or SIGTERM cancels it.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	// What a command returns is an exitError, so everything else is cobra's: an unknown command or
	// flag.
	e := exitError{code: exitUsage, err: err}
	errors.As(err, &e)
	if e.err != nil {
		fmt.Fprintln(stderr, "nftproxy:", e.err)
	}
	if e.code == exitUsage {
		fmt.Fprintln(stderr, "`nftproxy --help` and `nftproxy COMMAND --help` tell more.")
	}
	return e.code
}

// An exitError is an error with the exit code that it leads to.
type exitError struct {
	code int
	// err is what a person is told; nil if all was said on stdout.
	err error
}

// Error returns the message of what went wrong.
func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

// Unwrap returns what went wrong.
func (e exitError) Unwrap() error { return e.err }

// usagef returns the error of a command line that makes no sense.
func usagef(format string, args ...any) error {
	return exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// rootCommand returns the command line with all commands.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "nftproxy",
		Short: "Kubernetes Services in nftables, without running nft or iptables",
		Long: `nftproxy programs the node's nftables so that connections to Kubernetes Services
reach their endpoints. It talks to the kernel itself (netlink) and runs no other
program.

Standard output is data, standard error is talk.

Exit codes:
  0  done
  1  it failed; standard error says why
  2  the command line makes no sense
  3  diff: the node differs from the manifests`,
		Example: `  nftproxy run --manifests /etc/nftproxy/manifests --cluster-cidr 10.244.0.0/16
  nftproxy render --manifests ./manifests --node-address 192.0.2.10 | less
  nftproxy diff --manifests ./manifests
  nftproxy status -o json`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(
		runCommand(), renderCommand(), diffCommand(), statusCommand(), cleanupCommand(),
		versionCommand(), completionCommand(root),
	)
	return root
}

// newCommand returns a command that takes no arguments and whose errors end the program with
// exitFailed, unless they say otherwise. The long text begins with the short one.
func newCommand(name, short, long, example string, do func(*cobra.Command) error) *cobra.Command {
	return &cobra.Command{
		Use:     name,
		Short:   short,
		Long:    short + ".\n\n" + strings.TrimSpace(long),
		Example: strings.Trim(example, "\n"),
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return failed(do(c)) },
	}
}

// failed returns err as an exitError, and nil as nil.
func failed(err error) error {
	if e := (exitError{}); err == nil || errors.As(err, &e) {
		return err
	}
	return exitError{code: exitFailed, err: err}
}

// completionCommand returns the command that prints shell completion for root.
func completionCommand(root *cobra.Command) *cobra.Command {
	c := newCommand("completion", "Print the completion script of a shell", `
The script goes to standard output; load it as the shell wants it.`, `
  source <(nftproxy completion bash)
  nftproxy completion zsh > "${fpath[1]}/_nftproxy"
  nftproxy completion fish > ~/.config/fish/completions/nftproxy.fish`, nil)
	c.Use = "completion bash|zsh|fish"
	c.Args = cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)
	c.ValidArgs = []string{"bash", "zsh", "fish"}
	c.RunE = func(c *cobra.Command, args []string) error {
		out := c.OutOrStdout()
		switch args[0] {
		case "bash":
			return failed(root.GenBashCompletionV2(out, true))
		case "zsh":
			return failed(root.GenZshCompletion(out))
		default: // ValidArgs leaves fish only.
			return failed(root.GenFishCompletion(out, true))
		}
	}
	return c
}
