package model

import (
	"hash/maphash"
	"iter"
	"math/bits"
)

// A Map is an immutable map. A changed copy shares all that did not change with its origin, so that
// [Map.Edit] costs what is edited and [Changes] costs what differs, whatever the size: it is what
// keeps the cost of a change from following the number of Services. The zero value is empty.
//
// It is a hash array mapped trie: each node has up to 32 places, chosen by five bits of the key's
// hash.
type Map[K, V comparable] struct {
	root *mapNode[K, V]
	len  int
	// seed is the hash's. It is made by the first edit and inherited by all copies. Maps of another
	// seed can be compared, too, at the cost of a full walk.
	seed maphash.Seed
}

type mapNode[K, V comparable] struct {
	// owner is the edit that made the node and may change it in place.
	owner *byte
	// used has a bit for each place that is taken; places has those only, in order.
	used   uint32
	places []mapPlace[K, V]
}

// A mapPlace is a sub-node or a leaf. An edit copies the nodes on its way, so a place is small.
type mapPlace[K, V comparable] struct {
	node *mapNode[K, V]
	leaf *mapLeaf[K, V]
}

// A mapLeaf is a key and its value. It never changes.
type mapLeaf[K, V comparable] struct {
	hash  uint64
	key   K
	value V
	// next is another key of the same hash.
	next *mapLeaf[K, V]
}

const (
	mapBits  = 5
	mapLevel = 1<<mapBits - 1
)

// Len returns the number of keys.
func (m Map[K, V]) Len() int { return m.len }

// Same reports whether two maps are one and the same, not edited in between. Maps that are not may
// still hold the same.
func (m Map[K, V]) Same(o Map[K, V]) bool { return m.root == o.root && m.len == o.len }

// Get returns the value of a key and reports whether there is one.
func (m Map[K, V]) Get(key K) (V, bool) {
	var none V
	if m.root == nil {
		return none, false
	}
	hash := maphash.Comparable(m.seed, key)
	for n, shift := m.root, 0; ; shift += mapBits {
		p := n.at(hash, shift)
		if p == nil {
			return none, false
		}
		if p.node != nil {
			n = p.node
			continue
		}
		if p.leaf.hash != hash {
			return none, false
		}
		return p.leaf.find(key)
	}
}

// All yields every key with its value, in no particular order.
func (m Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if m.root != nil {
			m.root.all(yield)
		}
	}
}

// Edit returns an Edit that starts from m. The map m itself never changes.
func (m Map[K, V]) Edit() *Edit[K, V] {
	if m.root == nil {
		m.seed = maphash.MakeSeed()
		m.root = &mapNode[K, V]{}
	}
	return &Edit[K, V]{m: m, owner: new(byte)}
}

// An Edit collects changes of a Map.
type Edit[K, V comparable] struct {
	m     Map[K, V]
	owner *byte
}

// Map returns the map as edited so far. The Edit may go on.
func (e *Edit[K, V]) Map() Map[K, V] {
	e.owner = new(byte)
	return e.m
}

// Get returns the value of a key as edited so far.
func (e *Edit[K, V]) Get(key K) (V, bool) { return e.m.Get(key) }

// Set gives a key a value.
func (e *Edit[K, V]) Set(key K, value V) {
	root, added := e.m.root.set(e, maphash.Comparable(e.m.seed, key), 0, key, value)
	e.m.root = root
	if added {
		e.m.len++
	}
}

// Delete removes a key; removing one that is not there is no error.
func (e *Edit[K, V]) Delete(key K) {
	if _, ok := e.m.Get(key); !ok {
		return
	}
	e.m.root = e.m.root.remove(e, maphash.Comparable(e.m.seed, key), 0, key)
	e.m.len--
}

// at returns the place of a hash, or nil if it is not taken.
func (n *mapNode[K, V]) at(hash uint64, shift int) *mapPlace[K, V] {
	bit := uint32(1) << (hash >> shift & mapLevel)
	if n.used&bit == 0 {
		return nil
	}
	return &n.places[bits.OnesCount32(n.used&(bit-1))]
}

// editable returns n, or a copy of it, that the edit may change.
func (n *mapNode[K, V]) editable(e *Edit[K, V]) *mapNode[K, V] {
	if n.owner == e.owner {
		return n
	}
	c := &mapNode[K, V]{owner: e.owner, used: n.used, places: make([]mapPlace[K, V], len(n.places))}
	copy(c.places, n.places)
	return c
}

// set returns the node with the key set and reports whether the key is new.
func (n *mapNode[K, V]) set(e *Edit[K, V], hash uint64, shift int, key K, value V) (*mapNode[K, V], bool) {
	p := n.at(hash, shift)
	if p == nil {
		return n.insert(e, hash, shift, key, value), true
	}
	if p.node != nil {
		sub, added := p.node.set(e, hash, shift+mapBits, key, value)
		if sub != p.node {
			n = n.editable(e)
			n.at(hash, shift).node = sub
		}
		return n, added
	}
	if p.leaf.hash != hash {
		// Two keys in one place: both move one level down.
		sub := &mapNode[K, V]{owner: e.owner, used: 1 << (p.leaf.hash >> (shift + mapBits) & mapLevel), places: []mapPlace[K, V]{*p}}
		sub, _ = sub.set(e, hash, shift+mapBits, key, value)
		n = n.editable(e)
		*n.at(hash, shift) = mapPlace[K, V]{node: sub}
		return n, true
	}
	have, ok := p.leaf.find(key)
	if ok && have == value {
		return n, false
	}
	leaf := &mapLeaf[K, V]{hash: hash, key: key, value: value, next: p.leaf.without(key)}
	n = n.editable(e)
	n.at(hash, shift).leaf = leaf
	return n, !ok
}

