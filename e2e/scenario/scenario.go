package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v2"
)

// A Scenario is one txtar file: what one feature does, step by step.
//
// Its files are "node" (settings, see [Settings]) and for each step "manifests.yaml", "flows" and
// "want.nft"; from the second step on "manifests-2.yaml" and so on. want.nft is what the step adds to
// a proxy that has default settings and knows nothing.
type Scenario struct {
	// Name is the name of the file without its ending.
	Name string
	// Settings are those of the node and of the daemon.
	Settings Settings
	Steps    []Step

	path    string
	archive *txtar.Archive
}

// A Step is one state of the manifests.
type Step struct {
	// Suffix is what the names of the step's files have before their ending: "", "-2", "-3" ...
	Suffix    string
	Manifests string
	Flows     []Flow
	// Want is the golden text.
	Want string
	// Local and Remote are the addresses of endpoints on the node and elsewhere, usable or not.
	Local, Remote []netip.Addr
}

// Settings are the file "node" of a scenario, as YAML.
type Settings struct {
	Name      string   `yaml:"name"`
	Addresses []string `yaml:"addresses"`
	// ClusterCIDR and the following are flags of the daemon.
	ClusterCIDR       string   `yaml:"clusterCIDR"`
	DetectLocal       string   `yaml:"detectLocal"`
	Interface         string   `yaml:"interface"` // of BridgeInterface and InterfaceNamePrefix
	NodePortAddresses []string `yaml:"nodePortAddresses"`
	MasqueradeAll     bool     `yaml:"masqueradeAll"`
	NoExternalIPs     bool     `yaml:"noExternalIPs"`
	// Sticky says that the flows are those of session affinity: each client stays with one endpoint.
	Sticky bool `yaml:"sticky"`
}

// Node returns the settings as addresses and flags.
func (s Settings) Node() (Node, error) {
	n := Node{Name: s.Name}
	for _, a := range s.Addresses {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return n, err
		}
		n.Addresses = append(n.Addresses, addr)
	}
	flag := func(name, value string) {
		if value != "" {
			n.Flags = append(n.Flags, "--"+name+"="+value)
		}
	}
	flag("cluster-cidr", s.ClusterCIDR)
	flag("detect-local-mode", s.DetectLocal)
	switch s.DetectLocal {
	case "BridgeInterface":
		flag("pod-bridge-interface", s.Interface)
	case "InterfaceNamePrefix":
		flag("pod-interface-name-prefix", s.Interface)
	}
	flag("nodeport-addresses", strings.Join(s.NodePortAddresses, ","))
	if s.MasqueradeAll {
		n.Flags = append(n.Flags, "--masquerade-all")
	}
	if s.NoExternalIPs {
		n.Flags = append(n.Flags, "--feature-gates=AllowServiceExternalIPs=false")
	}
	return n, nil
}

