package scenario

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFlowRoundTrip(t *testing.T) {
	for _, line := range []string{
		"pod 10.0.0.2 -> 172.30.0.41:80/tcp => 10.1.1.1:80 10.1.1.2:80 masq",
		"node 2001:db8::1 -> [fd00::1]:53/udp => [fd00::2]:5353",
		"external 203.0.113.2 -> 1.2.3.4:80/tcp => drop",
		"external 203.0.113.2 -> 1.2.3.4:80/sctp => reject",
		"node 127.0.0.1 -> 127.0.0.1:30080/tcp => none",
	} {
		f, err := ParseFlow(line)
		if err != nil {
			t.Errorf("ParseFlow(%q) = %v", line, err)
			continue
		}
		if diff := cmp.Diff(line, f.String()); diff != "" {
			t.Errorf("ParseFlow(%q).String() (-want +got):\n%s", line, diff)
		}
	}
}

func TestParseFlowBad(t *testing.T) {
	for _, line := range []string{
		"pod 10.0.0.2 172.30.0.41:80/tcp => drop",
		"cloud 10.0.0.2 -> 172.30.0.41:80/tcp => drop",
		"pod 10.0.0 -> 172.30.0.41:80/tcp => drop",
		"pod 10.0.0.2 -> 172.30.0.41/tcp => drop",
		"pod 10.0.0.2 -> 172.30.0.41:80/icmp => drop",
		"pod 10.0.0.2 -> 172.30.0.41:80/tcp => dorp",
	} {
		if f, err := ParseFlow(line); err == nil {
			t.Errorf("ParseFlow(%q) = %v; want an error", line, f)
		}
	}
}

func TestRead(t *testing.T) {
	all, err := All("../testdata/scenarios")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if len(s.Steps) == 0 {
			t.Errorf("%s: no steps", s.Name)
		}
		for _, step := range s.Steps {
			if len(step.Flows) == 0 {
				t.Errorf("%s: no flows%s", s.Name, step.Suffix)
			}
		}
	}
}

func TestCases(t *testing.T) {
	cases, err := Cases("../testdata/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(cases), 107; got != want {
		t.Errorf("len(Cases()) = %d; want %d", got, want)
	}
}
