package leftovers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// attempts is how often to look again if somebody changes the ruleset at the same time.
const attempts = 20

// Config says where to look.
type Config struct {
	// NetNS is a file descriptor of the network namespace, 0 for that of the calling thread.
	NetNS int
}

// A Report says what was done, a line for each thing.
type Report struct {
	Removed []string
	// Kept are chains of kube-proxy that others use.
	Kept []string
}

// Remove removes what kube-proxy left: all of it in one batch, or nothing.
func Remove(cfg Config) (Report, error) {
	c, err := dial(cfg.NetNS)
	if err != nil {
		return Report{}, err
	}
	defer c.nl.Close()
	for range attempts {
		r, err := c.removeOnce()
		if errors.Is(err, unix.ERESTART) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return Report{}, fmt.Errorf("remove the rules of kube-proxy: %w", err)
		}
		return Report{Removed: r.lines(), Kept: r.kept}, nil
	}
	return Report{}, fmt.Errorf("remove the rules of kube-proxy: the ruleset changes all the time, %d times", attempts)
}

// families returns the families that kube-proxy makes rules in.
func families() []string { return []string{"ip", "ip6"} }

// removeOnce looks and removes. The error is ERESTART if the ruleset changed meanwhile.
func (c *conn) removeOnce() (removal, error) {
	generation, err := c.generation()
	if err != nil {
		return removal{}, err
	}
	var rs ruleset
	for _, family := range families() {
		if err := c.read(family, &rs); err != nil {
			return removal{}, err
		}
	}
	r := decide(rs)
	if r.empty() {
		return r, nil
	}
	return r, c.commit(generation, r)
}

// read adds what there is of a family to a ruleset. Of kube-proxy's own chains, of which there may be
// very many, it reads the rules only where somebody else jumps to them.
func (c *conn) read(family string, rs *ruleset) error {
	tables, err := c.tables(family)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.name == proxyTable {
			rs.tables = append(rs.tables, t)
		}
	}
	chains, err := c.chains(family)
	if err != nil {
		return err
	}
	rs.chains = append(rs.chains, chains...)
	base, known := map[chain]bool{}, map[chain]bool{}
	var next []chain
	for _, found := range chains {
		key := chain{table: found.table, name: found.name}
		base[key] = found.base
		if !ours(found.name) {
			known[key] = true
			next = append(next, key)
		}
	}
	for len(next) > 0 {
		from := next[0]
		next = next[1:]
		jumps, err := c.jumps(from)
		if err != nil {
			return err
		}
		rs.jumps = append(rs.jumps, jumps...)
		for _, j := range jumps {
			if to := (chain{table: j.table, name: j.to}); !base[from] && !known[to] {
				known[to] = true
				next = append(next, to)
			}
		}
	}
	return nil
}

// commit sends a removal as one batch, which the kernel refuses if the ruleset is not of the
// generation any more.
func (c *conn) commit(generation uint32, r removal) error {
	messages, err := r.messages()
	if err != nil {
		return err
	}
	messages[len(messages)-1].Header.Flags |= netlink.Acknowledge
	begin, err := edge(unix.NFNL_MSG_BATCH_BEGIN, func(e *netlink.AttributeEncoder) { e.Uint32(unix.NFNL_BATCH_GENID, generation) })
	if err != nil {
		return err
	}
	end, err := edge(unix.NFNL_MSG_BATCH_END, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return err
	}
	batch := append(append([]netlink.Message{begin}, messages...), end)
	size := sendSlack
	for _, m := range batch {
		size += unix.SizeofNlMsghdr + len(m.Data)
	}
	// The kernel takes all of a batch at once, or nothing.
	if err := c.nl.SetWriteBuffer(2 * size); err != nil {
		return fmt.Errorf("enlarge the send buffer to %d bytes: %w", 2*size, err)
	}
	if err := c.nl.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.nl.SendMessages(batch); err != nil {
		return fmt.Errorf("send %d messages: %w", len(batch), err)
	}
	// Errors come before the acknowledgement of the last message.
	if _, err := c.nl.Receive(); err != nil {
		return fmt.Errorf("commit %d messages: %w", len(batch), err)
	}
	return nil
}

// edge returns the message that begins or ends a batch.
func edge(typ netlink.HeaderType, fill func(*netlink.AttributeEncoder)) (netlink.Message, error) {
	m, err := request(0, 0, unix.AF_UNSPEC, fill)
	m.Header.Type = typ
	if err == nil {
		binary.BigEndian.PutUint16(m.Data[2:], unix.NFNL_SUBSYS_NFTABLES)
	}
	return m, err
}

// messages returns a removal as messages. All chains are emptied before any is deleted, since they
// refer to each other.
func (r *removal) messages() ([]netlink.Message, error) {
	var messages []netlink.Message
	var errs []error
	add := func(typ int, t table, fill func(*netlink.AttributeEncoder)) {
		m, err := request(typ, 0, protocol(t.family), fill)
		messages, errs = append(messages, m), append(errs, err)
	}
	for _, t := range r.tables {
		add(unix.NFT_MSG_DELTABLE, t, func(e *netlink.AttributeEncoder) { e.String(unix.NFTA_TABLE_NAME, t.name) })
	}
	for _, j := range r.jumps {
		add(unix.NFT_MSG_DELRULE, j.table, func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_RULE_TABLE, j.table.name)
			e.String(unix.NFTA_RULE_CHAIN, j.from)
			e.Uint64(unix.NFTA_RULE_HANDLE, j.handle)
		})
	}
	for _, c := range r.chains {
		add(unix.NFT_MSG_DELRULE, c.table, func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_RULE_TABLE, c.table.name)
			e.String(unix.NFTA_RULE_CHAIN, c.name)
		})
	}
	for _, c := range r.chains {
		add(unix.NFT_MSG_DELCHAIN, c.table, func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_CHAIN_TABLE, c.table.name)
			e.String(unix.NFTA_CHAIN_NAME, c.name)
		})
	}
	return messages, errors.Join(errs...)
}