// All reads all scenarios of a directory.
func All(dir string) ([]*Scenario, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s: no scenarios", dir)
	}
	var all []*Scenario
	for _, p := range paths {
		s, err := Read(p)
		if err != nil {
			return nil, fmt.Errorf("scenario %s: %w", p, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// Read reads one scenario.
func Read(path string) (*Scenario, error) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		return nil, err
	}
	s := &Scenario{Name: strings.TrimSuffix(filepath.Base(path), ".txtar"), path: path, archive: a}
	if err := yaml.UnmarshalStrict(s.file("node"), &s.Settings); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	known := []string{"node"}
	for i := 1; ; i++ {
		step := Step{}
		if i > 1 {
			step.Suffix = fmt.Sprintf("-%d", i)
		}
		manifests := s.file("manifests" + step.Suffix + ".yaml")
		if manifests == nil {
			break
		}
		known = append(known, "manifests"+step.Suffix+".yaml", "flows"+step.Suffix, "want"+step.Suffix+".nft")
		step.Manifests = string(manifests)
		step.Want = string(s.file("want" + step.Suffix + ".nft"))
		if step.Flows, err = parseFlows(string(s.file("flows" + step.Suffix))); err != nil {
			return nil, fmt.Errorf("flows%s: %w", step.Suffix, err)
		}
		if step.Local, step.Remote, err = endpoints(manifests, s.Settings.Name); err != nil {
			return nil, fmt.Errorf("manifests%s.yaml: %w", step.Suffix, err)
		}
		s.Steps = append(s.Steps, step)
	}
	for _, f := range a.Files {
		if !slices.Contains(known, f.Name) {
			return nil, fmt.Errorf("file %s means nothing", f.Name)
		}
	}
	return s, nil
}

// file returns the text of a file of the archive, nil if there is none.
func (s *Scenario) file(name string) []byte {
	for _, f := range s.archive.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

// SetWant replaces the golden text of a step, to be written by Write.
func (s *Scenario) SetWant(step Step, text string) {
	name := "want" + step.Suffix + ".nft"
	for i := range s.archive.Files {
		if s.archive.Files[i].Name == name {
			s.archive.Files[i].Data = []byte(text)
			return
		}
	}
	s.archive.Files = append(s.archive.Files, txtar.File{Name: name, Data: []byte(text)})
}

// Bytes returns the scenario as it is to be written to Path.
func (s *Scenario) Bytes() []byte { return txtar.Format(s.archive) }

// Path returns where the scenario was read from.
func (s *Scenario) Path() string { return s.path }

// parseFlows parses lines such as
//
//	pod 10.0.0.2 -> 172.30.0.41:80/tcp => 10.1.1.1:80 10.1.1.2:80 masq
//	external 203.0.113.2 -> 1.2.3.4:80/tcp => drop
func parseFlows(text string) ([]Flow, error) {
	var flows []Flow
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		f, err := ParseFlow(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		f.Name = fmt.Sprintf("flow %d", i+1)
		flows = append(flows, f)
	}
	return flows, nil
}

// ParseFlow parses one line.
func ParseFlow(line string) (Flow, error) {
	w := strings.Fields(line)
	if len(w) < 6 || w[2] != "->" || w[4] != "=>" {
		return Flow{}, fmt.Errorf("%q is not KIND ADDRESS -> ADDRESS:PORT/PROTOCOL => VERDICT", strings.TrimSpace(line))
	}
	f := Flow{Kind: Kind(w[0]), Want: DNAT}
	if !slices.Contains([]Kind{Pod, NodeSelf, External}, f.Kind) {
		return f, fmt.Errorf("%q is not pod, node or external", w[0])
	}
	var errs [2]error
	f.Src, errs[0] = netip.ParseAddr(w[1])
	dst, proto, _ := strings.Cut(w[3], "/")
	f.Dst, errs[1] = netip.ParseAddrPort(dst)
	f.Proto = proto
	if err := errors.Join(errs[:]...); err != nil {
		return f, err
	}
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
		return f, fmt.Errorf("%q is not tcp, udp or sctp", proto)
	}
	if v := Verdict(w[5]); slices.Contains([]Verdict{Reject, Drop, None}, v) {
		f.Want = v
		return f, nil
	}
	for _, e := range w[5:] {
		if e == "masq" {
			f.Masquerade = true
			continue
		}
		ap, err := netip.ParseAddrPort(e)
		if err != nil {
			return f, err
		}
		f.Endpoints = append(f.Endpoints, ap)
	}
	return f, nil
}

// endpoints returns the addresses of all endpoints in manifests: those on a node and those elsewhere.
func endpoints(manifests []byte, node string) (local, remote []netip.Addr, err error) {
	type endpoint struct {
		Addresses []string `yaml:"addresses"`
		IP        string   `yaml:"ip"`
		NodeName  string   `yaml:"nodeName"`
	}
	type object struct {
		Endpoints []endpoint `yaml:"endpoints"`
		Subsets   []struct {
			Addresses         []endpoint `yaml:"addresses"`
			NotReadyAddresses []endpoint `yaml:"notReadyAddresses"`
		} `yaml:"subsets"`
	}
	seen := map[netip.Addr]bool{}
	for d := yaml.NewDecoder(bytes.NewReader(manifests)); ; {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return local, remote, nil
		} else if err != nil {
			return nil, nil, err
		}
		all := o.Endpoints
		for _, s := range o.Subsets {
			all = append(append(all, s.Addresses...), s.NotReadyAddresses...)
		}
		for _, e := range all {
			for _, text := range append(e.Addresses, e.IP) {
				a, err := netip.ParseAddr(text)
				if err != nil || seen[a] {
					continue // a name (FQDN), or known
				}
				seen[a] = true
				if e.NodeName == node {
					local = append(local, a)
				} else {
					remote = append(remote, a)
				}
			}
		}
	}
}
