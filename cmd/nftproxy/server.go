package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// slow is how long either side of the status socket waits for the other.
const slow = 5 * time.Second

// A statusServer answers `nftproxy status` on a unix socket.
type statusServer struct {
	listener net.Listener
	http     http.Server
}

// listenStatus makes the socket. The caller holds the lock of the network namespace, but a daemon in
// another one may use the same path.
func listenStatus(path string, status func(all bool) report) (*statusServer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("--socket: make the directory of %s: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("--socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("--socket: listen on %s: %w", path, err)
	}
	// What is said is not secret, but an open socket would be one more thing to keep an eye on.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("--socket: %w", errors.Join(err, l.Close()))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		// An error means that the client went away.
		_ = e.Encode(status(r.URL.Query().Has("all")))
	})
	return &statusServer{listener: l, http: http.Server{Handler: mux, ReadHeaderTimeout: slow}}, nil
}

// removeStale removes the socket that a daemon left behind that did not end in good order.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	if c, err := net.DialTimeout("unix", path, slow); err == nil {
		return errors.Join(fmt.Errorf("another nftproxy answers on %s; give this one a socket of its own", path), c.Close())
	}
	return os.Remove(path)
}

// run answers until the context ends, and removes the socket.
func (s *statusServer) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answer on %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// askStatus asks the daemon behind a socket and returns what it says, JSON; with all, every front end.
func askStatus(ctx context.Context, path string, all bool) (*http.Response, error) {
	client := http.Client{Timeout: slow, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}
	url := "http://nftproxy/status"
	if all {
		url += "?all"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(r)
	var op *net.OpError
	switch {
	case errors.As(err, &op):
		return nil, fmt.Errorf("no daemon answers on %s (does `nftproxy run` run here, with this --socket?): %w", path, op.Err)
	case err != nil:
		return nil, fmt.Errorf("ask the daemon on %s: %w", path, err)
	case res.StatusCode != http.StatusOK:
		return nil, errors.Join(fmt.Errorf("the daemon on %s answers %s", path, res.Status), res.Body.Close())
	}
	return res, nil
}
