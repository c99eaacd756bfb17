package main

import (
	"os"
	"path/filepath"
	"strings"
)

// hasIPv6 reports whether the host whose /proc is given speaks IPv6, by the same test as kube-proxy.
func hasIPv6(proc string) bool {
	if _, err := os.Stat(filepath.Join(proc, "net/if_inet6")); err != nil {
		return false
	}
	return sysctl(proc, "net/ipv6/conf/all/disable_ipv6") != "1"
}

// hostWarnings returns what keeps the host whose /proc is given from forwarding packets to pods.
// These switches belong to the whole host, so they are not ours to set.
func hostWarnings(proc string, ipv6 bool) []string {
	var w []string
	if sysctl(proc, "net/ipv4/ip_forward") == "0" {
		w = append(w, "sysctl net.ipv4.ip_forward is 0: this node does not forward IPv4 to pods")
	}
	if ipv6 && sysctl(proc, "net/ipv6/conf/all/forwarding") == "0" {
		w = append(w, "sysctl net.ipv6.conf.all.forwarding is 0: this node does not forward IPv6 to pods")
	}
	return w
}

// sysctl returns the value of a switch; empty if it cannot be read.
func sysctl(proc, name string) string {
	b, err := os.ReadFile(filepath.Join(proc, "sys", name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
