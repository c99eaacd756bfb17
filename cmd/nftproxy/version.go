package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and commit are set by the linker (-X main.version=...); the build information that Go
// keeps serves where they are not.
//
//nolint:gochecknoglobals // the linker can set nothing else
var version, commit string

// A build says what this program was made from.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

// thisBuild returns the build of this program.
func thisBuild() build {
	info, _ := debug.ReadBuildInfo()
	return buildFrom(version, commit, info)
}

// buildFrom returns what the linker said or, where it said nothing, what Go noted.
func buildFrom(version, commit string, info *debug.BuildInfo) build {
	b := build{Version: version, Commit: commit, Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}
	if info != nil {
		if b.Version == "" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && b.Commit == "" {
				b.Commit = s.Value
			}
		}
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	if b.Commit == "" {
		b.Commit = "unknown"
	}
	return b
}

// versionCommand returns the command that prints what this program was made from.
func versionCommand() *cobra.Command {
	return newCommand("version", "Print version, commit and Go version", "", "  nftproxy version", func(c *cobra.Command) error {
		return printVersion(c.OutOrStdout())
	})
}

// printVersion writes what this program was made from.
func printVersion(w io.Writer) error {
	b := thisBuild()
	_, err := fmt.Fprintf(w, "nftproxy %s\ncommit   %s\ngo       %s\n", b.Version, b.Commit, b.Go)
	return err
}
