package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

// Load returns the tables of a name, of both families, as they are in the kernel. Tables that do not
// exist are left out, and so are the elements of dynamic sets: they change all the time.
func (c *Conn) Load(name string) ([]nft.Table, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.ahead; k.name == name && k.tables != nil {
		c.ahead = ahead{}
		if now, err := c.generation(); err == nil && now == c.gen {
			return k.tables, nil
		}
	}
	return c.load(name)
}

// LoadAhead reads the tables of a name for the next Load, which takes them if nobody did a transaction
// meanwhile: at the start the kernel is read while the API server answers.
func (c *Conn) LoadAhead(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	tables, err := c.load(name)
	if err != nil {
		return err
	}
	c.ahead = ahead{name, tables}
	return nil
}

// load reads the tables of a name until nobody changes them meanwhile.
func (c *Conn) load(name string) ([]nft.Table, error) {
	for range tornReads {
		tables, err := c.loadOnce(name)
		switch {
		case err == nil:
			return tables, nil
		case !errors.Is(err, errTorn):
			return nil, fmt.Errorf("load table %s: %w", name, err)
		}
	}
	return nil, fmt.Errorf("load table %s: %w, %d times", name, errTorn, tornReads)
}

// loadOnce reads the tables, or returns errTorn if the ruleset changed meanwhile.
func (c *Conn) loadOnce(name string) ([]nft.Table, error) {
	if err := c.barrier(); err != nil {
		return nil, err
	}
	gen, err := c.generation()
	if err != nil {
		return nil, err
	}
	d := dump{conn: c, gen: uint16(gen), name: name, counts: map[string]uint32{}}
	var tables []nft.Table
	for _, f := range nft.Families() {
		t, ok, err := d.table(f)
		if err != nil {
			// What vanishes while it is read is an error of the kernel that a second look explains.
			if now, e := c.generation(); e == nil && now != gen {
				err = errTorn
			}
			return nil, err
		}
		if ok {
			tables = append(tables, t)
		}
	}
	if err := c.barrier(); err != nil {
		return nil, err
	}
	if now, err := c.generation(); err != nil || now != gen {
		return nil, errors.Join(err, errTorn)
	}
	c.gen = gen
	return tables, nil
}

// barrier waits until no transaction is under way. A dump of a hash table goes on by position, and a
// transaction moves elements at times that the generation does not tell: it puts in new ones, and
// may make the table grow, before it counts the generation up, and takes deleted ones out after. So
// there is a barrier on either side of the dumps: what is under way before the first has ended, and
// what began later has counted up by the end. (One that began and was refused meanwhile would go
// unnoticed; ours take turns with Load.) An empty transaction takes the lock that the others hold,
// and changes nothing.
func (c *Conn) barrier() error {
	b := Batch{first: c.seq + 1}
	b.control(unix.NFNL_MSG_BATCH_BEGIN)
	b.control(unix.NFNL_MSG_BATCH_END)
	c.seq += uint32(len(b.marks))
	if err := c.sock.Send(b.buf); err != nil {
		return fmt.Errorf("wait for other transactions: %w", err)
	}
	return nil
}

