package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/bench/apiserver"
	"github.com/nftproxy/nftproxy/e2e/bench/see"
	"github.com/nftproxy/nftproxy/e2e/netns"
)

// firstKnocker is the first of the addresses that knocks come from, in knockRange. They are routed to the client
// by the node, and the server takes nothing from them.
const knockRange, firstKnocker = "10.251.128.0/17", "10.251.128.1"

// A knock is the first packet of a TCP connection that comes to nothing: all that it costs is the way through the
// node. It is an IPv4 header and a TCP header.
type knock [40]byte

// newKnock returns a knock at an address.
func newKnock(to netip.AddrPort) knock {
	var k knock
	k[0], k[8], k[9] = 0x45, 64, unix.IPPROTO_TCP // the kernel adds length and checksum
	dst := to.Addr().As4()
	copy(k[16:], dst[:])
	binary.BigEndian.PutUint16(k[22:], to.Port())
	k[32], k[33] = 5<<4, 0x02 // 20 bytes; SYN
	binary.BigEndian.PutUint16(k[34:], 64240)
	return k
}

// from sets where the knock comes from.
func (k *knock) from(a netip.Addr, port uint16) {
	src := a.As4()
	copy(k[12:], src[:])
	binary.BigEndian.PutUint16(k[20:], port)
	k[36], k[37] = 0, 0
	binary.BigEndian.PutUint16(k[36:], k.checksum())
}

// checksum returns that of the TCP header with its pseudo-header (RFC 9293).
func (k *knock) checksum() uint16 {
	sum := uint32(unix.IPPROTO_TCP) + 20
	for i := 12; i < len(k); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(k[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// ignoreKnocks has a server drop what comes from knockers.
func ignoreKnocks(server *netns.NetNS) error {
	h, err := handle(server)
	if err != nil {
		return err
	}
	defer h.Close()
	_, from, err := net.ParseCIDR(knockRange)
	if err != nil {
		return err
	}
	rule := netlink.NewRule()
	rule.Src, rule.Type, rule.Family, rule.Priority = from, unix.RTN_BLACKHOLE, unix.AF_INET, 0
	// Local addresses are looked up first of all, by a rule of priority 0 itself.
	local := netlink.NewRule()
	local.Table, local.Family, local.Priority = unix.RT_TABLE_LOCAL, unix.AF_INET, 0
	moved := netlink.NewRule()
	moved.Table, moved.Family, moved.Priority = unix.RT_TABLE_LOCAL, unix.AF_INET, 1
	for _, err := range []error{h.RuleAdd(moved), h.RuleDel(local), h.RuleAdd(rule)} {
		if err != nil {
			return fmt.Errorf("have the server ignore %s: %w", knockRange, err)
		}
	}
	return nil
}

// knocks sends a number of knocks from one thread, in turn from a number of addresses, and returns how many the node
// tracked in a second.
func (w *way) knocks(n, addresses int) (rate float64, err error) {
	if err := see.FlushConntrack(w.node.host); err != nil {
		return 0, err
	}
	before, err := tracked(w.node.host)
	if err != nil {
		return 0, err
	}
	var took time.Duration
	if err := w.node.client.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		packets := make([]knock, len(w.to))
		for i, to := range w.to {
			packets[i] = newKnock(to)
		}
		start := time.Now()
		for i := range n {
			k := &packets[i%len(packets)]
			k.from(apiserver.Address(firstKnocker, i%addresses), uint16(1024+i/addresses))
			if err := unix.Sendto(fd, k[:], 0, &unix.SockaddrInet4{Addr: [4]byte(k[16:20])}); err != nil {
				return fmt.Errorf("knock at %s: %w", w.to[i%len(w.to)], err)
			}
		}
		took = time.Since(start)
		return nil
	}); err != nil {
		return 0, err
	}
	after, err := tracked(w.node.host)
	if err != nil {
		return 0, err
	}
	if after-before < n*9/10 {
		return 0, fmt.Errorf("%d of %d knocks at %s were tracked", after-before, n, w.to[0])
	}
	return float64(after-before) / took.Seconds(), nil
}

// tracked returns how many connections are tracked in a namespace.
func tracked(ns *netns.NetNS) (n int, err error) {
	err = ns.Do(func() error {
		b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		n, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err
	})
	return n, err
}
