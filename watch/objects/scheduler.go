package objects

import (
	"strconv"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// The annotations of a Service that say how its endpoints are chosen.
const (
	// AnnotationScheduler names the scheduler: one of IPVS, or random.
	AnnotationScheduler = "nftproxy.io/scheduler"
	// AnnotationKubeRouter is what kube-router reads for the same purpose.
	AnnotationKubeRouter = "kube-router.io/service.scheduler"
	// AnnotationWeights holds the weights of endpoints, see [Weights].
	AnnotationWeights = "nftproxy.io/weights"
)

// scheduler returns the scheduler that the annotations name; empty if they name none that there is.
func (f *faults) scheduler(annotations map[string]string) string {
	for _, name := range []string{AnnotationScheduler, AnnotationKubeRouter} {
		value, ok := annotations[name]
		if !ok {
			continue
		}
		if value == model.Random || ipvs.Known(value) {
			return value
		}
		f.add(annotation(name), "%q is none of %s, %s; the default is used",
			value, strings.Join(ipvs.Schedulers(), ", "), model.Random)
	}
	return ""
}

// annotation returns the path of an annotation.
func annotation(name string) string { return "metadata.annotations[" + name + "]" }

// Weights are the weights that the annotation nftproxy.io/weights gives to endpoints: a list with
// commas of WHO=WEIGHT, where WHO is pod/NAME, node/NAME, zone/NAME or * for all others. Of several
// that fit, the pod counts before the node, the node before the zone, the zone before *. An endpoint
// that nothing fits has weight 1.
type Weights struct {
	pods, zones map[uint64]uint16 // by hashOf
	nodes       map[string]uint16
	// others is the weight of *, nil if there is none.
	others *uint16
}

// of returns the weight of an endpoint.
func (w *Weights) of(e *Endpoint) uint16 {
	if n, ok := w.pods[e.Who.Pod]; ok {
		return n
	}
	if n, ok := w.nodes[e.Node]; ok {
		return n
	}
	if n, ok := w.zones[e.Who.Zone]; ok {
		return n
	}
	if w.others != nil {
		return *w.others
	}
	return 1
}

// weights returns what the annotation says. An item that makes no sense is left out.
func (f *faults) weights(annotations map[string]string) Weights {
	w := Weights{}
	text, ok := annotations[AnnotationWeights]
	if !ok {
		return w
	}
	for item := range strings.SplitSeq(text, ",") {
		who, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 16)
		if err != nil {
			f.add(annotation(AnnotationWeights), "%q is not WHO=WEIGHT with a weight of 0 to 65535", item)
			continue
		}
		if !w.set(strings.TrimSpace(who), uint16(n)) {
			f.add(annotation(AnnotationWeights), "%q is none of pod/NAME, node/NAME, zone/NAME, *", who)
		}
	}
	return w
}

// set gives a weight to those that who names, and reports whether it names any.
func (w *Weights) set(who string, n uint16) bool {
	if who == "*" {
		w.others = &n
		return true
	}
	kind, name, _ := strings.Cut(who, "/")
	if name == "" {
		return false
	}
	switch kind {
	case "pod":
		w.pods = with(w.pods, hashOf(name), n)
	case "node":
		w.nodes = with(w.nodes, name, n)
	case "zone":
		w.zones = with(w.zones, hashOf(name), n)
	default:
		return false
	}
	return true
}

// with puts a value into a map, which may be nil.
func with[K comparable](m map[K]uint16, k K, n uint16) map[K]uint16 {
	if m == nil {
		m = map[K]uint16{}
	}
	m[k] = n
	return m
}

// Who says what pod an endpoint is and in which zone, as hashes of the names (see hashOf), 0 if unknown:
// the names of a million pods would take a good part of the memory that there is, and all that is asked is
// whether one was named in an annotation.
type Who struct{ Pod, Zone uint64 }

// hashOf returns the 64 bit FNV-1a hash of a name; 0 for none.
func hashOf(name string) uint64 {
	if name == "" {
		return 0
	}
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * prime
	}
	return h
}
