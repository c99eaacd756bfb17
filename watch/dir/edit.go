package dir

import (
	"reflect"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch"
	"github.com/nftproxy/nftproxy/watch/objects"
)

// An edit changes the maps of a part.
type edit struct {
	services  *model.Edit[model.Name, *objects.Service]
	slices    *model.Edit[model.Name, *objects.Slice]
	endpoints *model.Edit[model.Name, *objects.Slice]
	nodes     *model.Edit[string, *objects.Node]
	cidrs     *model.Edit[string, *objects.ServiceCIDR]
}

// newEdit returns an edit that starts from what the part holds.
func newEdit(p *watch.Part) *edit {
	return &edit{p.Services.Edit(), p.Slices.Edit(), p.Endpoints.Edit(), p.Nodes.Edit(), p.ServiceCIDRs.Edit()}
}

// finish puts the edited maps into the part.
func (e *edit) finish(p *watch.Part) {
	p.Services, p.Slices, p.Endpoints = e.services.Map(), e.slices.Map(), e.endpoints.Map()
	p.Nodes, p.ServiceCIDRs = e.nodes.Map(), e.cidrs.Map()
}

// set makes an object what an entry says.
func (e *edit) set(n *entry) {
	put(e.services, n.key, "Service", n.key.name, n.service)
	put(e.slices, n.key, "EndpointSlice", n.key.name, n.slice)
	put(e.endpoints, n.key, "Endpoints", n.key.name, n.endpoints)
	put(e.nodes, n.key, "Node", n.key.name.Name, n.node)
	put(e.cidrs, n.key, "ServiceCIDR", n.key.name.Name, n.cidr)
}

// remove takes an object away.
func (e *edit) remove(k key) { e.set(&entry{key: k}) }

// put sets a value of a map if the object is of the map's kind. A value that says what the one
// before said changes nothing, so that it stays the same pointer.
func put[K comparable, V any](edit *model.Edit[K, *V], k key, kind string, name K, v *V) {
	if k.kind != kind {
		return
	}
	if v == nil {
		edit.Delete(name)
		return
	}
	if have, ok := edit.Get(name); ok && reflect.DeepEqual(have, v) {
		return
	}
	edit.Set(name, v)
}
