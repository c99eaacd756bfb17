package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"go.uber.org/zap"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

// The selectors of kube-proxy: Services that are for it and have an address, and slices of such.
const (
	selectServices = "!service.kubernetes.io/service-proxy-name"
	selectSlices   = "!" + v1.IsHeadlessService
)

// A retry says how long to wait for an API server that does not answer as it should.
type retry struct {
	backoff wait.Backoff
	// reset is how long all must have gone well for the next failure to count as the first.
	reset time.Duration
	// absent is how often to look for an API that the server does not have.
	absent time.Duration
}

// defaultRetry returns the pace for a cluster: a second at first, 10 to 15 in the end, so that
// neither does a server that is back wait long for its nodes, nor do they bury it.
func defaultRetry() retry {
	return retry{
		backoff: wait.Backoff{Duration: 800 * time.Millisecond, Factor: 1.5, Jitter: 0.5, Steps: 100, Cap: 10 * time.Second},
		reset:   30 * time.Second,
		absent:  5 * time.Minute,
	}
}

// A resource is something to follow.
type resource struct {
	progress *progress
	store    cache.ReflectorStore
	// expected is an object of the type that the API server sends.
	expected runtime.Object
	client   kubernetes.Interface
	list     func(context.Context, meta.ListOptions) (runtime.Object, error)
	watch    func(context.Context, meta.ListOptions) (apiwatch.Interface, error)
	// labels and fields select objects.
	labels, fields string
}

// resources returns all that is to be followed for a node, into a state.
func resources(client kubernetes.Interface, node string, s *state) []resource {
	services, slices := client.CoreV1().Services(meta.NamespaceAll), client.DiscoveryV1().EndpointSlices(meta.NamespaceAll)
	nodes, cidrs := client.CoreV1().Nodes(), client.NetworkingV1().ServiceCIDRs()
	return []resource{
		{
			progress: s.services.progress, store: s.services, client: client, expected: &v1.Service{},
			list: lister(services.List), watch: services.Watch,
			labels: selectServices, fields: fields.OneTermNotEqualSelector("spec.clusterIP", v1.ClusterIPNone).String(),
		},
		{
			progress: s.slices.progress, store: s.slices, client: client, expected: &discovery.EndpointSlice{},
			list: lister(slices.List), watch: slices.Watch, labels: selectSlices,
		},
		{
			progress: s.nodes.progress, store: s.nodes, client: client, expected: &v1.Node{},
			list: lister(nodes.List), watch: nodes.Watch, fields: fields.OneTermEqualSelector(meta.ObjectNameField, node).String(),
		},
		{
			progress: s.cidrs.progress, store: s.cidrs, client: client, expected: &networking.ServiceCIDR{},
			list: lister(cidrs.List), watch: cidrs.Watch,
		},
	}
}

// lister returns a list function of a typed client as one of any client.
func lister[L runtime.Object](list func(context.Context, meta.ListOptions) (L, error)) func(context.Context, meta.ListOptions) (runtime.Object, error) {
	return func(ctx context.Context, o meta.ListOptions) (runtime.Object, error) { return list(ctx, o) }
}

// follow lists and watches a resource until the context ends. The loop is that of client-go's
// informers, but for the errors: they become problems, which are told once.
func (s *Source) follow(ctx context.Context, r resource) {
	backoff := s.retry.backoff
	reflector := cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(r.listWatch(), r.client), r.expected, r.store,
		cache.ReflectorOptions{Name: r.progress.name, Backoff: &backoff})
	delay := backoff.DelayWithReset(clock.RealClock{}, s.retry.reset)
	// Until ends with the context only: the function never says that it is done.
	_ = delay.Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		err := reflector.ListAndWatchWithContext(ctx)
		s.cfg.Log.Debug("list and watch ended", zap.String("resource", r.progress.name), zap.Error(err))
		if r.progress.optional && apierrors.IsNotFound(err) {
			select {
			case <-ctx.Done():
			case <-time.After(s.retry.absent):
			}
		}
		return false, nil
	})
}

// listWatch returns how to list and watch the resource, noting how that went.
func (r resource) listWatch() *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o meta.ListOptions) (runtime.Object, error) {
			o.LabelSelector, o.FieldSelector = r.labels, r.fields
			list, err := r.list(ctx, o)
			if err != nil && ctx.Err() == nil {
				r.progress.failed(err)
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o meta.ListOptions) (apiwatch.Interface, error) {
			o.LabelSelector, o.FieldSelector = r.labels, r.fields
			w, err := r.watch(ctx, o)
			switch {
			case err == nil:
				r.progress.works()
			case o.SendInitialEvents == nil && ctx.Err() == nil:
				r.progress.failed(err)
			case utilnet.IsConnectionRefused(err):
				// A refused stream of the initial state is followed by a list, whose error counts.
				// That it was the connection is hidden from the reflector, which would wait for a
				// better one without looking at ctx.
				err = errors.New(plain(err))
			}
			return w, err
		},
	}
}

// plain returns the message of an error without what changes each time that it happens again: ports
// and the parameters of a request.
func plain(err error) string {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		to := ""
		if op.Addr != nil {
			to = " " + op.Addr.String()
		}
		return fmt.Sprintf("%s %s%s: %v", op.Op, op.Net, to, op.Err)
	}
	if request := (*url.Error)(nil); errors.As(err, &request) {
		return request.Err.Error()
	}
	return err.Error()
}
