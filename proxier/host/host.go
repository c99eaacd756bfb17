// Package host sets what kube-proxy sets on a node beside rules: the switches of connection tracking,
// and how readily the kernel kills the process.
//
// [Conntrack.Settings] decides, [Apply] writes.
package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mostEntries limits what a number of CPUs asks for: a node with very many would spend too much memory
// on the table.
const mostEntries = 1 << 20

// Conntrack says how connections are to be tracked. What is zero is left as it is.
type Conntrack struct {
	// MaxPerCore is how many connections to track for each CPU. If it is 0 Min does not count either.
	MaxPerCore int
	// Min is how many connections to track at least.
	Min            int
	TCPEstablished time.Duration
	TCPCloseWait   time.Duration
	TCPBeLiberal   bool
	UDP            time.Duration
	UDPStream      time.Duration
}

// A Setting is a file of /proc or /sys and the number that should be in it.
type Setting struct {
	// Path is below the root of the file system, without a slash before.
	Path  string
	Value int
	// AtLeast leaves a larger number.
	AtLeast bool
	// Spare is set if the node works without it, only worse.
	Spare bool
}

// String returns the setting as sysctl writes it.
func (s Setting) String() string {
	if name, ok := strings.CutPrefix(s.Path, "proc/sys/"); ok {
		return fmt.Sprintf("%s=%d", strings.ReplaceAll(name, "/", "."), s.Value)
	}
	return fmt.Sprintf("/%s=%d", s.Path, s.Value)
}

// Settings returns what c means for a machine with a number of CPUs.
func (c Conntrack) Settings(cpus int) []Setting {
	const netfilter = "proc/sys/net/netfilter/"
	var settings []Setting
	if c.MaxPerCore > 0 {
		entries := mostEntries
		if scaled := c.MaxPerCore * cpus; scaled <= mostEntries {
			entries = max(c.Min, scaled)
		}
		settings = append(settings,
			Setting{Path: netfilter + "nf_conntrack_max", Value: entries},
			// With fewer buckets the lists in them get long. Only the first network namespace can
			// write it, and only where /sys can be written to.
			Setting{Path: "sys/module/nf_conntrack/parameters/hashsize", Value: entries / 4, AtLeast: true, Spare: true})
	}
	seconds := func(name string, d time.Duration) {
		if d > 0 {
			settings = append(settings, Setting{Path: netfilter + name, Value: int(d / time.Second)})
		}
	}
	seconds("nf_conntrack_tcp_timeout_established", c.TCPEstablished)
	seconds("nf_conntrack_tcp_timeout_close_wait", c.TCPCloseWait)
	if c.TCPBeLiberal {
		settings = append(settings, Setting{Path: netfilter + "nf_conntrack_tcp_be_liberal", Value: 1})
	}
	seconds("nf_conntrack_udp_timeout", c.UDP)
	seconds("nf_conntrack_udp_timeout_stream", c.UDPStream)
	return settings
}

// Apply writes the settings whose files hold something else, below root ("/" but in tests), and
// returns those that it wrote. What is right already needs no right to write. It goes on after an
// error of a spare setting, which is in spared, and stops at any other.
func Apply(root string, settings []Setting) (written []Setting, spared, err error) {
	for _, s := range settings {
		wrote, err := apply(root, s)
		switch {
		case err != nil && s.Spare:
			spared = errors.Join(spared, err)
		case err != nil:
			return written, spared, err
		case wrote:
			written = append(written, s)
		}
	}
	return written, spared, nil
}

// apply writes a setting if its file holds something else, and reports whether it did.
func apply(root string, s Setting) (bool, error) {
	name := filepath.Join(root, s.Path)
	b, err := os.ReadFile(name)
	if err != nil {
		return false, fmt.Errorf("set %s: %w", s, err)
	}
	have, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return false, fmt.Errorf("set %s: it is %q, not a number", s, b)
	}
	if have == s.Value || s.AtLeast && have > s.Value {
		return false, nil
	}
	if err := write(name, s.Value); err != nil {
		return false, fmt.Errorf("set %s, which is %d: %w", s, have, err)
	}
	return true, nil
}

// SetOOMScore sets how readily the kernel kills this process for memory: -1000 never, 1000 first.
func SetOOMScore(root string, score int) error {
	if err := write(filepath.Join(root, "proc/self/oom_score_adj"), score); err != nil {
		return fmt.Errorf("set the OOM score to %d: %w", score, err)
	}
	return nil
}

// write writes a number into a file that exists.
func write(name string, n int) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(n))
	return errors.Join(err, f.Close())
}

// CPUs returns how many CPUs the machine below root has. The process may be allowed fewer.
func CPUs(root string) int {
	b, err := os.ReadFile(filepath.Join(root, "sys/devices/system/cpu/online"))
	if err != nil {
		return runtime.NumCPU()
	}
	n := 0
	for w := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		first, last, isRange := strings.Cut(w, "-")
		if !isRange {
			last = first
		}
		low, err := strconv.Atoi(first)
		high, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || high < low {
			return runtime.NumCPU()
		}
		n += high - low + 1
	}
	return n
}

// LoadConntrack has the kernel load connection tracking, whose files are not there before: it does
// when somebody asks for it.
func LoadConntrack() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("load connection tracking: %w", err)
	}
	// A header and an nfgenmsg: the statistics of subsystem 1, connection tracking. The answer does
	// not matter.
	const length, statistics = unix.SizeofNlMsghdr + 4, 1<<8 | 5
	msg := make([]byte, length)
	binary.NativeEndian.PutUint32(msg, length)
	binary.NativeEndian.PutUint16(msg[4:], statistics)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST)
	err = unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("load connection tracking: %w", err)
	}
	return nil
}
