package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// modprobe is the program that loads modules, in the machine.
const modprobe = "/run/modprobe"

// LoadModules loads modules into the machine that this process runs in. The kernel does so itself when it
// needs one, but for nf_tables in a slow way: it takes a transaction back, loads all that it had to
// load so far and begins again, for each module anew.
func LoadModules(names ...string) error {
	_, err := output("/", modprobe, append([]string{"-a"}, names...)...)
	return err
}

// RulesetModules returns the modules that rulesets of nftproxy and the networks of tests need.
func RulesetModules() []string {
	return []string{
		"veth", "bridge", "nf_conntrack_netlink", "nft_chain_nat", "nft_ct", "nft_fib_ipv4", "nft_fib_ipv6",
		"nft_hash", "nft_masq", "nft_nat", "nft_numgen", "nft_reject_ipv4", "nft_reject_ipv6", "nft_reject_inet",
	}
}

// enterShare makes the file system of the host the root of this one. It is shared for reading; what is
// written goes to memory.
func enterShare() error {
	for _, m := range []mountPoint{
		{shareTag, "/host", "9p", "trans=virtio,version=9p2000.L,cache=loose,msize=524288,ro"},
		{"upper", "/upper", "tmpfs", "size=90%"},
	} {
		if err := m.mount(); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/upper/files", "/upper/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	root := mountPoint{"root", "/all", "overlay", "lowerdir=/host,upperdir=/upper/files,workdir=/upper/work"}
	if err := root.mount(); err != nil {
		return err
	}
	// An initramfs cannot be left by pivot_root(2): cover it.
	if err := unix.Chdir("/all"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// settle gives the machine what every Linux has beside its files.
func settle(c guestCommand) error {
	for _, m := range []mountPoint{
		{"proc", "/proc", "proc", ""},
		{"sysfs", "/sys", "sysfs", ""},
		{"dev", "/dev", "devtmpfs", ""},
		{"devpts", "/dev/pts", "devpts", "ptmxmode=0666"},
		{"shm", "/dev/shm", "tmpfs", ""},
		{"run", "/run", "tmpfs", "mode=755"},
	} {
		if err := m.mount(); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/run/netns", "/run/lock", "/lib/modules"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// The kernel runs modprobe by its path, and busybox goes by the name that it is called.
	if err := errors.Join(
		os.Symlink(c.Modprobe, modprobe),
		os.WriteFile("/proc/sys/kernel/modprobe", []byte(modprobe), 0o644),
		unix.Mount(filepath.Dir(c.Modules), "/lib/modules", "", unix.MS_BIND, ""),
		unix.Sethostname([]byte("machine")),
	); err != nil {
		return fmt.Errorf("prepare for modules: %w", err)
	}
	return loopbackUp()
}

// loopbackUp brings the interface lo up.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}
