package fake_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/fake"
	"github.com/nftproxy/nftproxy/nft/fake/suite"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// TestKernel runs what Linux must pass as well.
func TestKernel(t *testing.T) {
	suite.Run(t, func(*testing.T) suite.Kernel { return new(fake.Kernel) })
}

// TestKernelFaults makes tables on a kernel that fails each step once, in turn: nothing may be left
// of a transaction that was refused.
func TestKernelFaults(t *testing.T) {
	tables := nfttest.Tables()
	n := 0
	for range nfttest.Make(tables) {
		n++
	}
	for i := range n {
		step := 0
		k := &fake.Kernel{Fail: func(nft.Op) error {
			step++
			if step == i+1 {
				return unix.EINTR
			}
			return nil
		}}
		if err := k.Commit(nfttest.Make(tables)); !errors.Is(err, unix.EINTR) {
			t.Fatalf("Commit that fails at step %d = %v; want EINTR", i, err)
		}
		if got, _ := k.Load(nfttest.Name); len(got) != 0 {
			t.Fatalf("after a failure at step %d there are %d tables; want none", i, len(got))
		}
		if err := k.Commit(nfttest.Make(tables)); err != nil {
			t.Fatalf("Commit after a failure at step %d = %v; want nil", i, err)
		}
		step, i = 0, i%17 // and the way back
		if err := k.Commit(nfttest.Remove(tables)); !errors.Is(err, unix.EINTR) {
			t.Fatalf("Commit that fails at step %d = %v; want EINTR", i, err)
		}
		if got, _ := k.Load(nfttest.Name); suite.Diff(tables, got) != "" {
			t.Fatalf("after a failure at step %d of the removal (-want +got):\n%s", i, suite.Diff(tables, got))
		}
		if err := k.Commit(nfttest.Remove(tables)); err != nil {
			t.Fatalf("Remove after a failure at step %d = %v; want nil", i, err)
		}
		if got, want := k.Stats().Refusals, 2; got != want {
			t.Fatalf("Stats().Refusals = %d; want %d", got, want)
		}
	}
}

// TestKernelChance refuses and loses transactions at random.
func TestKernelChance(t *testing.T) {
	k := &fake.Kernel{Refuse: 0.3, Lose: 0.3, Rand: rand.New(rand.NewPCG(1, 2))}
	tables := nfttest.Tables()
	var refused, lost int
	for range 100 {
		var r *nft.RefusedError
		switch err := k.Commit(nfttest.Make(tables)); {
		case errors.As(err, &r):
			refused++
		case errors.Is(err, fake.ErrLost):
			lost++
			if got, _ := k.Load(nfttest.Name); suite.Diff(tables, got) != "" {
				t.Errorf("a lost transaction left (-want +got):\n%s", suite.Diff(tables, got))
			}
		case err != nil:
			t.Errorf("Commit = %v; want a refusal or a loss", err)
		}
	}
	if refused == 0 || lost == 0 || refused+lost == 100 {
		t.Errorf("of 100 commits %d were refused and %d lost; want some of each", refused, lost)
	}
}

// BenchmarkKernelReplace replaces one of 100,000 elements: the cost must not depend on how many there are.
func BenchmarkKernelReplace(b *testing.B) {
	tables := nfttest.Tables()[:1]
	set := &tables[0].Sets[2]
	tables[0].Elements["endpoints"] = nil
	for i := range 100000 {
		tables[0].Elements["endpoints"] = append(tables[0].Elements["endpoints"], nft.Element{
			Key: nfttest.FrontEnd(nft.IPv4, 1, 80).Uint32(uint32(i)), Data: nfttest.Endpoint(nft.IPv4, 101, 8080),
		})
	}
	k := new(fake.Kernel)
	if err := k.Commit(nfttest.Make(tables)); err != nil {
		b.Fatal(err)
	}
	e := tables[0].Elements["endpoints"][0]
	for b.Loop() {
		err := k.Commit(func(yield func(nft.Op) bool) {
			op := nft.Op{Verb: nft.Delete, Name: nfttest.Name, Set: set, Element: &e}
			if yield(op) {
				op.Verb = nft.Add
				yield(op)
			}
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
