// Package kube is a source that follows the objects of a cluster through the Kubernetes API.
//
// It lists and watches Services, EndpointSlices, this node's Node and ServiceCIDRs, with the selectors
// of kube-proxy, and keeps of each object only what the proxy reads. Nothing is said before all of
// them are known. From then on what is known stays: an API server that is gone, or that denies what
// it allowed before, takes nothing away; when it is back, what vanished meanwhile goes.
//
// The way of an object: follow.go asks for it, store.go cuts it and keeps it, state.go puts all
// together and says what is wrong.
package kube

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/watch"
)

// sourceName is the name of the source in logs and problems.
const sourceName = "kubernetes"

// What comes together is handed over together. A Service, and an EndpointSlice that comes or goes, wait for gather, since
// what belongs to them comes by another stream, and any change if something was handed over less than pace ago.
const (
	gather = time.Millisecond
	pace   = 5 * time.Millisecond
)

// A Config says what to follow.
type Config struct {
	// Client talks to the API server; required.
	Client kubernetes.Interface
	// NodeName is the name of this node's Node object; required.
	NodeName string
	// NeedPodCIDRs says that nothing is to be said before the Node has its podCIDRs.
	NeedPodCIDRs bool
	// Log is where the source tells what it does; nil for nowhere. Problems are in its parts.
	Log *zap.Logger
}

// A Source follows a cluster.
type Source struct {
	cfg   Config
	retry retry
}

// New returns a source. It asks for nothing before Run.
func New(cfg Config) *Source {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Source{cfg: cfg, retry: defaultRetry()}
}

// String names the source.
func (s *Source) String() string { return sourceName }

// Run follows the cluster until the context ends. Trouble with the API server is a problem of the
// parts, not an error.
func (s *Source) Run(ctx context.Context, put func(watch.Part)) error {
	state := newState(s.cfg.NodeName, s.cfg.NeedPodCIDRs)
	var followers sync.WaitGroup
	defer followers.Wait()
	// What client-go tells of each watch that ends is for developers; what matters is a problem.
	ctx = klog.NewContext(ctx, klog.Background().V(2))
	for _, r := range resources(s.cfg.Client, s.cfg.NodeName, state) {
		followers.Go(func() { s.follow(ctx, r) })
	}
	var last time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-state.changed:
		}
		wait := time.Until(last.Add(pace))
		if state.incomplete() {
			wait = max(wait, gather)
		}
		if wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
			select {
			case <-state.changed: // is handed over with the rest
			default:
			}
		}
		last = time.Now()
		put(state.part())
	}
}
