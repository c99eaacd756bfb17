// Package proxier is the engine: it takes Snapshots of the cluster and keeps the kernel in line.
//
//	watch.Hub -> Snapshot -> plan.Compile -> State -> plan.Diff -> transaction -> Kernel
//
// The deciding is in package plan; the Engine here only waits, acts and remembers. There is no full
// and no partial sync: the engine knows what the kernel holds, or it does not (at start, and after an
// error), and then it looks.
package proxier
