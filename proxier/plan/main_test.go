package plan

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// checks is how many random walks each law is tried with, unless -rapid.checks says otherwise. They are long,
// and ten times as slow under the race detector.
const checks = "25"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		if err := flag.Set("rapid.checks", checks); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}
