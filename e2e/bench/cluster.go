package main

import (
	"net/netip"

	"github.com/nftproxy/nftproxy/e2e/bench/apiserver"
)

// The Services that real connections go to, beside the numbered ones.
const (
	plainIP, plainEndpoints   = "10.110.0.1", 10
	stickyIP, stickyEndpoints = "10.110.0.2", 100
)

// A cluster is what the API server holds, as it was told.
type cluster struct {
	*api
	services, endpoints int
	// changed holds the endpoints of Services whose endpoints are not the first ones any more.
	changed map[int][]netip.Addr
	// fresh counts the addresses of endpoints that were given out, extra those of Services.
	fresh, extra int
}

// newCluster fills an API server.
func newCluster(a *api, services, endpoints int) (*cluster, error) {
	c := &cluster{api: a, services: services, endpoints: endpoints, changed: map[int][]netip.Addr{}}
	_, err := a.do(apiserver.Request{Services: services, EndpointsOfEach: endpoints, More: trafficServices()})
	return c, err
}

// trafficServices returns the Services that real connections go to.
func trafficServices() []apiserver.Service {
	pods := func(n int) (list []netip.Addr) {
		for i := range n {
			list = append(list, apiserver.Address(firstPod, i))
		}
		return list
	}
	return []apiserver.Service{
		{Name: "plain", ClusterIP: netip.MustParseAddr(plainIP), Endpoints: pods(plainEndpoints)},
		{Name: "sticky", ClusterIP: netip.MustParseAddr(stickyIP), Endpoints: pods(stickyEndpoints), Affinity: true},
	}
}

// pod returns an address of an endpoint that was never there before.
func (c *cluster) pod() netip.Addr {
	c.fresh++
	return apiserver.Address("100.64.0.0", c.fresh)
}

// service returns a Service as it is.
func (c *cluster) service(i int) apiserver.Service {
	s := apiserver.Numbered(i, c.endpoints)
	if e, ok := c.changed[i]; ok {
		s.Endpoints = e
	}
	return s
}

// set returns the change that gives a Service endpoints.
func (c *cluster) set(i int, endpoints []netip.Addr) apiserver.Change {
	c.changed[i] = endpoints
	s := c.service(i)
	return apiserver.Change{Verb: apiserver.Endpoints, Service: s}
}

// replace returns the change that puts another endpoint in the place of one, and the new address.
func (c *cluster) replace(i, k int) (apiserver.Change, netip.Addr) {
	list := append([]netip.Addr(nil), c.service(i).Endpoints...)
	a := c.pod()
	list[k%len(list)] = a
	return c.set(i, list), a
}

// add returns the change that adds an endpoint, and its address.
func (c *cluster) add(i int) (apiserver.Change, netip.Addr) {
	a := c.pod()
	return c.set(i, append(append([]netip.Addr(nil), c.service(i).Endpoints...), a)), a
}

// remove returns the change that removes the first endpoint of a Service.
func (c *cluster) remove(i int) apiserver.Change {
	return c.set(i, c.service(i).Endpoints[1:])
}

// another returns a Service that was never there before.
func (c *cluster) another() apiserver.Service {
	c.extra++
	s := apiserver.Service{Name: "another", ClusterIP: apiserver.Address("10.111.0.0", c.extra)}
	s.Name += "-" + s.ClusterIP.String()
	for range c.endpoints {
		s.Endpoints = append(s.Endpoints, c.pod())
	}
	return s
}
