package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// socketDir returns a directory with a short name: the path of a unix socket has 107 bytes at most.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nftproxy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serve runs a status server until the test ends or the returned function is called.
func serve(t *testing.T, path string, status func(bool) report) (stop func()) {
	t.Helper()
	s, err := listenStatus(path, status)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run() = %v; want nil", err)
		}
		done <- nil // for the next call
	}
	t.Cleanup(stop)
	return stop
}

func TestStatusOverSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "new", "s.sock")
	stop := serve(t, path, func(all bool) report {
		r := testReport()
		if !all {
			r.Fronts, r.Servers = nil, nil
		}
		return r
	})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v; want 0600", info.Mode(), err)
	}
	tests := []struct {
		name      string
		output    string
		all       bool
		want, not string
	}{
		{"table", "table", false, "Services     2", "10.244.1.1:8080"},
		{"table of all", "table", true, "10.244.1.1:8080", "{"},
		{"json", "json", false, `"services": 2`, "fronts"},
		{"json of all", "json", true, `"frontEnd": "10.96.0.1:80/tcp"`, "FRONT END"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if err := showStatus(t.Context(), path, tt.output, tt.all, &out); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), tt.want) || strings.Contains(out.String(), tt.not) {
				t.Errorf("showStatus() prints\n%s\nwant %q in it, and not %q", out.String(), tt.want, tt.not)
			}
		})
	}
	stop()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is there after the end: %v", err)
	}
}

func TestListenStatus(t *testing.T) {
	status := func(bool) report { return report{} }
	t.Run("bad another daemon answers", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "s.sock")
		serve(t, path, status)
		if _, err := listenStatus(path, status); err == nil || !strings.Contains(err.Error(), "another nftproxy answers on "+path) {
			t.Errorf("listenStatus() = %v; want it to name the other one", err)
		}
	})
	t.Run("bad a file is in the way", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "s.sock")
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listenStatus(path, status); err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("listenStatus() = %v; want a refusal", err)
		}
		if b, err := os.ReadFile(path); string(b) != "precious" {
			t.Errorf("the file holds %q, %v; want it untouched", b, err)
		}
	})
	t.Run("OK a dead daemon left its socket", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "s.sock")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		serve(t, path, status)
	})
}

// TestStatusGivesUp asks something that takes the connection and says nothing.
func TestStatusGivesUp(t *testing.T) {
	path := filepath.Join(socketDir(t), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err = showStatus(ctx, path, "table", false, &strings.Builder{})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), path) {
		t.Errorf("showStatus() = %v; want a deadline and the path", err)
	}
}

func TestLock(t *testing.T) {
	// A real daemon may hold the real lock of this network namespace.
	name := fmt.Sprintf("@nftproxy-test-%d", os.Getpid())
	l, err := takeLock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(name); err == nil || !strings.Contains(err.Error(), "another nftproxy (pid ") {
		t.Errorf("takeLock() = %v; want a refusal that names the holder", err)
	}
	l.Close()
	again, err := takeLock(name)
	if err != nil {
		t.Fatalf("takeLock() after the holder went = %v; want the lock", err)
	}
	again.Close()
}

func TestWriteReport(t *testing.T) {
	r := testReport()
	r.Healthy, r.Ready = true, true
	tests := []struct {
		name   string
		change func(*report)
		want   string
	}{
		{"waiting", func(r *report) { r.Ready = false }, "waiting for the Services"},
		{"failing", func(r *report) { r.LastError = "commit: no buffer" }, "FAILING: commit: no buffer"},
		{"starting", func(r *report) { r.Healthy = false }, "starting"},
		{"refused", func(*report) {}, "but for 1 front ends"},
		{"well", func(r *report) { r.Refused = nil }, "in line with the input\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := r
			tt.change(&r)
			var out strings.Builder
			if err := writeReport(&out, &r, r.Started); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), tt.want) {
				t.Errorf("writeReport() prints\n%s\nwant %q in it", out.String(), tt.want)
			}
		})
	}
}

// TestWriteReportWhole is what a person sees.
func TestWriteReportWhole(t *testing.T) {
	r := testReport()
	r.Healthy, r.Ready = true, true
	want := `Daemon       nftproxy v1, pid 7, on node node-1, up 2m
State        in line with the input, but for 1 front ends that the kernel refused
Services     2
Front ends   3
Endpoints    4
By IPVS      1 Services (lc)
No IPVS for  1 Services (mh), 2 Services (sed)
Last sync    1m ago: 9 steps in 1.235ms
Syncs        5, 1 failed

REFUSED BY THE KERNEL  SERVICE      FOR  ATTEMPTS  REASON
10.96.0.2:80/tcp       default/db:  30s  3         file exists

CLAIMED TWICE    HELD BY      NOT SERVED FOR
192.0.2.1:1/udp  default/a:x  default/b:y

SERVICE           FRONT END         BY        SCHEDULER  ENDPOINTS                        LOCAL
default/web:http  10.96.0.1:80/tcp  ipvs      lc         10.244.1.1:8080,10.244.1.2:8080  10.244.1.1:8080
default/none:     10.96.0.9:80/tcp  nftables  random     reject

VIRTUAL SERVER    SERVICE                    SCHEDULER  AFFINITY  DESTINATION      WEIGHT  ACTIVE  INACTIVE
TCP 10.96.0.1:80  default/web                lc         3h0m0s    10.244.1.1:8080  1       2       3
                                                                  10.244.1.2:8080  0       1       0
TCP 10.96.0.8:80  none: its connections end  rr         none      none

PROBLEMS IN THE INPUT
manifests: a.yaml:2: Service default/b: spec.ports[0].port: is 70000
`
	var out strings.Builder
	if err := writeReport(&out, &r, r.Started.Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("writeReport differs (-want +got):\n%s", diff)
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "0s"},
		{1499 * time.Millisecond, "1s"},
		{90 * time.Second, "2m"},
		{3 * time.Hour, "3h0m"},
		{50 * time.Hour, "2d"},
	}
	for _, tt := range tests {
		if got := ago(now, now.Add(-tt.d)); got != tt.want {
			t.Errorf("ago(%v) = %q; want %q", tt.d, got, tt.want)
		}
	}
}
