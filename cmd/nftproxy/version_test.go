package main

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestBuildFrom(t *testing.T) {
	info := &debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}},
	}
	tests := []struct {
		name                    string
		version, commit         string
		info                    *debug.BuildInfo
		wantVersion, wantCommit string
	}{
		{"the linker said it", "v2", "def", info, "v2", "def"},
		{"Go noted it", "", "", info, "v1.2.3", "abc"},
		{"nobody knows", "", "", nil, "(devel)", "unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := buildFrom(tt.version, tt.commit, tt.info)
			if got.Version != tt.wantVersion || got.Commit != tt.wantCommit || !strings.HasPrefix(got.Go, "go") {
				t.Errorf("buildFrom(%q, %q) = %+v; want version %q, commit %q", tt.version, tt.commit, got, tt.wantVersion, tt.wantCommit)
			}
		})
	}
}
