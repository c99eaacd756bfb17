// Package kernel speaks the values of package nft to the nf_tables of Linux, over netlink.
//
// A [Conn] writes a transaction as one batch in one message and reads tables back. Between the two
// stand pure functions: encode.go turns steps into messages, lower.go statements into expressions,
// set.go definitions of sets into attributes; decode.go and lift.go go the other way. The way back
// recognises nothing but what the way there makes: a reading counts only if encoding it again gives
// what the kernel said. Everything else becomes [nft.Unknown], which equals nothing of ours.
//
// Start reading at conn.go.
package kernel
