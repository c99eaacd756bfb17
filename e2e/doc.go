// Package e2e tests nftproxy as users run it: the real binary, on a node that is a network
// namespace, with real packets from and to other namespaces.
//
// Start reading at rig_test.go (a node with a daemon) and flow_test.go (what must become of a packet).
// The tests need root and the programs nft and conntrack.
package e2e
