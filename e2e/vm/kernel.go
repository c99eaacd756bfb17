package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelPackage is the package of Debian that depends on the package of the newest kernel.
const kernelPackage = "linux-image-amd64"

// A Kernel is a kernel of Debian that was taken out of its package.
type Kernel struct {
	// Image is the kernel itself.
	Image string
	// Modules is the directory of its modules, with what depmod writes.
	Modules string
	// Version is the version as uname prints it.
	Version string
}

// FindKernel returns a kernel, which is fetched from the package mirror of this machine when there is none
// in the cache yet. It needs apt-get, dpkg and busybox.
func FindKernel() (Kernel, error) {
	if runtime.GOARCH != "amd64" {
		return Kernel{}, fmt.Errorf("find a kernel for the machine: %w on %s", errors.ErrUnsupported, runtime.GOARCH)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return Kernel{}, fmt.Errorf("find a place for the kernel: %w", err)
	}
	dir := filepath.Join(cache, "nftproxy-e2e")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Kernel{}, fmt.Errorf("make a place for the kernel: %w", err)
	}
	dir = filepath.Join(dir, kernelPackage)
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return Kernel{}, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return Kernel{}, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if k, err := kernelIn(dir); err == nil {
		return k, nil
	}
	if err := fetchKernel(dir); err != nil {
		return Kernel{}, fmt.Errorf("fetch a kernel: %w", err)
	}
	return kernelIn(dir)
}

// kernelIn returns the kernel of a package that was unpacked into a directory.
func kernelIn(dir string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return Kernel{}, fmt.Errorf("%s has %d kernels; want 1", dir, len(images))
	}
	k := Kernel{Image: images[0], Version: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")}
	for _, lib := range []string{"lib", "usr/lib"} {
		k.Modules = filepath.Join(dir, lib, "modules", k.Version)
		if _, err := os.Stat(filepath.Join(k.Modules, "modules.dep")); err == nil {
			return k, nil
		}
	}
	return Kernel{}, fmt.Errorf("%s has no modules for %s", dir, k.Version)
}

// fetchKernel fetches the package and unpacks it; nothing is installed. The directory appears when it
// is complete.
func fetchKernel(dir string) error {
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	deb, err := download(tmp)
	if err != nil {
		// The lists of packages are missing or name one that is no longer there.
		if _, err := output(tmp, "apt-get", "-qq", "-o", "Acquire::Retries=3", "update"); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		if deb, err = download(tmp); err != nil {
			return err
		}
	}
	root := filepath.Join(tmp, "root")
	if _, err := output(tmp, "dpkg", "-x", deb, root); err != nil {
		return err
	}
	for _, base := range []string{root, filepath.Join(root, "usr")} {
		versions, err := os.ReadDir(filepath.Join(base, "lib", "modules"))
		if err != nil {
			continue
		}
		for _, v := range versions {
			if _, err := output(tmp, "busybox", "depmod", "-b", base, v.Name()); err != nil {
				return err
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(root, dir)
}

// download puts the package into a directory and returns its path.
func download(dir string) (string, error) {
	depends, err := output(dir, "apt-cache", "depends", "--important", kernelPackage)
	if err != nil {
		return "", err
	}
	name, err := realPackage(depends)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "fetching %s; this is done once\n", name)
	if _, err := output(dir, "apt-get", "-qq", "-o", "Acquire::Retries=3", "download", name); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s: %d files; want 1", name, len(debs))
	}
	return debs[0], nil
}

// dependency matches the kernel among what apt-cache depends prints.
var dependency = regexp.MustCompile(`(?m)^ *Depends: (linux-image-\S+)$`)

// realPackage returns the package that kernelPackage depends on.
func realPackage(depends string) (string, error) {
	m := dependency.FindStringSubmatch(depends)
	if m == nil {
		return "", fmt.Errorf("apt-cache depends %s: no kernel in %q", kernelPackage, depends)
	}
	return m[1], nil
}

// output runs a program in a directory and returns what it prints. The error holds all that it said.
func output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return string(out), nil
}
