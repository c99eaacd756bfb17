// Package see tells, from outside of the program that is measured, what the kernel holds: whether an
// element is there, when a transaction mentions an address, how much memory and CPU is used. It asks the
// kernel only, in the same way for every program.
package see
