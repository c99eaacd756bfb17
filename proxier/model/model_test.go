package model

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

// fullService returns a Service with something in every field.
func fullService() *Service {
	addr := netip.MustParseAddr
	return &Service{
		Name: Name{"a", "b"}, Created: time.Unix(1, 0), ClusterIPs: []netip.Addr{addr("10.0.0.1")}, ExternalIPs: []netip.Addr{addr("10.0.0.2")},
		LoadBalancerIPs: []netip.Addr{addr("10.0.0.3")}, SourceRanges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Affinity: time.Hour, Scheduler: Random, HealthCheckNodePort: 1,
		Ports: []Port{{Name: "p", Protocol: TCP, Port: 80, NodePort: 30080, Endpoints: []Endpoint{{
			Addr: netip.MustParseAddrPort("10.0.1.1:80"), Node: "n", Weight: 1, Hints: &Hints{Zones: []string{"z"}, Nodes: []string{"n"}},
		}}}},
	}
}

// TestServiceEqual changes every field of a Service, of its ports and endpoints: none may be forgotten.
func TestServiceEqual(t *testing.T) {
	if a, b := fullService(), fullService(); !a.Equal(b) || !a.SameButEndpoints(b) || !a.SameEndpoints(b) {
		t.Error("two Services that say the same are not equal")
	}
	for _, tt := range []struct {
		of        string
		value     func(*Service) any
		endpoints bool
	}{
		{"Service", func(s *Service) any { return s }, false},
		{"Port", func(s *Service) any { return &s.Ports[0] }, false},
		{"Endpoint", func(s *Service) any { return &s.Ports[0].Endpoints[0] }, true},
		{"Hints", func(s *Service) any { return s.Ports[0].Endpoints[0].Hints }, true},
	} {
		fields := reflect.TypeOf(tt.value(fullService())).Elem()
		for i := range fields.NumField() {
			name := fields.Field(i).Name
			if slices.Contains([]string{"Ports", "Endpoints"}, name) {
				continue // see the field's type
			}
			t.Run(tt.of+"."+name, func(t *testing.T) {
				a, b := fullService(), fullService()
				v := reflect.ValueOf(tt.value(b)).Elem().Field(i)
				if v.Kind() == reflect.Bool {
					v.SetBool(true)
				} else {
					v.SetZero()
				}
				if a.Equal(b) || b.Equal(a) {
					t.Error("two Services that differ in it are equal")
				}
				if got := a.SameButEndpoints(b); got != tt.endpoints {
					t.Errorf("SameButEndpoints = %v; want %v", got, tt.endpoints)
				}
				if got := a.SameEndpoints(b); got == tt.endpoints {
					t.Errorf("SameEndpoints = %v; want %v", got, !tt.endpoints)
				}
			})
		}
	}
	for _, change := range []func(*Service){
		func(s *Service) { s.Ports = append(s.Ports, Port{Name: "q"}) },
		func(s *Service) { s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, Endpoint{}) },
		func(s *Service) { s.Ports[0].Endpoints = nil },
	} {
		a, b := fullService(), fullService()
		change(b)
		if a.Equal(b) || b.Equal(a) {
			t.Errorf("%+v and %+v are equal", a, b)
		}
	}
}
