package see

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/netns"
)

// FlushConntrack has a namespace forget all connections that it tracks: those that have ended stay until the
// kernel comes by, and fill the table.
func FlushConntrack(ns *netns.NetNS) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	defer c.Close()
	const del = 2 // IPCTNL_MSG_CT_DELETE of <linux/netfilter/nfnetlink_conntrack.h>
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | del, Flags: netlink.Request | netlink.Acknowledge},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	return nil
}
