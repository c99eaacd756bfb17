// Package conntrack deletes the UDP entries of the kernel's connection tracking that lead nowhere.
//
// A UDP "connection" is an entry that lives on as long as the client goes on sending: when the endpoint
// that it was translated to goes, the client's packets follow it into the void, for hours. TCP clients
// notice and connect anew, so entries of TCP are never touched, and neither are those of SCTP, which has
// associations.
//
// What is stale is decided from values alone, whatever led to it (table.go): an entry whose original
// destination is one of our front ends, and which is answered by anything but a serving endpoint of it.
// Traffic policies, topology and termination do not matter: an endpoint that serves may finish what it
// began. A front end that has no serving endpoint has only stale entries; of one that is no front end any
// more, those are stale that were translated. What was no front end of ours is never touched. A node port
// is a front end at the node's own addresses that serve node ports and nowhere else. Entries outside the
// default zone belong to others.
//
// Where IPVS is used, those are stale, too, that begin at a front end and were not translated: an answer that was
// under way when IPVS deleted an entry makes one.
//
// An endpoint that went may answer for a moment what it was asked before: its entries go a little later.
//
// After a restart the front ends of before are those that the kernel's ruleset still held when it was
// first read ([proxier.Sync.Found]): Services that were deleted while no daemon ran are cleaned, too.
//
// A [Reconciler] works beside the engine, never in its way, and takes the last state only. The rules are
// in place before it looks, so that no packet makes a stale entry after it. Package
// proxier/conntrack/kernel is the kernel's side.
package conntrack
