package kernel

import (
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

// element puts an element into the list of its set; lists of the other verb are sent off before.
func (b *Batch) element(op *nft.Op, step int) error {
	if b.open > 0 && b.lists[0].verb != op.Verb {
		b.flush()
	}
	if len(op.Element.Comment) > maxComment {
		return errComment
	}
	l := b.list(op, step)
	l.buf = appendElement(l.buf, op)
	l.elements++
	if l.elements >= maxListElements || len(l.buf)-l.start >= maxListBytes {
		b.send(l)
	}
	return nil
}

// list returns the open list for a step, which it makes if there is none.
func (b *Batch) list(op *nft.Op, step int) *list {
	for i := range b.lists[:b.open] {
		if l := &b.lists[i]; l.family == op.Family && l.set == op.Set.Name && l.table == op.Name {
			if l.elements == 0 {
				l.reset(op, step)
			}
			return l
		}
	}
	if b.open == len(b.lists) {
		b.lists = append(b.lists, list{})
	}
	l := &b.lists[b.open]
	b.open++
	l.reset(op, step)
	return l
}

// reset begins a list.
func (l *list) reset(op *nft.Op, step int) {
	*l = list{verb: op.Verb, family: op.Family, table: op.Name, set: op.Set.Name, buf: l.buf[:0], step: step}
	l.buf = wire.AppendString(l.buf, unix.NFTA_SET_ELEM_LIST_TABLE, l.table)
	l.buf = wire.AppendString(l.buf, unix.NFTA_SET_ELEM_LIST_SET, l.set)
	l.buf, l.start = wire.OpenNested(l.buf, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
}

// flush sends off all open lists.
func (b *Batch) flush() {
	for i := range b.lists[:b.open] {
		b.send(&b.lists[i])
	}
	b.open = 0
}

// send appends a list as a message, unless it is empty.
func (b *Batch) send(l *list) {
	if l.elements == 0 {
		return
	}
	typ, flags := nftType(unix.NFT_MSG_NEWSETELEM), uint16(unix.NLM_F_CREATE)
	if l.verb == nft.Delete {
		typ, flags = nftType(unix.NFT_MSG_DELSETELEM), 0
	}
	wire.CloseNested(l.buf, l.start)
	start := b.begin(typ, flags, protocol(l.family), l.step)
	b.buf = append(b.buf, l.buf...)
	b.end(start)
	l.elements = 0
}

// appendElement appends an element to a list. To delete one its key is enough.
func appendElement(b []byte, op *nft.Op) []byte {
	e, set := op.Element, op.Set
	b, elem := wire.OpenNested(b, unix.NFTA_LIST_ELEM)
	b = appendValue(b, unix.NFTA_SET_ELEM_KEY, op.Family, set.Key, &e.Key)
	if set.Interval {
		end := &e.End
		if end.Len() == 0 {
			end = &e.Key
		}
		b = appendValue(b, attrElemKeyEnd, op.Family, set.Key, end)
	}
	if op.Verb == nft.Add {
		switch {
		case set.IsVerdictMap():
			b = appendVerdict(b, e.Verdict)
		case set.IsMap():
			b = appendValue(b, unix.NFTA_SET_ELEM_DATA, op.Family, set.Data, &e.Data)
		}
		b = appendComment(b, unix.NFTA_SET_ELEM_USERDATA, e.Comment)
	}
	wire.CloseNested(b, elem)
	return b
}

// appendValue appends a key or a value. A single field goes without its padding.
func appendValue(b []byte, attr uint16, f nft.Family, fields []nft.Field, v *nft.Value) []byte {
	data := v.Bytes()
	if len(fields) == 1 {
		data = data[:min(len(data), typeOf(f, fields[0]).size)]
	}
	b = wire.AppendHeader(b, attr|unix.NLA_F_NESTED, wire.AttrHeaderSize+wire.Align(len(data)))
	return wire.AppendBytes(b, unix.NFTA_DATA_VALUE, data)
}

// appendVerdict appends a verdict as the value of an element. The kernel refuses one that is none.
func appendVerdict(b []byte, v nft.Verdict) []byte {
	code, ok := verdictCode(v.Kind)
	if !ok {
		return b
	}
	b, data := wire.OpenNested(b, unix.NFTA_SET_ELEM_DATA)
	b, verdict := wire.OpenNested(b, unix.NFTA_DATA_VERDICT)
	b = wire.AppendUint32(b, unix.NFTA_VERDICT_CODE, uint32(code))
	if v.Chain != "" {
		b = wire.AppendString(b, unix.NFTA_VERDICT_CHAIN, v.Chain)
	}
	wire.CloseNested(b, verdict)
	wire.CloseNested(b, data)
	return b
}
