package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

const (
	// headers is the size of the headers before the attributes: nlmsghdr and nfgenmsg.
	headers = unix.SizeofNlMsghdr + 4

	// A list of elements is cut before it reaches one of these: its length is an attribute's, of 16
	// bits, and what is beyond would be lost without an error.
	maxListBytes    = 60_000
	maxListElements = 500
)

// A Batch is a transaction as the kernel takes it: the messages, one after the other.
type Batch struct {
	buf []byte
	// first is the sequence number of the first message, BATCH_BEGIN; the others count up.
	first uint32
	// marks tells where each message begins and which step it is from.
	marks []mark
	// lists are the element messages that are still being filled, the first open of them in use.
	lists []list
	open  int
	sets  uint32 // how many sets were added: each needs a number of its own
}

// A mark says where a message begins.
type mark struct {
	offset int
	// step is the number of the step that the message is from; of one with elements, which may be
	// from many steps, that of the first.
	step int
}

// A list is an element message that is being filled.
type list struct {
	verb     nft.Verb
	family   nft.Family
	table    string
	set      string
	buf      []byte // the attributes
	elements int    // how many
	start    int    // where NFTA_SET_ELEM_LIST_ELEMENTS begins in buf
	step     int
}

// Encode returns the messages of a transaction.
func Encode(tx nft.Tx) (*Batch, error) {
	b := new(Batch)
	if err := b.encode(tx, 1); err != nil {
		return nil, err
	}
	return b, nil
}

// Stats returns how much there is to send.
func (b *Batch) Stats() Stats { return Stats{Bytes: len(b.buf), Messages: len(b.marks)} }

// empty reports whether there is nothing to send but the two messages that begin and end a batch.
func (b *Batch) empty() bool { return len(b.marks) <= 2 }

// keptBuffer is the largest buffer that is used again. A change needs a few hundred bytes, the first
// load of a large cluster tens of megabytes that are not needed a second time.
const keptBuffer = 1 << 20

// shrink gives up buffers that were needed once.
func (b *Batch) shrink() {
	if cap(b.buf) > keptBuffer {
		*b = Batch{}
	}
}

// encode fills b, whose buffers it uses again, with the messages of a transaction. They are numbered
// from first on.
func (b *Batch) encode(tx nft.Tx, first uint32) error {
	b.buf, b.marks, b.open, b.first, b.sets = b.buf[:0], b.marks[:0], 0, first, 0
	b.control(unix.NFNL_MSG_BATCH_BEGIN)
	step := -1
	for op := range tx {
		step++
		if op.Element != nil {
			if err := b.element(&op, step); err != nil {
				return fmt.Errorf("encode %s: %w", op, err)
			}
			continue
		}
		b.flush()
		if err := b.object(&op, step); err != nil {
			return fmt.Errorf("encode %s: %w", op, err)
		}
	}
	b.flush()
	// The last message that does something asks for an ack. BATCH_END cannot: kernels before 6.10
	// ignore its flags.
	last := b.marks[len(b.marks)-1].offset
	wire.Message(b.buf[last:]).Acknowledge()
	b.control(unix.NFNL_MSG_BATCH_END)
	return nil
}

// control appends a message that begins or ends the batch.
func (b *Batch) control(typ uint16) {
	start := b.begin(typ, 0, unix.AF_UNSPEC, -1)
	binary.BigEndian.PutUint16(b.buf[start+headers-2:], unix.NFNL_SUBSYS_NFTABLES)
	b.end(start)
}

// begin appends the headers of a message and returns where it begins, for end.
func (b *Batch) begin(typ, flags uint16, family uint8, step int) int {
	start := len(b.buf)
	seq := b.first + uint32(len(b.marks))
	b.marks = append(b.marks, mark{offset: start, step: step})
	b.buf = appendMessageHeader(b.buf, typ, unix.NLM_F_REQUEST|flags, seq, family)
	return start
}

// appendMessageHeader appends nlmsghdr and nfgenmsg with the length still zero.
func appendMessageHeader(b []byte, typ, flags uint16, seq uint32, family uint8) []byte {
	return append(wire.OpenMessage(b, typ, flags, seq), family, unix.NFNETLINK_V0, 0, 0)
}

// end writes the length of the message that begins at start.
func (b *Batch) end(start int) { wire.CloseMessage(b.buf, start) }

