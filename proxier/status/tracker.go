// Package status tells over HTTP how the proxy is doing: to probes, to Prometheus and to people.
package status

import (
	"sync"
	"time"

	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// A Tracker knows whether the kernel is in line with what the sources said last.
type Tracker struct {
	// grace is how long a change may wait to be programmed.
	grace time.Duration
	// families are the names of the families that are programmed.
	families []string
	// needNode is whether a node without a Node object is eligible for nothing.
	needNode bool

	// mu guards what follows.
	mu sync.Mutex
	// latest is what the sources said last; its Node is nil if they did not speak yet.
	latest model.Snapshot
	// pending is since when the kernel is not in line; zero if it is.
	pending time.Time
	// updated is when it was last brought in line; zero for never.
	updated time.Time
}

// A Config is what the operator may choose about the Tracker.
type Config struct {
	// Grace is how long a change may wait to be programmed before the proxy is unhealthy.
	Grace time.Duration
	// Families are the families that are programmed, IPv4 or IPv6.
	Families []string
	// NeedNode says that the node is not eligible without a Node object.
	NeedNode bool
}

// NewTracker returns a Tracker of a proxy that did nothing yet.
func NewTracker(c Config) *Tracker {
	return &Tracker{grace: c.Grace, families: c.Families, needNode: c.NeedNode}
}

// Queued notes a snapshot that is to be programmed.
func (t *Tracker) Queued(s model.Snapshot, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latest = s
	if t.pending.IsZero() {
		t.pending = now
	}
}

// Synced notes what the engine did. A change that came while it was at work is still to be done.
func (t *Tracker) Synced(s proxier.Sync, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case s.Err != nil:
		if t.pending.IsZero() {
			t.pending = s.Started
		}
	case s.Snapshot.Same(&t.latest):
		t.pending, t.updated = time.Time{}, now
	default:
		t.pending, t.updated = s.Started, now
	}
}

// Health is what a probe is told, in kube-proxy's words.
type Health struct {
	LastUpdated  time.Time `json:"lastUpdated"`
	CurrentTime  time.Time `json:"currentTime"`
	NodeEligible *bool     `json:"nodeEligible,omitempty"`
	Healthy      bool      `json:"healthy"`
	// Status is that of each family.
	Status map[string]FamilyHealth `json:"status,omitempty"`
}

// FamilyHealth is the Health of one family.
type FamilyHealth struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

// Health returns how the proxy is at a time. It is healthy if something was programmed and no change
// has been waiting for too long. Both families go in one transaction, so they are always equal.
func (t *Tracker) Health(now time.Time) Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	healthy := !t.updated.IsZero() && (t.pending.IsZero() || now.Sub(t.pending) < t.grace)
	h := Health{LastUpdated: t.updated, CurrentTime: now, Healthy: healthy, Status: map[string]FamilyHealth{}}
	for _, f := range t.families {
		h.Status[f] = FamilyHealth{LastUpdated: t.updated, Healthy: healthy}
	}
	return h
}

// Eligible reports whether load balancers should send to this node: not if it is unknown, or to go.
func (t *Tracker) Eligible() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.latest.Node
	return n != nil && !n.Leaving && (n.Known || !t.needNode)
}
