// Package world builds a small network out of namespaces: a node on which the proxy runs, pods on
// it, and around it the pods of other nodes, clients, and the rest of the internet.
//
//	clients --- eth0 \                   / pod0 --- a pod
//	other nodes - remote0  [ the node ]  - pod1 --- a pod
//	the rest - outside0 /                \ ... (or all of them behind a bridge)
//
// Every host answers on every address that it has and says who it is and whom it saw, so that a test
// knows where a packet arrived and with which source. Nothing but the node ever refuses a connection.
package world

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Config says how pods are attached to the node.
type Config struct {
	// Bridge is the bridge that pods are behind; empty for a veth link each.
	Bridge string
	// PodPrefix is the beginning of the names of the node's links to pods; empty means "pod".
	PodPrefix string
}

// A World is the network.
type World struct {
	cfg Config
	// Node runs the proxy. Its addresses are on eth0, which leads to Clients.
	Node *Host
	// Clients are machines outside the cluster.
	Clients *Host
	// Remote stands for all the pods on other nodes.
	Remote *Host
	// Outside is where the node sends what it has no route for.
	Outside *Host
	pods    map[netip.Addr]*Host
	bridge  netlink.Link
}

// mute keeps a host from refusing connections: only the node may. A reset that refuses has the flag ACK and the
// sequence number 0. One without the flag clears up what is left of an old connection with the same
// ports, and one with another number ends a connection: those pass.
const mute = `table inet mute {
	chain output {
		type filter hook output priority filter; policy accept;
		tcp flags & (rst | ack) == (rst | ack) tcp sequence 0 drop
		icmp type destination-unreachable drop
		icmpv6 type destination-unreachable drop
	}
}`

// New builds a world in which the node has no address and there are no pods yet.
func New(cfg Config) (w *World, err error) {
	if cfg.PodPrefix == "" {
		cfg.PodPrefix = "pod"
	}
	w = &World{cfg: cfg, pods: map[netip.Addr]*Host{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
			w = nil
		}
	}()
	if w.Node, err = newHost("node"); err != nil {
		return w, err
	}
	for _, kv := range [][2]string{
		{"ipv4/ip_forward", "1"},
		{"ipv6/conf/all/forwarding", "1"},
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
		{"bridge/bridge-nf-call-iptables", "0"},
		{"bridge/bridge-nf-call-ip6tables", "0"},
	} {
		if err := w.Node.Sysctl(kv[0], kv[1]); err != nil {
			return w, err
		}
	}
	if err := w.makeBridge(); err != nil {
		return w, err
	}
	for _, h := range []struct {
		host **Host
		name string
		dev  string
	}{{&w.Clients, "clients", "eth0"}, {&w.Remote, "remote", "remote0"}, {&w.Outside, "outside", "outside0"}} {
		if *h.host, err = w.attach(h.name, h.dev, nil); err != nil {
			return w, err
		}
	}
	return w, gateway(w.Node.link, w.Outside.port, w.Outside.mac)
}

// makeBridge makes the bridge for pods, if there is to be one.
func (w *World) makeBridge() error {
	if w.cfg.Bridge == "" {
		return nil
	}
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: w.cfg.Bridge}}
	if err := w.Node.link.LinkAdd(b); err != nil {
		return fmt.Errorf("make bridge %s: %w", w.cfg.Bridge, err)
	}
	l, err := w.Node.link.LinkByName(w.cfg.Bridge)
	if err != nil {
		return err
	}
	w.bridge = l
	return w.Node.link.LinkSetUp(l)
}

// attach makes a host and a link from the node's interface dev to its eth0, or, with a bridge, from a
// port of the bridge.
func (w *World) attach(name, dev string, bridge netlink.Link) (*Host, error) {
	h, err := newHost(name)
	if err != nil {
		return nil, err
	}
	err = w.join(h, dev, bridge)
	if err == nil {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(mute)
		_, err = h.Output(cmd)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach %s to the node: %w", name, err), h.close())
	}
	return h, nil
}

// join makes the link of attach.
func (w *World) join(h *Host, dev string, bridge netlink.Link) error {
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: dev},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(h.FD()),
	}
	if err := w.Node.link.LinkAdd(veth); err != nil {
		return err
	}
	near, err := w.Node.link.LinkByName(dev)
	if err != nil {
		return err
	}
	far, err := h.link.LinkByName("eth0")
	if err != nil {
		return err
	}
	h.port, h.mac = near, far.Attrs().HardwareAddr
	if bridge != nil {
		if err := w.Node.link.LinkSetMaster(near, bridge); err != nil {
			return err
		}
		// A bridge takes over the address of a port: fix it before it is written down.
		mac := bridge.Attrs().HardwareAddr
		if err := w.Node.link.LinkSetHardwareAddr(bridge, mac); err != nil {
			return err
		}
		h.port = bridge
	}
	if err := w.Node.link.LinkSetUp(near); err != nil {
		return err
	}
	if err := h.link.LinkSetUp(far); err != nil {
		return err
	}
	return gateway(h.link, far, h.port.Attrs().HardwareAddr)
}

