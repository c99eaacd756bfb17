package main

import (
	"fmt"
	"strconv"
	"strings"
)

// shown is up to which number of endpoints the chains are printed.
const shown = 3

// shorten leaves the chains for many endpoints out of a listing: they are all alike.
func shorten(listing string) string {
	var b strings.Builder
	skipping, skipped := false, 0
	for line := range strings.Lines(listing) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "chain "); ok && count(name) > shown {
			skipping = true
			skipped++
		}
		if !skipping {
			b.WriteString(line)
		}
		// What is skipped ends with the empty line after the chain.
		if line == "\n" || line == "}\n" {
			if skipping && line == "}\n" {
				b.WriteString(line)
			}
			skipping = false
		}
	}
	fmt.Fprintf(&b, "(not shown: %d chains such as lb-%d, which differ from lb-%d in the number alone)\n", skipped, shown+1, shown)
	return b.String()
}

// count returns the number of endpoints in the name of a chain, 0 if it has none.
func count(name string) int {
	name = strings.TrimSuffix(name, " {")
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil {
		return 0
	}
	return n
}
