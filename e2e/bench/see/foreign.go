package see

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/netns"
)

// The table and set of somebody else, who works beside the measured program.
const foreignTable, foreignSet = "bench-foreign", "addresses"

// Foreign adds an element to a set of a table of its own again and again, in a transaction each, as another
// program on the node does, until stop is closed, and returns how long each took.
func Foreign(ns *netns.NetNS, pause time.Duration, stop <-chan struct{}) ([]time.Duration, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		return nil, fmt.Errorf("open a foreign table: %w", err)
	}
	defer c.Close()
	if err := makeForeign(c); err != nil {
		return nil, fmt.Errorf("make a foreign table: %w", err)
	}
	var took []time.Duration
	for i := 0; ; i++ {
		attrs, err := elements(foreignTable, foreignSet, []byte{192, 0, byte(i >> 8), byte(i)})
		if err != nil {
			return nil, err
		}
		start := time.Now()
		if err := transact(c, nfMessage(unix.NFT_MSG_NEWSETELEM, netlink.Create, attrs)); err != nil {
			return nil, fmt.Errorf("add an element to a foreign set: %w", err)
		}
		took = append(took, time.Since(start))
		select {
		case <-stop:
			return took, nil
		case <-time.After(pause):
		}
	}
}

// makeForeign makes the table and the set.
func makeForeign(c *netlink.Conn) error {
	table, set := netlink.NewAttributeEncoder(), netlink.NewAttributeEncoder()
	table.String(unix.NFTA_TABLE_NAME, foreignTable)
	set.ByteOrder = binary.BigEndian
	set.String(unix.NFTA_SET_TABLE, foreignTable)
	set.String(unix.NFTA_SET_NAME, foreignSet)
	const typeIPv4 = 7 // what nft calls ipv4_addr
	set.Uint32(unix.NFTA_SET_KEY_TYPE, typeIPv4)
	set.Uint32(unix.NFTA_SET_KEY_LEN, 4)
	set.Uint32(unix.NFTA_SET_ID, 1)
	a, err := table.Encode()
	b, err2 := set.Encode()
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	return transact(c, nfMessage(unix.NFT_MSG_NEWTABLE, netlink.Create, a), nfMessage(unix.NFT_MSG_NEWSET, netlink.Create, b))
}

// transact does messages as one transaction and waits for the kernel to be done with it.
func transact(c *netlink.Conn, messages ...netlink.Message) error {
	edge := func(typ netlink.HeaderType) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: typ, Flags: netlink.Request},
			Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	messages[len(messages)-1].Header.Flags |= netlink.Acknowledge
	batch := append([]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}, messages...)
	if _, err := c.SendMessages(append(batch, edge(unix.NFNL_MSG_BATCH_END))); err != nil {
		return err
	}
	_, err := c.Receive()
	return err
}
