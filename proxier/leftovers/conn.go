package leftovers

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long the kernel may take to answer.
const patience = time.Minute

// sendSlack is what a message takes in the socket's buffer beyond its own length.
const sendSlack = 1 << 12

// A conn is a connection to nf_tables.
type conn struct{ nl *netlink.Conn }

// dial connects to the nf_tables of a network namespace, or to those of the calling thread for 0.
func dial(netns int) (*conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("connect to nf_tables: %w", err)
	}
	return &conn{nl: nl}, nil
}

// protocol returns the number of a family.
func protocol(family string) byte {
	if family == "ip6" {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// request returns a message to nf_tables.
func request(typ int, flags netlink.HeaderFlags, family byte, fill func(*netlink.AttributeEncoder)) (netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	fill(e)
	attributes, err := e.Encode()
	if err != nil {
		return netlink.Message{}, fmt.Errorf("encode a request: %w", err)
	}
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...),
	}, nil
}

// ask sends a request and gives the attributes of each answer to take.
func (c *conn) ask(typ int, flags netlink.HeaderFlags, family byte, fill func(*netlink.AttributeEncoder), take func(*netlink.AttributeDecoder)) error {
	m, err := request(typ, flags, family, fill)
	if err != nil {
		return err
	}
	if err := c.nl.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	answers, err := c.nl.Execute(m)
	if err != nil {
		return err
	}
	for _, a := range answers {
		const header = 4
		if len(a.Data) < header {
			continue
		}
		d, err := netlink.NewAttributeDecoder(a.Data[header:])
		if err != nil {
			return fmt.Errorf("decode an answer: %w", err)
		}
		d.ByteOrder = binary.BigEndian
		take(d)
		if err := d.Err(); err != nil {
			return fmt.Errorf("decode an answer: %w", err)
		}
	}
	return nil
}

// generation returns the number that the kernel counts up with each transaction of anybody.
func (c *conn) generation() (id uint32, err error) {
	err = c.ask(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, func(*netlink.AttributeEncoder) {}, func(d *netlink.AttributeDecoder) {
		for d.Next() {
			if d.Type() == unix.NFTA_GEN_ID {
				id = d.Uint32()
			}
		}
	})
	if err != nil {
		return 0, fmt.Errorf("get the generation: %w", err)
	}
	return id, nil
}

// tables returns all tables of a family.
func (c *conn) tables(family string) ([]table, error) {
	var tables []table
	err := c.ask(unix.NFT_MSG_GETTABLE, netlink.Dump, protocol(family), func(*netlink.AttributeEncoder) {}, func(d *netlink.AttributeDecoder) {
		for d.Next() {
			if d.Type() == unix.NFTA_TABLE_NAME {
				tables = append(tables, table{family: family, name: d.String()})
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list tables %s: %w", family, err)
	}
	return tables, nil
}

// chains returns the chains of the tables of a family that iptables keeps rules in.
func (c *conn) chains(family string) ([]chain, error) {
	var chains []chain
	err := c.ask(unix.NFT_MSG_GETCHAIN, netlink.Dump, protocol(family), func(*netlink.AttributeEncoder) {}, func(d *netlink.AttributeDecoder) {
		found := chain{table: table{family: family}}
		for d.Next() {
			switch d.Type() {
			case unix.NFTA_CHAIN_TABLE:
				found.table.name = d.String()
			case unix.NFTA_CHAIN_NAME:
				found.name = d.String()
			case unix.NFTA_CHAIN_HOOK:
				found.base = true
			}
		}
		if found.table.compatible() {
			chains = append(chains, found)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list chains %s: %w", family, err)
	}
	return chains, nil
}

// jumps returns the rules of a chain that go to another chain.
func (c *conn) jumps(from chain) ([]jump, error) {
	var jumps []jump
	err := c.ask(unix.NFT_MSG_GETRULE, netlink.Dump, protocol(from.table.family), func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, from.table.name)
		e.String(unix.NFTA_RULE_CHAIN, from.name)
	}, func(d *netlink.AttributeDecoder) {
		j, in := jump{table: from.table}, ""
		for d.Next() {
			switch d.Type() {
			case unix.NFTA_RULE_TABLE:
				in = d.String()
			case unix.NFTA_RULE_CHAIN:
				j.from = d.String()
			case unix.NFTA_RULE_HANDLE:
				j.handle = d.Uint64()
			case unix.NFTA_RULE_EXPRESSIONS:
				nested(d, func(list *netlink.AttributeDecoder) { j.to = target(list) })
			}
		}
		// Kernels that do not know the filter list more than was asked for.
		if in == from.table.name && j.from == from.name && j.to != "" {
			jumps = append(jumps, j)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list the rules of chain %s in %s: %w", from.name, from.table, err)
	}
	return jumps, nil
}

// target returns the chain that a list of expressions goes to, empty if it goes to none.
func target(list *netlink.AttributeDecoder) (to string) {
	each(list, unix.NFTA_LIST_ELEM, func(expression *netlink.AttributeDecoder) {
		name := ""
		for expression.Next() {
			switch expression.Type() {
			case unix.NFTA_EXPR_NAME:
				name = expression.String()
			case unix.NFTA_EXPR_DATA:
				if name == "immediate" {
					nested(expression, func(immediate *netlink.AttributeDecoder) { to = verdictChain(immediate) })
				}
			}
		}
	})
	return to
}

// verdictChain returns the chain of the verdict in an immediate expression.
func verdictChain(immediate *netlink.AttributeDecoder) (name string) {
	each(immediate, unix.NFTA_IMMEDIATE_DATA, func(data *netlink.AttributeDecoder) {
		each(data, unix.NFTA_DATA_VERDICT, func(verdict *netlink.AttributeDecoder) {
			for verdict.Next() {
				if verdict.Type() == unix.NFTA_VERDICT_CHAIN {
					name = verdict.String()
				}
			}
		})
	})
	return name
}

// each gives the attributes within each attribute of a type to f.
func each(d *netlink.AttributeDecoder, typ uint16, f func(*netlink.AttributeDecoder)) {
	for d.Next() {
		if d.Type() == typ {
			nested(d, f)
		}
	}
}

// nested gives the attributes within the one that d is at to f.
func nested(d *netlink.AttributeDecoder, f func(*netlink.AttributeDecoder)) {
	d.Nested(func(inner *netlink.AttributeDecoder) error {
		f(inner)
		return inner.Err()
	})
}
