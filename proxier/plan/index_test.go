package plan

import (
	"testing"

	"github.com/nftproxy/nftproxy/nft"
)

// TestIndex takes each element once, and the first of those with the same key.
func TestIndex(t *testing.T) {
	var elements []nft.Element
	for i := range uint32(1000) {
		elements = append(elements, nft.Element{Key: nft.Value{}.Uint32(i % 900), Data: nft.Value{}.Uint32(i)})
	}
	x := newIndex(elements)
	for i := range uint32(1000) {
		key := nft.Value{}.Uint32(i)
		got := x.take(&key)
		switch {
		case i >= 900 && got != nil:
			t.Errorf("take(%d) = an element; want none", i)
		case i < 900 && (got == nil || got.Data != key):
			t.Errorf("take(%d) = %v; want its first element", i, got)
		}
		if x.take(&key) != nil {
			t.Errorf("take(%d) again = an element; want none", i)
		}
	}
	for i, taken := range x.taken {
		if !taken {
			t.Errorf("element %d is not taken", i)
		}
	}
	if (*index)(nil).take(&elements[0].Key) != nil || newIndex(nil).take(&elements[0].Key) != nil {
		t.Error("take() of no elements = an element; want none")
	}
}
