package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/zap"
	"k8s.io/klog/v2"
)

// TestLog writes through zap and klog: both must come out, in one form, at the verbosity asked for.
func TestLog(t *testing.T) {
	tests := []struct {
		name      string
		config    logConfig
		want, not []string
	}{
		{"quiet", logConfig{}, []string{"ours", "klog info"}, []string{"ours debug", "klog two", "klog four"}},
		{"verbose", logConfig{Verbosity: 2}, []string{"ours", "ours debug", "klog info", "klog two"}, []string{"klog four"}},
		{"JSON", logConfig{JSON: true, Verbosity: 4}, []string{"ours", "klog info", "klog four"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			log, err := newLog(tt.config, &b)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(klog.ClearLogger)
			log.Info("ours", zap.String("k", "v"))
			log.Debug("ours debug")
			klog.Info("klog info")
			klog.V(2).Info("klog two")
			klog.V(4).Info("klog four")
			klog.Flush()
			out := b.String()
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("the log lacks %q:\n%s", want, out)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(out, not) {
					t.Errorf("the log has %q:\n%s", not, out)
				}
			}
			for line := range strings.Lines(out) {
				if json.Valid([]byte(line)) != tt.config.JSON {
					t.Errorf("line %q; want JSON: %v", line, tt.config.JSON)
				}
			}
		})
	}
}
