package main

import (
	"slices"
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	tests := []struct{ argv, want string }{
		{"nftproxy", ""},
		{"nftproxy --help", "--help"},
		{"nftproxy -h", "-h"},
		{"nftproxy status -o json", "status -o json"},
		{"nftproxy --config=c", "run --config=c"},
		{"/usr/bin/nftproxy --version", "run --version"},
		{"kube-proxy", "run"},
		{"kube-proxy --help", "run --help"},
		{"/usr/local/bin/kube-proxy --config=c --hostname-override=n", "run --config=c --hostname-override=n"},
		{"kube-proxy status", "status"},
	}
	for _, tt := range tests {
		if got := arguments(strings.Fields(tt.argv)); !slices.Equal(got, strings.Fields(tt.want)) {
			t.Errorf("arguments(%q) = %q; want %q", tt.argv, got, tt.want)
		}
	}
}
