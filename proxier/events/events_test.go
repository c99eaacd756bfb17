package events

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// problem returns the problem with a number.
func problem(n int) Event {
	return Event{Service: model.Name{Namespace: "default", Name: "web"}, Warning: true, Reason: ReasonConflict, Note: fmt.Sprint(n)}
}

// TestKnown reports each problem once, again when it came back, and not too many at once.
func TestKnown(t *testing.T) {
	var k Known
	now := time.Unix(1000, 0)
	step := func(what string, want int, problems ...Event) {
		t.Helper()
		if got := k.New(problems, now); len(got) != want {
			t.Errorf("%s: New() = %v; want %d", what, got, want)
		}
	}
	step("nothing", 0)
	step("two, one of them twice", 2, problem(1), problem(2), problem(1))
	step("the same", 0, problem(2), problem(1))
	step("one is gone", 0, problem(1))
	step("it is back", 1, problem(1), problem(2))
	var many []Event
	for i := range 100 {
		many = append(many, problem(i))
	}
	now = now.Add(time.Hour)
	step("many", burst, many...)
	step("the rest waits", 0, many...)
	now = now.Add(3 * refill)
	step("and goes out slowly", 3, many...)
	for range 100 {
		now = now.Add(refill)
		k.New(many, now)
	}
	step("until all are known", 0, many...)
}

func TestKnownLongNote(t *testing.T) {
	var k Known
	long := Event{Note: strings.Repeat("x", maxNote+1)}
	got := k.New([]Event{long}, time.Unix(1, 0))
	if len(got) != 1 || len(got[0].Note) != maxNote {
		t.Errorf("New(a long note) = %d of %d bytes; want one of %d", len(got), len(got[0].Note), maxNote)
	}
	if got := k.New([]Event{long}, time.Unix(2, 0)); len(got) != 0 {
		t.Errorf("New(the same) = %v; want nothing", got)
	}
}

// TestReporter looks again and again until it is told to end.
func TestReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := NewBoard()
		recorded := make(chan Event, 10)
		r := NewReporter(func(e Event) { recorded <- e }, board.All)
		go func() {
			if err := r.Run(t.Context()); err != nil {
				t.Errorf("Run() = %v; want nil", err)
			}
		}()
		board.Put("a", []Event{problem(1)})
		board.Put("b", []Event{problem(2)})
		if a, b := <-recorded, <-recorded; a != problem(1) || b != problem(2) {
			t.Errorf("recorded %v, %v; want problems 1 and 2", a, b)
		}
		board.Put("a", nil)
		time.Sleep(10 * look)
		board.Put("a", []Event{problem(1)})
		if e := <-recorded; e != problem(1) {
			t.Errorf("recorded %v; want problem 1 again", e)
		}
	})
}
