package kernel

import (
	"errors"
	"iter"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

const (
	// keyedCount is the number of elements from which on a set is asked for by key. For each part of
	// a dump, of 32 KiB, the kernel walks the set from its beginning: 100,000 elements of endpoints
	// take 0.28 s and 500,000 take 7.4 s. By key they take 0.18 s and 0.87 s.
	keyedCount = 50_000
	// keysAsked is how many keys one message asks for. The answer to each is a message of its own,
	// of which all must have room in the receive buffer.
	keysAsked = 300
	// attrSetCount is NFTA_SET_COUNT, since Linux 6.16: the number of elements.
	attrSetCount = 20
)

// Keys yields the keys that a set has if all is as it should be, given a table with the elements of the
// sets before it; it is nil where they are not known.
type Keys func(t *nft.Table, s *nft.Set) iter.Seq[nft.Value]

// byKey reads the elements of a set by keys, and reports whether they are all that it has: as many as
// the kernel counts, each once.
func (d *dump) byKey(t *nft.Table, s *nft.Set) ([]nft.Element, bool, error) {
	count := int(d.counts[s.Name])
	if count < keyedCount || d.conn.keys == nil || s.Interval {
		return nil, false, nil
	}
	keys := d.conn.keys(t, s)
	if keys == nil {
		return nil, false, nil
	}
	r := keyReader{
		dump: d, count: count, elements: make([]nft.Element, 0, count),
		decoder: elementDecoder{family: t.Family, set: s},
	}
	for key := range keys {
		if r.asked+r.sent >= count {
			return nil, false, nil // more than there are
		}
		r.add(&key)
		if r.asked < keysAsked {
			continue
		}
		if err := r.ask(); err != nil {
			return nil, false, tornOnly(err)
		}
	}
	if err := r.ask(); err != nil {
		return nil, false, tornOnly(err)
	}
	return r.elements, len(r.elements) == count && !repeats(r.elements), nil
}

// tornOnly returns the error if it is that the ruleset changed. With any other, such as that a key is
// not there, a dump tells more.
func tornOnly(err error) error {
	if errors.Is(err, errTorn) {
		return err
	}
	return nil
}

// A keyReader reads elements of a set by key.
type keyReader struct {
	dump     *dump
	decoder  elementDecoder
	count    int
	elements []nft.Element

	// request asks for the elements of asked keys; its list begins at list. sent are those before.
	request     []byte
	list        int
	asked, sent int
}

// add adds a key to the request.
func (r *keyReader) add(key *nft.Value) {
	d := &r.decoder
	if r.asked == 0 {
		r.request = wire.AppendString(r.request[:0], unix.NFTA_SET_ELEM_LIST_TABLE, r.dump.name)
		r.request = wire.AppendString(r.request, unix.NFTA_SET_ELEM_LIST_SET, d.set.Name)
		r.request, r.list = wire.OpenNested(r.request, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	}
	b, elem := wire.OpenNested(r.request, unix.NFTA_LIST_ELEM)
	b = appendValue(b, unix.NFTA_SET_ELEM_KEY, d.family, d.set.Key, key)
	wire.CloseNested(b, elem)
	r.request = b
	r.asked++
}

// ask sends the request, if there is anything in it, and takes the answers.
func (r *keyReader) ask() error {
	if r.asked == 0 {
		return nil
	}
	wire.CloseNested(r.request, r.list)
	r.sent, r.asked = r.sent+r.asked, 0
	return r.dump.conn.ask(unix.NFT_MSG_GETSETELEM, 0, protocol(r.decoder.family), r.request, func(m wire.Message) error {
		if m.Type() != nftType(unix.NFT_MSG_NEWSETELEM) {
			return nil
		}
		if err := r.dump.check(m); err != nil {
			return err
		}
		r.elements = r.decoder.decode(r.elements, m[headers:])
		return nil
	})
}
