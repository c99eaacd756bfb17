// Package nfttest holds tables that use everything that the language has, and the text that nft lists, for tests.
package nfttest

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/nft"
)

// Name is the name of the tables that Tables returns.
const Name = "everything"

// Tables returns a table of each family in which every statement, every form of a set and every
// place for a comment occurs.
func Tables() []nft.Table {
	return []nft.Table{table(nft.IPv4), table(nft.IPv6)}
}

// Addr returns the address number n of a small network of the family.
func Addr(f nft.Family, n byte) netip.Addr {
	if f == nft.IPv6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 14: n, 15: 1})
	}
	return netip.AddrFrom4([4]byte{10, 0, n, 1})
}

// FrontEnd returns the key of a front end for TCP.
func FrontEnd(f nft.Family, n byte, port uint16) nft.Value {
	return nft.Value{}.Addr(Addr(f, n)).Proto(6).Port(port)
}

// Endpoint returns the value that a dnat takes.
func Endpoint(f nft.Family, n byte, port uint16) nft.Value {
	return nft.Value{}.Addr(Addr(f, n)).Port(port)
}

// AffinityKey returns the key of a client and a front end: for IPv6 two hashes, since no nft that we
// support loads a dynamic map with longer keys.
func AffinityKey(f nft.Family) []nft.Field {
	if f == nft.IPv6 {
		return []nft.Field{{Kind: nft.Hash, N: 1}, {Kind: nft.Hash, N: 2}}
	}
	return append([]nft.Field{{Kind: nft.SAddr}}, nft.FrontEndKey()...)
}

// Sorted returns the text of tables with the lines of each list of elements sorted, so that listings
// compare whatever the order in which nft printed the elements.
func Sorted(text string) string {
	const begin, next = "\t\telements = { ", "\t\t\t     "
	var out, elements []string
	flush := func() {
		slices.Sort(elements)
		for i, e := range elements {
			end := ","
			if i == len(elements)-1 {
				end = " }"
			}
			out = append(out, next+e+end)
		}
		elements = nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, begin), elements != nil:
			rest := strings.TrimPrefix(strings.TrimPrefix(line, begin), next)
			last := strings.HasSuffix(rest, " }")
			rest = strings.TrimSuffix(strings.TrimSuffix(rest, " }"), ",")
			elements = append(elements, strings.Split(rest, ", ")...)
			if last {
				flush()
			}
		default:
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n") + "\n"
}

// affinityTimeout is the default of ClientIP session affinity.
const affinityTimeout = 3 * time.Hour
