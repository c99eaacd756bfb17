package kernel

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

// A scriptedSocket answers what it was told to.
type scriptedSocket struct {
	// answer returns the datagrams, or the errors, that follow a request.
	answer func(request []byte) []answer
	queue  []answer
}

// An answer is a datagram or an error.
type answer struct {
	data []byte
	err  error
}

func (s *scriptedSocket) Send(b []byte) error {
	s.queue = append(s.queue, s.answer(b)...)
	return nil
}

func (s *scriptedSocket) Receive() ([]byte, error) {
	if len(s.queue) == 0 {
		return nil, unix.EAGAIN
	}
	a := s.queue[0]
	s.queue = s.queue[1:]
	return a.data, a.err
}

func (s *scriptedSocket) Close() error { return nil }

// errorMessage returns an NLMSG_ERROR for a sequence number.
func errorMessage(seq uint32, errno unix.Errno) []byte {
	b := make([]byte, 2*unix.SizeofNlMsghdr+4)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_ERROR)
	binary.NativeEndian.PutUint32(b[8:], seq)
	binary.NativeEndian.PutUint32(b[16:], -uint32(errno))
	return b
}

// lastSeq returns the sequence number of the last message but one, the one that asks for an ack.
func lastSeq(batch []byte) (seq uint32) {
	for m := range wire.Messages(batch) {
		seq = m.Seq()
	}
	return seq - 1
}

func TestCommitJudgesAnswers(t *testing.T) {
	const known, unknown, bad = "nil", "unknown", "refused"
	tests := []struct {
		name   string
		answer func(ack uint32) []answer
		want   string
	}{
		{"OK ack", func(ack uint32) []answer { return []answer{{data: errorMessage(ack, 0)}} }, known},
		{"bad no answer", func(uint32) []answer { return nil }, unknown},
		{"bad ack of an earlier batch", func(ack uint32) []answer { return []answer{{data: errorMessage(ack-100, 0)}} }, unknown},
		{"bad ack of a later number", func(ack uint32) []answer { return []answer{{data: errorMessage(ack+100, 0)}} }, unknown},
		{"bad ack of another message", func(ack uint32) []answer { return []answer{{data: errorMessage(ack-1, 0)}} }, unknown},
		{"OK ack after an old error", func(ack uint32) []answer {
			return []answer{{data: errorMessage(ack-100, unix.ENOENT)}, {data: errorMessage(ack, 0)}}
		}, known},
		{"bad error, then ack", func(ack uint32) []answer {
			return []answer{{data: errorMessage(ack-1, unix.ENOENT)}, {data: errorMessage(ack, 0)}}
		}, bad},
		{"bad error and ack in one", func(ack uint32) []answer {
			return []answer{{data: append(errorMessage(ack-1, unix.ENOENT), errorMessage(ack, 0)...)}}
		}, bad},
		{"bad answers lost", func(uint32) []answer { return []answer{{err: unix.ENOBUFS}} }, unknown},
		{"bad answers lost, ack there", func(ack uint32) []answer {
			return []answer{{err: unix.ENOBUFS}, {data: errorMessage(ack, 0)}}
		}, unknown},
		{"bad answers lost, an error there", func(ack uint32) []answer {
			return []answer{{data: errorMessage(ack-1, unix.ENOENT)}, {err: unix.ENOBUFS}}
		}, bad},
		{"bad cut off", func(ack uint32) []answer { return []answer{{data: errorMessage(ack, 0)[:20]}} }, unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newConn(&scriptedSocket{answer: func(b []byte) []answer { return tt.answer(lastSeq(b)) }})
			c.seq = 1_000
			err := c.Commit(nfttest.Make([]nft.Table{{Name: "t", Chains: []nft.Chain{{Name: "c"}}}}))
			var refused *nft.RefusedError
			got := known
			switch {
			case errors.As(err, &refused):
				got = bad
			case errors.Is(err, errUnknown):
				got = unknown
			case err != nil:
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("Commit() = %v (%s); want %s", err, got, tt.want)
			}
		})
	}
}

// A dump is torn if the generation in its messages changes, which nothing else tells.
func TestLoadNoticesTornDumps(t *testing.T) {
	tests := []struct {
		name string
		torn int // how many dumps are torn
		ok   bool
	}{
		{"OK no dump torn", 0, true},
		{"OK torn, then not", 3, true},
		{"bad always torn", 1 << 30, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dumps := 0
			c := newConn(&scriptedSocket{answer: func(b []byte) []answer {
				seq := binary.NativeEndian.Uint32(b[8:])
				if binary.NativeEndian.Uint16(b[4:]) == nftType(unix.NFT_MSG_GETGEN) {
					return []answer{{data: newGen(seq, 7)}, {data: errorMessage(seq, 0)}}
				}
				dumps++
				gen := uint16(7)
				if dumps <= tt.torn {
					gen = 8
				}
				return []answer{{data: newTable(seq, 7)}, {data: newTable(seq, gen)}, {data: done(seq)}}
			}})
			_, err := c.Load("t")
			if (err == nil) != tt.ok || !tt.ok && !errors.Is(err, errTorn) {
				t.Errorf("Load() with %d torn dumps = %v; want ok %t", tt.torn, err, tt.ok)
			}
			if tt.ok && dumps <= tt.torn {
				t.Errorf("Load() made %d dumps, of which %d were torn; want one that was not", dumps, tt.torn)
			}
		})
	}
}

// message returns a message with a length.
func message(typ uint16, seq uint32, gen uint16, attributes []byte) []byte {
	b := appendMessageHeader(nil, typ, unix.NLM_F_MULTI, seq, unix.NFPROTO_IPV4)
	binary.BigEndian.PutUint16(b[headers-2:], gen)
	b = append(b, attributes...)
	wire.CloseMessage(b, 0)
	return b
}

// newGen returns an NFT_MSG_NEWGEN.
func newGen(seq, gen uint32) []byte {
	return message(nftType(unix.NFT_MSG_NEWGEN), seq, uint16(gen), wire.AppendUint32(nil, unix.NFTA_GEN_ID, gen))
}

// newTable returns an NFT_MSG_NEWTABLE of a table that is not the one that is looked for.
func newTable(seq uint32, gen uint16) []byte {
	return message(nftType(unix.NFT_MSG_NEWTABLE), seq, gen, wire.AppendString(nil, unix.NFTA_TABLE_NAME, "other"))
}

// done returns the message that ends a dump.
func done(seq uint32) []byte { return message(unix.NLMSG_DONE, seq, 0, nil) }
