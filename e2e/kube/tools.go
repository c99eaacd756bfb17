package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Version is the version of Kubernetes that the tools have.
const Version = "v1.36.3"

// Tools is a directory with the programs of the module in tools/, built once and kept.
type Tools struct {
	// source is the directory of the module.
	source string
	// dir holds the binaries. Its name depends on the versions, of Go too.
	dir string
}

// A Program is one of the tools.
type Program string

// The programs, by the package that they are built from.
const (
	Etcd              Program = "go.etcd.io/etcd/server/v3"
	APIServer         Program = "k8s.io/kubernetes/cmd/kube-apiserver"
	ControllerManager Program = "k8s.io/kubernetes/cmd/kube-controller-manager"
	KubeProxy         Program = "k8s.io/kubernetes/cmd/kube-proxy"
)

// name returns the file name of a program.
func (p Program) name() string {
	if p == Etcd {
		return "etcd"
	}
	return filepath.Base(string(p))
}

// FindTools returns the tools of the module in a directory. Nothing is built yet.
func FindTools(source string) (*Tools, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return nil, fmt.Errorf("find the tools: %w", err)
		}
		sum.Write(b)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find a place for the tools: %w", err)
	}
	dir := filepath.Join(cache, "nftproxy-e2e", Version+"-"+hex.EncodeToString(sum.Sum(nil))[:12])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a place for the tools: %w", err)
	}
	return &Tools{source: source, dir: dir}, nil
}

// Path returns the path of a program. It is built if it is not there, which for the API server takes
// minutes; only one process builds at a time.
func (t *Tools) Path(p Program) (string, error) {
	bin := filepath.Join(t.dir, p.name())
	if _, err := os.Stat(bin); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return bin, err
	}
	lock, err := os.OpenFile(filepath.Join(t.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	return bin, t.build(p, bin)
}

// build builds a program, static and with its version, which kube-apiserver does not run without.
func (t *Tools) build(p Program, bin string) error {
	const version = "k8s.io/component-base/version."
	cmd := exec.Command("nice", "-n", "15", "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X "+version+"gitVersion="+Version+" -X "+version+"gitMajor=1 -X "+version+"gitMinor=36",
		"-o", bin+".new", string(p))
	cmd.Dir = t.source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	fmt.Fprintf(os.Stderr, "building %s; this is done once and may take minutes\n", p.name())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", p.name(), err, out)
	}
	return os.Rename(bin+".new", bin)
}
