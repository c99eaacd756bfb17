package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/proxier/model"
)

func TestHeld(t *testing.T) {
	service := &model.Service{
		Name:            model.Name{Namespace: "default", Name: "dns"},
		ClusterIPs:      []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00::a")},
		LoadBalancerIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Ports: []model.Port{
			{Name: "udp", Protocol: model.UDP, Port: 53, NodePort: 30053},
			{Name: "tcp", Protocol: model.TCP, Port: 53, NodePort: 30054},
		},
	}
	for i, ep := range []string{"10.1.0.1:5353", "[fd01::1]:5353"} {
		for j := range service.Ports {
			service.Ports[j].Endpoints = append(service.Ports[j].Endpoints, model.Endpoint{
				Addr: netip.MustParseAddrPort(ep), Node: fmt.Sprint("node-", i), Ready: true, Serving: true,
			})
		}
	}
	for _, affinity := range []bool{false, true} {
		if s := *service; affinity {
			s.Affinity = 1e9
			service = &s
		}
		var services model.Map[model.Name, *model.Service]
		edit := services.Edit()
		edit.Set(service.Name, service)
		state := Compile(Config{MasqueradeBit: 14}, model.Snapshot{Services: edit.Map(), Node: &model.Node{Name: "here"}}, nil)
		var got []string
		for _, a := range Held(state.Tables(), model.UDP) {
			got = append(got, a.String())
		}
		slices.Sort(got)
		want := []string{"0.0.0.0:30053", "10.96.0.10:53", "192.0.2.1:53", "[::]:30053", "[fd00::a]:53"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("affinity %t: Held(UDP) (-want +got):\n%s", affinity, diff)
		}
	}
}
