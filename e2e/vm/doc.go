// Package vm runs a program in a virtual machine with the kernel of Debian, for tests that need what
// the kernel of this machine does not have: IPVS above all.
//
// The machine is QEMU without hardware acceleration, so it runs inside of other machines and containers,
// slowly: a loop about as fast as outside, the start of a program 40 times slower. It has the whole file
// system of this machine, so that a test binary finds all that it finds outside: itself, its working
// directory, the programs that it starts. What it writes stays in the machine's memory and is gone
// with it. Modules are loaded by the kernel's own request, as on a node.
//
// Start reading at machine.go (how it is started); guest.go is what runs inside. Command exec/ is for
// "go test -exec".
package vm