// generation returns the number that the kernel counts up with each transaction of anybody.
func (c *Conn) generation() (uint32, error) {
	var gen uint32
	err := c.ask(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, nil, func(msg wire.Message) error {
		if msg.Type() == nftType(unix.NFT_MSG_NEWGEN) && len(msg) >= headers {
			gen = number(wire.Find(msg[headers:], unix.NFTA_GEN_ID))
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("get generation: %w", err)
	}
	return gen, nil
}

// A dump reads tables at one generation.
type dump struct {
	conn *Conn
	gen  uint16 // the low bits of the generation, which is all that messages say
	name string
	// counts are the numbers of elements of the sets of the table that is read; none if the kernel does
	// not tell.
	counts map[string]uint32
}

// table returns the table of a family and whether it exists.
func (d *dump) table(f nft.Family) (t nft.Table, ok bool, err error) {
	t = nft.Table{Family: f, Name: d.name, Elements: map[string][]nft.Element{}}
	err = d.list(unix.NFT_MSG_GETTABLE, f, nil, func(b []byte) {
		if name, text := decodeTable(b); name == d.name {
			ok, t.Comment = true, text
		}
	})
	if err != nil || !ok {
		return t, false, err
	}
	clear(d.counts)
	err = d.list(unix.NFT_MSG_GETSET, f, wire.AppendString(nil, unix.NFTA_SET_TABLE, d.name), func(b []byte) {
		if string(wire.CString(wire.Find(b, unix.NFTA_SET_TABLE))) == d.name {
			t.Sets = append(t.Sets, decodeSet(f, b))
			d.counts[t.Sets[len(t.Sets)-1].Name] = number(wire.Find(b, attrSetCount))
		}
	})
	if err != nil {
		return t, false, err
	}
	if err := d.chains(&t); err != nil {
		return t, false, err
	}
	for i := range t.Sets {
		if err := d.elements(&t, &t.Sets[i]); err != nil {
			return t, false, err
		}
	}
	return t, true, nil
}

// chains reads the chains of a table with their rules.
func (d *dump) chains(t *nft.Table) error {
	index := map[string]int{}
	err := d.list(unix.NFT_MSG_GETCHAIN, t.Family, nil, func(b []byte) {
		if table, c := decodeChain(b); table == d.name {
			index[c.Name] = len(t.Chains)
			t.Chains = append(t.Chains, c)
		}
	})
	if err != nil {
		return err
	}
	return d.list(unix.NFT_MSG_GETRULE, t.Family, wire.AppendString(nil, unix.NFTA_RULE_TABLE, d.name), func(b []byte) {
		table, chain, r := decodeRule(t.Family, b)
		if i, ok := index[chain]; ok && table == d.name {
			t.Chains[i].Rules = append(t.Chains[i].Rules, r)
		}
	})
}

// elements reads the elements of a set.
func (d *dump) elements(t *nft.Table, s *nft.Set) error {
	if s.Dynamic {
		return nil
	}
	if elements, all, err := d.byKey(t, s); err != nil {
		return fmt.Errorf("elements of %s by key: %w", s.Name, err)
	} else if all {
		t.Elements[s.Name] = elements
		return nil
	}
	request := wire.AppendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, d.name)
	request = wire.AppendString(request, unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	dec := elementDecoder{family: t.Family, set: s}
	elements := make([]nft.Element, 0, d.counts[s.Name])
	err := d.list(unix.NFT_MSG_GETSETELEM, t.Family, request, func(b []byte) {
		elements = dec.decode(elements, b)
	})
	if err != nil {
		return fmt.Errorf("elements of %s: %w", s.Name, err)
	}
	if !s.Interval && repeats(elements) {
		return errTorn
	}
	if len(elements) > 0 {
		t.Elements[s.Name] = elements
	}
	return nil
}

// repeats reports whether a key occurs twice. The kernel goes on with a dump after as many elements as
// it gave before, but a hash table that grows, which it does for some time after a large
// transaction, changes their order meanwhile. For each element that is left out by that another
// comes twice.
func repeats(elements []nft.Element) bool {
	seed := maphash.MakeSeed()
	seen := make(map[uint64]struct{}, len(elements))
	for i := range elements {
		seen[maphash.Bytes(seed, elements[i].Key.Bytes())] = struct{}{}
	}
	return len(seen) < len(elements)
}

// list dumps objects and gives the attributes of each to take. The messages of a torn dump differ in
// their generation; nothing else tells.
func (d *dump) list(msg int, f nft.Family, request []byte, take func(attributes []byte)) error {
	err := d.conn.ask(msg, unix.NLM_F_DUMP, protocol(f), request, func(m wire.Message) error {
		if err := d.check(m); err != nil {
			return err
		}
		take(m[headers:])
		return nil
	})
	if err != nil {
		return fmt.Errorf("dump %s: %w", getNames(msg), err)
	}
	return nil
}

// check returns an error if a message is none about our generation.
func (d *dump) check(m wire.Message) error {
	if len(m) < headers {
		return fmt.Errorf("a message of %d bytes", len(m))
	}
	if binary.BigEndian.Uint16(m[headers-2:]) != d.gen || m.Flags()&unix.NLM_F_DUMP_INTR != 0 {
		return errTorn
	}
	return nil
}

// getNames returns the word for what a message gets.
func getNames(msg int) string {
	switch msg {
	case unix.NFT_MSG_GETTABLE:
		return "tables"
	case unix.NFT_MSG_GETCHAIN:
		return "chains"
	case unix.NFT_MSG_GETRULE:
		return "rules"
	case unix.NFT_MSG_GETSET:
		return "sets"
	}
	return "elements"
}

// ask sends a request and gives each message of the answer to take, headers included. After an error
// of take the rest of the answer is read and thrown away.
func (c *Conn) ask(msg int, flags uint16, family uint8, request []byte, take func(msg wire.Message) error) error {
	c.seq++
	b := appendMessageHeader(nil, nftType(msg), unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags, c.seq, family)
	b = append(b, request...)
	wire.CloseMessage(b, 0)
	if err := c.sock.Send(b); err != nil {
		return err
	}
	var failed error
	for {
		answer, err := c.sock.Receive()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for m := range wire.Messages(answer) {
			if m.Seq() != c.seq {
				continue // the answer to something earlier
			}
			switch typ := m.Type(); {
			case typ == unix.NLMSG_ERROR:
				r, ok := parseReply(m)
				if !ok {
					return fmt.Errorf("an error message of %d bytes", len(m))
				}
				return errors.Join(failed, r.err)
			case typ == unix.NLMSG_DONE:
				return errors.Join(failed, m.Err())
			case failed == nil:
				failed = take(m)
			}
		}
	}
}
