package kernel

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	cloudflare "github.com/cloudflare/ipvs"
	"golang.org/x/sys/unix"
)

// A setting is a sysctl below net and its value.
type setting struct{ name, value string }

// settings returns what has to be set on a kernel with a release like "6.1.0-18-amd64". The files below
// ipv4/vs are each network namespace's own.
func settings(o Options, release string) []setting {
	list := []setting{
		// What goes to destinations is known to conntrack, so that nftables can masquerade it.
		{"ipv4/vs/conntrack", "1"},
		// A connection ends when its destination is gone: the client notices at once. Affinity for
		// one of weight 0 ends, too.
		{"ipv4/vs/expire_nodest_conn", "1"},
		{"ipv4/vs/expire_quiescent_template", "1"},
	}
	if reusesBadly(release) {
		list = append(list, setting{"ipv4/vs/conn_reuse_mode", "0"})
	}
	if o.StrictARP {
		list = append(list, setting{"ipv4/conf/all/arp_ignore", "1"}, setting{"ipv4/conf/all/arp_announce", "2"})
	}
	return list
}

// reusesBadly reports whether a kernel drops the first packet of a connection that uses the port of an earlier
// one again (https://github.com/kubernetes/kubernetes/issues/93297): from Linux 4.1, which brought
// conn_reuse_mode, until 5.9.
func reusesBadly(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return false
	}
	const first, fixed = 4<<16 | 1, 5<<16 | 9
	v := major<<16 | minor
	return first <= v && v < fixed
}

// configure applies the settings.
func (k *Kernel) configure() error {
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return fmt.Errorf("read the kernel's release: %w", err)
	}
	for _, s := range settings(k.options, unix.ByteSliceToString(uname.Release[:])) {
		if err := set("/proc/sys/net", s); err != nil {
			return fmt.Errorf("set sysctl net/%s to %s: %w", s.name, s.value, err)
		}
	}
	config := timeouts(k.options)
	if config == (cloudflare.Config{}) {
		return nil
	}
	client, err := cloudflare.New()
	if err != nil {
		return fmt.Errorf("set the timeouts of IPVS: %w", err)
	}
	err = client.SetConfig(config)
	if c, ok := client.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		return fmt.Errorf("set the timeouts of IPVS: %w", err)
	}
	return nil
}

// set sets a sysctl that has another value. One that this kernel does not have is no error.
func set(dir string, s setting) error {
	file := filepath.Join(dir, s.name)
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && strings.TrimSpace(string(b)) == s.value:
		return nil
	}
	return os.WriteFile(file, []byte(s.value), 0o644)
}

// timeouts returns the timeouts as IPVS takes them: 0 is what is left alone.
func timeouts(o Options) cloudflare.Config {
	return cloudflare.Config{TCPTimeout: seconds(o.TCPTimeout), TCPFinTimeout: seconds(o.TCPFinTimeout), UDPTimeout: seconds(o.UDPTimeout)}
}

// seconds returns d in whole seconds, at least 1 of what is not 0.
func seconds(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32(max(1, d/time.Second))
}