// find returns the value of a key in a leaf, which may be nil, and those of the same hash.
func (l *mapLeaf[K, V]) find(key K) (V, bool) {
	for ; l != nil; l = l.next {
		if l.key == key {
			return l.value, true
		}
	}
	var none V
	return none, false
}

// without returns the leaf and those of the same hash without that of a key; nil if none is left.
func (l *mapLeaf[K, V]) without(key K) *mapLeaf[K, V] {
	switch {
	case l == nil:
		return nil
	case l.key == key:
		return l.next
	}
	return &mapLeaf[K, V]{hash: l.hash, key: l.key, value: l.value, next: l.next.without(key)}
}

// insert returns the node with a new place for the key.
func (n *mapNode[K, V]) insert(e *Edit[K, V], hash uint64, shift int, key K, value V) *mapNode[K, V] {
	bit := uint32(1) << (hash >> shift & mapLevel)
	i := bits.OnesCount32(n.used & (bit - 1))
	c := n
	if n.owner != e.owner {
		c = &mapNode[K, V]{owner: e.owner, used: n.used}
	}
	places := make([]mapPlace[K, V], 0, len(n.places)+1)
	places = append(places, n.places[:i]...)
	places = append(places, mapPlace[K, V]{leaf: &mapLeaf[K, V]{hash: hash, key: key, value: value}})
	c.places = append(places, n.places[i:]...)
	c.used |= bit
	return c
}

// remove returns the node without the key, which is known to be in it.
func (n *mapNode[K, V]) remove(e *Edit[K, V], hash uint64, shift int, key K) *mapNode[K, V] {
	n = n.editable(e)
	p := n.at(hash, shift)
	if p.node != nil {
		p.node = p.node.remove(e, hash, shift+mapBits, key)
		if len(p.node.places) > 0 {
			return n
		}
	} else if p.leaf = p.leaf.without(key); p.leaf != nil {
		return n
	}
	bit := uint32(1) << (hash >> shift & mapLevel)
	i := bits.OnesCount32(n.used & (bit - 1))
	places := make([]mapPlace[K, V], 0, len(n.places)-1)
	places = append(places, n.places[:i]...)
	n.places = append(places, n.places[i+1:]...)
	n.used &^= bit
	return n
}

func (n *mapNode[K, V]) all(yield func(K, V) bool) bool {
	for i := range n.places {
		p := &n.places[i]
		if p.node != nil {
			if !p.node.all(yield) {
				return false
			}
			continue
		}
		for l := p.leaf; l != nil; l = l.next {
			if !yield(l.key, l.value) {
				return false
			}
		}
	}
	return true
}

// A Change is a key whose value differs between two maps.
type Change[K, V comparable] struct {
	Key      K
	Old, New V
	// HasOld and HasNew report whether the key is in the old and in the new map.
	HasOld, HasNew bool
}

// Changes yields the keys whose values differ between two maps, in no particular order. It skips
// what the maps share.
func Changes[K, V comparable](before, after Map[K, V]) iter.Seq[Change[K, V]] {
	return func(yield func(Change[K, V]) bool) {
		if before.root == after.root {
			return
		}
		if before.seed == after.seed {
			changes(before.root, after.root, yield)
			return
		}
		// Unrelated maps, or one that was never edited.
		for key, old := range before.All() {
			value, ok := after.Get(key)
			if ok && value == old {
				continue
			}
			if !yield(Change[K, V]{Key: key, Old: old, New: value, HasOld: true, HasNew: ok}) {
				return
			}
		}
		for key, value := range after.All() {
			if _, ok := before.Get(key); ok {
				continue
			}
			if !yield(Change[K, V]{Key: key, New: value, HasNew: true}) {
				return
			}
		}
	}
}

// changes compares two nodes of the same place.
func changes[K, V comparable](a, b *mapNode[K, V], yield func(Change[K, V]) bool) bool {
	if a == b {
		return true
	}
	for rest := a.used | b.used; rest != 0; rest &= rest - 1 {
		slot := uint64(bits.TrailingZeros32(rest))
		p, q := a.at(slot, 0), b.at(slot, 0)
		if p != nil && q != nil && *p == *q {
			continue // they share what is in them
		}
		if p != nil && q != nil && p.node != nil && q.node != nil {
			if !changes(p.node, q.node, yield) {
				return false
			}
			continue
		}
		if !changesPlace(p, q, yield) {
			return false
		}
	}
	return true
}

// changesPlace compares two places of which at most one is a node.
func changesPlace[K, V comparable](p, q *mapPlace[K, V], yield func(Change[K, V]) bool) bool {
	for key, old := range p.all() {
		value, ok := q.find(key)
		if ok && value == old {
			continue
		}
		if !yield(Change[K, V]{Key: key, Old: old, New: value, HasOld: true, HasNew: ok}) {
			return false
		}
	}
	for key, value := range q.all() {
		if _, ok := p.find(key); ok {
			continue
		}
		if !yield(Change[K, V]{Key: key, New: value, HasNew: true}) {
			return false
		}
	}
	return true
}

// all yields what is in the place and below.
func (p *mapPlace[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if p == nil {
			return
		}
		if p.node != nil {
			p.node.all(yield)
			return
		}
		for l := p.leaf; l != nil; l = l.next {
			if !yield(l.key, l.value) {
				return
			}
		}
	}
}

// find looks for a key in the place and below. It walks: a place that is compared with something
// other than a node holds few keys.
func (p *mapPlace[K, V]) find(key K) (V, bool) {
	for k, value := range p.all() {
		if k == key {
			return value, true
		}
	}
	var none V
	return none, false
}
