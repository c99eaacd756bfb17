// Package kube runs the real parts of a Kubernetes control plane and kube-proxy, for tests.
//
// The parts are built from Go modules: tools/go.mod names them and their versions. The first build takes
// some ten minutes; the binaries are kept in the user's cache directory. etcd, kube-apiserver and
// kube-controller-manager run in a network namespace of their own that has nothing but loopback; a
// [Gate] lets a node reach the API server at its own 127.0.0.1:6443, until the test shuts it.
//
// Start reading at cluster.go (the control plane) and rig_test.go (a node with nftproxy that uses it).
package kube