// protocol returns the number that the kernel has for a family.
func protocol(f nft.Family) uint8 {
	if f == nft.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// object appends a step that is about something else than an element.
func (b *Batch) object(op *nft.Op, step int) error {
	switch {
	case op.Table != nil && len(op.Table.Comment) > maxComment, op.Chain != nil && len(op.Chain.Comment) > maxComment:
		return errComment
	case op.Table != nil:
		b.table(op, step)
		return nil
	case op.Chain != nil:
		return b.chain(op, step)
	case op.Set != nil:
		return b.set(op, step)
	}
	return fmt.Errorf("the step is about nothing")
}

// table appends a step about a table.
func (b *Batch) table(op *nft.Op, step int) {
	if op.Verb == nft.Delete {
		start := b.begin(nftType(unix.NFT_MSG_DELTABLE), 0, protocol(op.Family), step)
		b.buf = wire.AppendString(b.buf, unix.NFTA_TABLE_NAME, op.Name)
		b.end(start)
		return
	}
	start := b.begin(nftType(unix.NFT_MSG_NEWTABLE), unix.NLM_F_CREATE, protocol(op.Family), step)
	b.buf = wire.AppendString(b.buf, unix.NFTA_TABLE_NAME, op.Name)
	b.buf = wire.AppendUint32(b.buf, unix.NFTA_TABLE_FLAGS, 0)
	b.buf = appendComment(b.buf, attrTableUserdata, op.Table.Comment)
	b.end(start)
}

// chain appends a step about a chain: to add it means to make it if it is not there, to empty it and to
// fill it.
func (b *Batch) chain(op *nft.Op, step int) error {
	if op.Verb == nft.Add {
		b.newChain(op, step)
	}
	start := b.begin(nftType(unix.NFT_MSG_DELRULE), 0, protocol(op.Family), step)
	b.buf = wire.AppendString(b.buf, unix.NFTA_RULE_TABLE, op.Name)
	b.buf = wire.AppendString(b.buf, unix.NFTA_RULE_CHAIN, op.Chain.Name)
	b.end(start)
	if op.Verb == nft.Delete {
		start := b.begin(nftType(unix.NFT_MSG_DELCHAIN), 0, protocol(op.Family), step)
		b.buf = wire.AppendString(b.buf, unix.NFTA_CHAIN_TABLE, op.Name)
		b.buf = wire.AppendString(b.buf, unix.NFTA_CHAIN_NAME, op.Chain.Name)
		b.end(start)
		return nil
	}
	for i := range op.Chain.Rules {
		if err := b.rule(op, &op.Chain.Rules[i], step); err != nil {
			return fmt.Errorf("rule %d: %w", i, err)
		}
	}
	return nil
}

// newChain appends the message that makes a chain.
func (b *Batch) newChain(op *nft.Op, step int) {
	start := b.begin(nftType(unix.NFT_MSG_NEWCHAIN), unix.NLM_F_CREATE, protocol(op.Family), step)
	b.buf = wire.AppendString(b.buf, unix.NFTA_CHAIN_TABLE, op.Name)
	b.buf = wire.AppendString(b.buf, unix.NFTA_CHAIN_NAME, op.Chain.Name)
	if base := op.Chain.Base; base != nil {
		var hook int
		b.buf, hook = wire.OpenNested(b.buf, unix.NFTA_CHAIN_HOOK)
		b.buf = wire.AppendUint32(b.buf, unix.NFTA_HOOK_HOOKNUM, uint32(base.Hook))
		b.buf = wire.AppendUint32(b.buf, unix.NFTA_HOOK_PRIORITY, uint32(base.Priority))
		wire.CloseNested(b.buf, hook)
		b.buf = wire.AppendUint32(b.buf, unix.NFTA_CHAIN_POLICY, verdictAccept)
		b.buf = wire.AppendString(b.buf, unix.NFTA_CHAIN_TYPE, string(base.Type))
	}
	b.buf = appendComment(b.buf, attrChainUserdata, op.Chain.Comment)
	b.end(start)
}

// rule appends the message that appends a rule to a chain.
func (b *Batch) rule(op *nft.Op, r *nft.Rule, step int) error {
	if len(r.Comment) > maxComment {
		return errComment
	}
	exprs, err := lower(op.Family, r.Stmts)
	if err != nil {
		return err
	}
	start := b.begin(nftType(unix.NFT_MSG_NEWRULE), unix.NLM_F_CREATE|unix.NLM_F_APPEND, protocol(op.Family), step)
	b.buf = wire.AppendString(b.buf, unix.NFTA_RULE_TABLE, op.Name)
	b.buf = wire.AppendString(b.buf, unix.NFTA_RULE_CHAIN, op.Chain.Name)
	var list int
	b.buf, list = wire.OpenNested(b.buf, unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range exprs {
		data, err := marshal(protocol(op.Family), e)
		if err != nil {
			return fmt.Errorf("marshal %T: %w", e, err)
		}
		b.buf = wire.AppendBytes(b.buf, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, data)
	}
	wire.CloseNested(b.buf, list)
	b.buf = appendComment(b.buf, unix.NFTA_RULE_USERDATA, r.Comment)
	b.end(start)
	return nil
}

// marshal returns name and data of an expression as attributes.
func marshal(family uint8, e expr.Any) ([]byte, error) {
	data, err := expr.Marshal(family, e)
	if err != nil {
		return nil, err
	}
	// The library leaves out the checksum flags where the header has no checksum of its own: writing
	// an IPv6 address would leave the checksum behind it wrong.
	if w, ok := e.(*expr.Payload); ok && w.CsumType == expr.CsumTypeNone && w.CsumFlags != 0 {
		name := wire.AppendString(nil, unix.NFTA_EXPR_NAME, "payload")
		data = wire.AppendUint32(data, unix.NFTA_PAYLOAD_CSUM_FLAGS, w.CsumFlags)
		wire.CloseNested(data, len(name))
	}
	return data, nil
}

// set appends a step about a set or map.
func (b *Batch) set(op *nft.Op, step int) error {
	if op.Verb == nft.Delete {
		start := b.begin(nftType(unix.NFT_MSG_DELSET), 0, protocol(op.Family), step)
		b.buf = wire.AppendString(b.buf, unix.NFTA_SET_TABLE, op.Name)
		b.buf = wire.AppendString(b.buf, unix.NFTA_SET_NAME, op.Set.Name)
		b.end(start)
		return nil
	}
	b.sets++
	start := b.begin(nftType(unix.NFT_MSG_NEWSET), unix.NLM_F_CREATE, protocol(op.Family), step)
	b.buf = wire.AppendString(b.buf, unix.NFTA_SET_TABLE, op.Name)
	b.buf = wire.AppendString(b.buf, unix.NFTA_SET_NAME, op.Set.Name)
	b.buf = wire.AppendUint32(b.buf, unix.NFTA_SET_ID, b.sets)
	var err error
	b.buf, err = appendSet(b.buf, op.Family, op.Set)
	b.end(start)
	return err
}
