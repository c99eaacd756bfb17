package main

import (
	"math"
	"slices"
	"time"
)

// A Latency tells how long changes took, each from the event until the kernel's notice of the commit.
type Latency struct {
	// N is how many there were, 0 if none was made.
	N             int
	P50, P99, Max time.Duration
	// CPU is the time that the program used for each.
	CPU time.Duration
	// All is the time from the first event to the last notice; Transactions is how many the kernel did.
	All          time.Duration
	Transactions int64
}

// latency returns the latency of changes. The program used cpu for all.
func latency(took []time.Duration, cpu time.Duration) Latency {
	if len(took) == 0 {
		return Latency{}
	}
	slices.Sort(took)
	return Latency{
		N: len(took), P50: quantile(took, 0.5), P99: quantile(took, 0.99), Max: took[len(took)-1],
		CPU: cpu / time.Duration(len(took)),
	}
}

// quantile returns a quantile of sorted durations, which are some: the smallest that as many are not above.
func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// A Restart tells how a restart with rules in place went.
type Restart struct {
	// Took is from the start until a change that was made meanwhile was in the kernel.
	Took, CPU time.Duration
	// Asked counts the connections that a client made from before the end until after the start, Failed
	// those that did not come about within a second; Slowest is the slowest one.
	Asked, Failed int
	Slowest       time.Duration
}

// A Rate tells how many new connections in a second there were, straight to endpoints and through the
// address of a Service, and the middle ratio of the rounds.
type Rate struct {
	Straight, Through, Ratio float64
}

// A Result is what was measured of one program at one size. What was not measured is zero.
type Result struct {
	Program, Version    string
	Services, Endpoints int
	// Skipped says why nothing was measured; Stopped why not all was.
	Skipped, Stopped string
	// First is the time from the start until the kernel held all Services, FirstCPU what the program had
	// used when it came to rest.
	First, FirstCPU time.Duration
	Replace, Add    Latency
	Appear, Vanish  Latency
	Burst, Rolling  Latency
	Restart         Restart
	// Steady and Peak are bytes of resident memory, Kernel those that the kernel took for the rules.
	Steady, Peak, Kernel int64
	Plain, Sticky        Rate
	// PlainKnocks and StickyKnocks are about first packets of connections only; ManyKnocks are StickyKnocks from many
	// addresses.
	PlainKnocks, StickyKnocks, ManyKnocks Rate
	// Foreign is how long another process waited for each of its transactions during the first load.
	Foreign Latency
	// APICPU is what the API server used meanwhile.
	APICPU time.Duration
}

// median returns the middle of numbers; 0 if there are none.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}
