// Package plan decides what the kernel should hold: it compiles a Snapshot into a State and compares
// States. It is pure: no clock, no logger, no context, no netlink.
//
//	model.Snapshot -> Compile -> State -> Diff -> Plan (an nft transaction)
//
// The ruleset has a fixed frame (frame.go): sets, maps and chains, none of which depends on a
// Service. A Service port becomes claims (claim.go): one for each front end, each of which stands for
// a handful of elements. Only a chain per number of endpoints (balance.go) is made as needed. The
// laws that hold, whatever the input, are tested in laws_test.go:
//
//	converge       what Diff(have, want) makes of have is want
//	idle           Diff(want, want) is empty
//	any order      after any walk of snapshots the kernel holds Compile(last), but for the order of endpoints
//	deterministic  Compile is equal for permuted input
//	closed         nft.Check holds, for the tables and at each step of a transaction
//	flat           the cost of a change follows what changed
//
// Start reading at state.go.
package plan
