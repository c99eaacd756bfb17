// Package cluster tells the cluster of this node, and Prometheus of the requests to the API server.
package cluster

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientevents "k8s.io/client-go/kubernetes/typed/events/v1"
	clientevent "k8s.io/client-go/tools/events"

	"github.com/nftproxy/nftproxy/proxier/events"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// reporter is who the events are from, as in kube-proxy: somebody may filter by it.
const reporter = "kube-proxy"

// NewRecorder returns a Recorder of events about a node and its Services, which go out in the
// background until the context ends. Repeated events become a series of one.
func NewRecorder(ctx context.Context, client clientevents.EventsV1Interface, node string) (events.Recorder, error) {
	broadcaster := clientevent.NewBroadcaster(&clientevent.EventSinkImpl{Interface: client})
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return nil, fmt.Errorf("start to record events: %w", err)
	}
	context.AfterFunc(ctx, broadcaster.Shutdown)
	recorder := broadcaster.NewRecorder(runtime.NewScheme(), reporter)
	return func(e events.Event) {
		kind := v1.EventTypeNormal
		if e.Warning {
			kind = v1.EventTypeWarning
		}
		recorder.Eventf(regarding(e.Service, node), nil, kind, e.Reason, e.Action, "%s", e.Note)
	}, nil
}

// regarding returns the reference of what an event is about.
func regarding(service model.Name, node string) *v1.ObjectReference {
	if service == (model.Name{}) {
		// Events of a Node have its name in the place of its UID, those of the kubelet, too.
		return &v1.ObjectReference{Kind: "Node", Name: node, UID: types.UID(node)}
	}
	return &v1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: service.Namespace, Name: service.Name}
}
