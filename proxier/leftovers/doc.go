// Package leftovers removes the rules that kube-proxy left on a node, and only those.
//
// kube-proxy leaves its rules when it ends, so that traffic goes on. Once rules of ours are in place
// they are in the way. They are removed over netlink, all in one batch: the tables of its nftables mode,
// and the chains of its other modes where iptables keeps its rules in nf_tables. What cannot be
// reached that way [Advice] tells of. The ipsets of its mode ipvs stay: nothing uses them any more.
//
// [decide] says what goes; [Remove] lists and sends. [RemoveServers] does the same for virtual servers.
package leftovers
