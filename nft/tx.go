package nft

import "iter"

// Verb is what an Op does.
type Verb uint8

// The verbs.
const (
	Add Verb = iota
	Delete
)

// An Op is one step of a transaction. Exactly one of Table, Chain, Set and Element tells what it is
// about: Element if Set and Element are both there.
type Op struct {
	Verb   Verb
	Family Family
	// Name is the table's name.
	Name string

	// Table is added (with no chains, sets and elements in it, whatever the value holds; adding one
	// that exists is no error) or deleted with all that is in it (deleting one that does not exist
	// is an error).
	Table *Table
	// Chain is added with its rules, or, if it exists, its rules are replaced: the chain is added,
	// flushed and filled. The type, hook and priority of an existing base chain cannot be changed.
	// Deleting one deletes its rules first. A rule may refer to chains that are added later in the
	// same transaction only if they were announced before: the engine adds all new chains without
	// rules first.
	Chain *Chain
	// Set is added (adding an equal one that exists is no error) or deleted with its elements. With
	// Element it is the set or map that the element belongs to.
	Set *Set
	// Element is added to or deleted from Set. Adding an element whose key exists with another value
	// is an error (EEXIST), adding an equal one is not, deleting one that is not there is
	// (ENOENT).
	Element *Element
	// Cut says that what was done up to here can stand by itself: a long transaction may be cut
	// before this step. See [Cut].
	Cut bool
}

// A Tx is a transaction: all of its steps happen at once, or none. It may be iterated over more than
// once and yields the same steps each time. The Element of an Op is valid only until the next step.
//
// The order matters and is the caller's: objects before what refers to them, and elements that are
// deleted before elements that are added.
type Tx iter.Seq[Op]

// Empty reports whether tx has no steps.
func (tx Tx) Empty() bool {
	if tx == nil {
		return true
	}
	for range tx {
		return false
	}
	return true
}
