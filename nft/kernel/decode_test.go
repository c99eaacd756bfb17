package kernel

import (
	"testing"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

// FuzzDecode gives any bytes to all that reads what the kernel says. Nothing may panic, and a rule that
// is read as ours must be one that we can write.
func FuzzDecode(f *testing.F) {
	b, err := Encode(nfttest.Make(nfttest.Tables()))
	if err != nil {
		f.Fatal(err)
	}
	for i := range b.marks {
		f.Add(b.message(i)[headers:])
	}
	f.Add(errorMessage(1, unix.ENOENT))
	f.Fuzz(func(t *testing.T, b []byte) {
		for m := range wire.Messages(b) {
			parseReply(m)
			elementAt(append(make([]byte, 0, headers), m...), 7)
		}
		parseReply(b)
		for _, family := range nft.Families() {
			decodeTable(b)
			decodeChain(b)
			s := decodeSet(family, b)
			_ = s.IsVerdictMap()
			dec := elementDecoder{family: family}
			dec.decode(nil, b)
			_, _, r := decodeRule(family, b)
			for _, stmt := range r.Stmts {
				if _, unknown := stmt.(nft.Unknown); unknown {
					continue
				}
				if _, err := lower(family, r.Stmts); err != nil {
					t.Errorf("lower(%v) = %v, of a rule that was read; want nil", r.Stmts, err)
				}
			}
		}
	})
}
