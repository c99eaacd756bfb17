// Package nft holds the part of the nftables language that nftproxy uses, as plain values.
//
// A [Table] is ours alone. Its chains and the definitions of its sets and maps are static but for
// the chains named after a number of endpoints; the elements are what changes. A Table and a
// transaction ([Tx]) have a text form in nft syntax, which is what logs, `nftproxy render` and the
// golden files show. Package nft/kernel speaks the same values to Linux and package nft/fake
// remembers them in memory.
//
// Start reading at table.go (objects), then field.go (what keys are made of), stmt.go (what rules
// say), element.go (what changes) and tx.go (how it changes).
package nft