// SetNodeAddrs makes addrs the addresses of the node's eth0. Loopback addresses are there anyway.
func (w *World) SetNodeAddrs(addrs []netip.Addr) error {
	addrs = slices.DeleteFunc(slices.Clone(addrs), netip.Addr.IsLoopback)
	return setAddrs(w.Node.link, "eth0", w.Node.addrs, addrs)
}

// A Placement says which addresses are where. An address that is nowhere belongs to Outside as far as
// routes go, but nobody answers there.
type Placement struct {
	Pods, Remote, Clients, Outside []netip.Addr
}

// Place gives the hosts their addresses and the node the routes to them, and takes away what they had
// before. Each address in p.Pods is a pod of its own. Pods that are no longer placed keep their servers
// running, out of reach.
func (w *World) Place(p Placement) error {
	podsOf := map[*Host][]netip.Addr{}
	for _, h := range w.pods {
		podsOf[h] = nil
	}
	for _, a := range p.Pods {
		h, err := w.pod(a)
		if err != nil {
			return err
		}
		podsOf[h] = []netip.Addr{a}
	}
	// Take away first: an address may move from one host to another.
	for h, addrs := range podsOf {
		if err := w.unroute(h, addrs); err != nil {
			return err
		}
	}
	all := map[*Host][]netip.Addr{w.Remote: p.Remote, w.Clients: p.Clients, w.Outside: p.Outside}
	for h, addrs := range all {
		if err := w.unroute(h, addrs); err != nil {
			return err
		}
	}
	for h, addrs := range podsOf {
		all[h] = addrs
	}
	for h, addrs := range all {
		if err := w.route(h, addrs); err != nil {
			return err
		}
	}
	return nil
}

// Pod returns the pod with an address, nil if there is none.
func (w *World) Pod(a netip.Addr) *Host { return w.pods[a] }

// pod returns the pod with an address, made if needed.
func (w *World) pod(a netip.Addr) (*Host, error) {
	if h := w.pods[a]; h != nil {
		return h, nil
	}
	h, err := w.attach("pod "+a.String(), fmt.Sprintf("%s%d", w.cfg.PodPrefix, len(w.pods)), w.bridge)
	if err != nil {
		return nil, err
	}
	w.pods[a] = h
	return h, h.serve(slices.Collect(keys(w.Remote.served)))
}

// unroute removes the node's routes to addresses of h that are not in keep.
func (w *World) unroute(h *Host, keep []netip.Addr) error {
	for a := range h.addrs {
		if slices.Contains(keep, a) {
			continue
		}
		r := &netlink.Route{LinkIndex: h.port.Attrs().Index, Dst: hostNet(a), Scope: netlink.SCOPE_LINK}
		if err := w.Node.link.RouteDel(r); err != nil {
			return fmt.Errorf("remove route to %s: %w", a, err)
		}
	}
	return nil
}

// route makes addrs the addresses of h and adds the node's routes to them.
func (w *World) route(h *Host, addrs []netip.Addr) error {
	if err := setAddrs(h.link, "lo", h.addrs, addrs); err != nil {
		return err
	}
	for _, a := range addrs {
		if err := neighbour(w.Node.link, h.port, a.AsSlice(), h.mac); err != nil {
			return err
		}
		r := &netlink.Route{LinkIndex: h.port.Attrs().Index, Dst: hostNet(a), Scope: netlink.SCOPE_LINK}
		if err := w.Node.link.RouteReplace(r); err != nil {
			return fmt.Errorf("add route to %s: %w", a, err)
		}
	}
	return nil
}

// hosts yields every host that exists.
func (w *World) hosts(yield func(*Host) bool) {
	for _, h := range []*Host{w.Node, w.Clients, w.Remote, w.Outside} {
		if h != nil && !yield(h) {
			return
		}
	}
	for _, h := range w.pods {
		if !yield(h) {
			return
		}
	}
}

// Serve has every host answer on TCP and UDP ports, on top of those that it answers on.
func (w *World) Serve(ports ...uint16) error {
	for h := range w.hosts {
		if err := h.serve(ports); err != nil {
			return err
		}
	}
	return nil
}

// Close gives all of it up.
func (w *World) Close() error {
	var errs []error
	for h := range w.hosts {
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}
