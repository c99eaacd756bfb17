package scenario

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// A Case is one case of cases.json, made ready to run.
type Case struct {
	Name string
	Node Node
	// Manifests are the objects, as documents of YAML.
	Manifests string
	Flows     []Flow
	// Sticky says that a client must stay with its endpoint on all addresses of a Service port.
	Sticky bool
	// NodePorts maps node ports to the ports of their Services.
	NodePorts map[uint16]uint16
	// Local and Remote are the addresses of endpoints on the node and elsewhere, usable or not.
	Local, Remote []netip.Addr
}

// The raw types are what cases.json looks like.
type (
	rawCases struct {
		Cases []rawCase `json:"cases"`
	}
	rawCase struct {
		Name           string           `json:"name"`
		Node           rawNode          `json:"node"`
		Services       []map[string]any `json:"services"`
		EndpointSlices []map[string]any `json:"endpointslices"`
		Flows          []rawFlow        `json:"flows"`
		Sticky         *struct{}        `json:"sticky"`
	}
	rawNode struct {
		Name                    string                `json:"name"`
		IPs                     []netip.Addr          `json:"ips"`
		PrimaryIPs              map[string]netip.Addr `json:"primaryIPs"`
		Labels                  map[string]string     `json:"labels"`
		NodePortAddresses       []string              `json:"nodePortAddresses"`
		DetectLocal             rawDetectLocal        `json:"detectLocal"`
		MasqueradeAll           bool                  `json:"masqueradeAll"`
		ServiceCIDRs            []string              `json:"serviceCIDRs"`
		AllowServiceExternalIPs *bool                 `json:"allowServiceExternalIPs"`
	}
	rawDetectLocal struct {
		Mode            string `json:"mode"`
		CIDR            string `json:"cidr"`
		BridgeInterface string `json:"bridgeInterface"`
	}
	rawFlow struct {
		Name      string     `json:"name"`
		SrcKind   Kind       `json:"srcKind"`
		SrcIP     netip.Addr `json:"srcIP"`
		Proto     string     `json:"proto"`
		DstIP     netip.Addr `json:"dstIP"`
		DstPort   uint16     `json:"dstPort"`
		Expect    Verdict    `json:"expect"`
		Endpoints []string   `json:"endpoints"`
		Masq      bool       `json:"masq"`
	}
)

