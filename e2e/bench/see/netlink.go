package see

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/netns"
)

// nfMessage returns a message of nf_tables for the family ip.
func nfMessage(typ netlink.HeaderType, flags netlink.HeaderFlags, attrs []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | typ, Flags: netlink.Request | flags},
		Data:   append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	}
}

// A Map is a map or set of nf_tables whose elements are looked at one by one.
type Map struct {
	conn        *netlink.Conn
	table, name string
}

// OpenMap returns a map of a table "ip" in a namespace. It need not exist yet.
func OpenMap(ns *netns.NetNS, table, name string) (*Map, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		return nil, fmt.Errorf("open the map %s of table %s: %w", name, table, err)
	}
	return &Map{conn: c, table: table, name: name}, nil
}

// Close closes it.
func (m *Map) Close() error { return m.conn.Close() }

// frontEnd returns the key "ip daddr . meta l4proto . th dport" of a TCP front end.
func frontEnd(a netip.AddrPort) []byte {
	ip := a.Addr().As4()
	return append(ip[:], unix.IPPROTO_TCP, 0, 0, 0, byte(a.Port()>>8), byte(a.Port()), 0, 0)
}

// elements returns the attributes that name elements of a set by their keys.
func elements(table, set string, keys ...[]byte) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	e.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	e.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
		for _, key := range keys {
			list.Nested(unix.NFTA_LIST_ELEM, func(elem *netlink.AttributeEncoder) error {
				elem.Nested(unix.NFTA_SET_ELEM_KEY, func(data *netlink.AttributeEncoder) error {
					data.Bytes(unix.NFTA_DATA_VALUE, key)
					return nil
				})
				return nil
			})
		}
		return nil
	})
	return e.Encode()
}

// Has reports whether the map has a front end. The kernel answers without a lock that a transaction
// holds.
func (m *Map) Has(a netip.AddrPort) (bool, error) {
	attrs, err := elements(m.table, m.name, frontEnd(a))
	if err != nil {
		return false, err
	}
	_, err = m.conn.Execute(nfMessage(unix.NFT_MSG_GETSETELEM, 0, attrs))
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for %s in %s: %w", a, m.name, err)
	}
	return true, nil
}

// Count returns how many elements the map has; 0 if there is none. It reads all of them.
func (m *Map) Count() (int, error) {
	e := netlink.NewAttributeEncoder()
	e.String(unix.NFTA_SET_ELEM_LIST_TABLE, m.table)
	e.String(unix.NFTA_SET_ELEM_LIST_SET, m.name)
	attrs, err := e.Encode()
	if err != nil {
		return 0, err
	}
	list, err := m.conn.Execute(nfMessage(unix.NFT_MSG_GETSETELEM, netlink.Dump, attrs))
	switch {
	case errors.Is(err, unix.ENOENT):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("list %s: %w", m.name, err)
	}
	n := 0
	for i := range list {
		n += countElements(list[i].Data)
	}
	return n, nil
}

// countElements returns how many elements a message of a dump has.
func countElements(b []byte) (n int) {
	if len(b) < 4 {
		return 0
	}
	each(b[4:], func(typ uint16, data []byte) {
		if typ == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			each(data, func(uint16, []byte) { n++ })
		}
	})
	return n
}

// each calls f for each attribute in b, with its type without flags.
func each(b []byte, f func(typ uint16, data []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}