// Cases reads a file like cases.json.
func Cases(path string) ([]Case, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var raw rawCases
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var cases []Case
	for _, r := range raw.Cases {
		c, err := r.parse()
		if err != nil {
			return nil, fmt.Errorf("%s: case %s: %w", path, r.Name, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// parse makes a case ready to run.
func (r rawCase) parse() (Case, error) {
	c := Case{Name: r.Name, Node: r.Node.parse(), Sticky: r.Sticky != nil, NodePorts: map[uint16]uint16{}}
	docs := []map[string]any{r.Node.object(), {
		"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
		"metadata": map[string]any{"name": "kubernetes"},
		"spec":     map[string]any{"cidrs": r.Node.ServiceCIDRs},
	}}
	for _, s := range r.Services {
		s["apiVersion"], s["kind"] = "v1", "Service"
		docs = append(docs, s)
		c.addNodePorts(s)
	}
	for _, s := range r.EndpointSlices {
		s["apiVersion"], s["kind"] = "discovery.k8s.io/v1", "EndpointSlice"
		docs = append(docs, s)
		if err := c.addEndpoints(s); err != nil {
			return c, err
		}
	}
	var b strings.Builder
	for _, d := range docs {
		text, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			return c, err
		}
		fmt.Fprintf(&b, "---\n%s\n", text)
	}
	c.Manifests = b.String()
	for _, f := range r.Flows {
		flow, err := f.parse()
		if err != nil {
			return c, err
		}
		// A pod of this node cannot have the address of a pod elsewhere; any other will do.
		if f.SrcKind == Pod && slices.Contains(c.Remote, flow.Src) {
			flow.Src = otherPod(flow.Src)
		}
		c.Flows = append(c.Flows, flow)
	}
	return c, nil
}

// otherPod returns another address in the /24 of a.
func otherPod(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] = 250
	o, _ := netip.AddrFromSlice(b)
	return o
}

// addNodePorts notes which node port belongs to which port.
func (c *Case) addNodePorts(service map[string]any) {
	spec, _ := service["spec"].(map[string]any)
	ports, _ := spec["ports"].([]any)
	for _, p := range ports {
		p, _ := p.(map[string]any)
		port, _ := p["port"].(float64)
		if np, _ := p["nodePort"].(float64); np != 0 {
			c.NodePorts[uint16(np)] = uint16(port)
		}
	}
}

// addEndpoints notes where the endpoints of a slice are.
func (c *Case) addEndpoints(slice map[string]any) error {
	endpoints, _ := slice["endpoints"].([]any)
	for _, e := range endpoints {
		e, _ := e.(map[string]any)
		addrs, _ := e["addresses"].([]any)
		for _, s := range addrs {
			text, _ := s.(string)
			a, err := parseAddr(text)
			if err != nil {
				return err
			}
			list := &c.Remote
			if e["nodeName"] == c.Node.Name {
				list = &c.Local
			}
			if !slices.Contains(*list, a) {
				*list = append(*list, a)
			}
		}
	}
	c.Remote = slices.DeleteFunc(c.Remote, func(a netip.Addr) bool { return slices.Contains(c.Local, a) })
	return nil
}

// parseAddr parses an address; IPv4 may have zeros in front of its numbers.
func parseAddr(s string) (netip.Addr, error) {
	if !strings.Contains(s, ":") {
		parts := strings.Split(s, ".")
		for i, p := range parts {
			if parts[i] = strings.TrimLeft(p, "0"); parts[i] == "" {
				parts[i] = "0"
			}
		}
		s = strings.Join(parts, ".")
	}
	return netip.ParseAddr(s)
}

// parse returns the settings of the node.
func (n rawNode) parse() Node {
	flags := []string{"--detect-local-mode=" + n.DetectLocal.Mode}
	switch n.DetectLocal.Mode {
	case "BridgeInterface":
		flags = append(flags, "--pod-bridge-interface="+n.DetectLocal.BridgeInterface)
	default:
		flags = append(flags, "--cluster-cidr="+n.DetectLocal.CIDR)
	}
	if len(n.NodePortAddresses) > 0 {
		flags = append(flags, "--nodeport-addresses="+strings.Join(n.NodePortAddresses, ","))
	}
	if n.MasqueradeAll {
		flags = append(flags, "--masquerade-all")
	}
	if n.AllowServiceExternalIPs != nil {
		flags = append(flags, fmt.Sprintf("--feature-gates=AllowServiceExternalIPs=%t", *n.AllowServiceExternalIPs))
	}
	return Node{Name: n.Name, Addresses: n.IPs, Flags: flags}
}

// object returns the Node object.
func (n rawNode) object() map[string]any {
	var addrs []map[string]any
	for _, f := range []string{"IPv4", "IPv6"} {
		if a := n.PrimaryIPs[f]; a.IsValid() {
			addrs = append(addrs, map[string]any{"type": "InternalIP", "address": a.String()})
		}
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{"name": n.Name, "labels": n.Labels},
		"status":   map[string]any{"addresses": addrs},
	}
}

// parse returns the flow.
func (f rawFlow) parse() (Flow, error) {
	flow := Flow{
		Name: f.Name, Kind: f.SrcKind, Src: f.SrcIP, Proto: f.Proto,
		Dst: netip.AddrPortFrom(f.DstIP, f.DstPort), Want: f.Expect, Masquerade: f.Masq,
	}
	for _, e := range f.Endpoints {
		ap, err := netip.ParseAddrPort(e)
		if err != nil {
			return flow, fmt.Errorf("flow %s: %w", f.Name, err)
		}
		flow.Endpoints = append(flow.Endpoints, ap)
	}
	return flow, nil
}
