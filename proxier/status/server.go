package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// defaultRetry is how long a Server waits before it tries again to listen; slow is how long it waits
// for a request that a client began.
const (
	defaultRetry = 5 * time.Second
	slow         = 5 * time.Second
)

// A Server answers on one address.
type Server struct {
	// Name says in messages what the server is for.
	Name string
	// Address is an address and port. 0.0.0.0 and [::] stand for all addresses of both families.
	Address string
	Handler http.Handler
	// HardFail has Run fail if it cannot listen. Otherwise it tries again and again.
	HardFail bool
	// Failed is told when the server cannot listen, once; nil for nobody.
	Failed func(error)
	Log    *zap.Logger
	// retry is how long to wait before trying again to listen; 0 for 5 seconds.
	retry time.Duration
}

// Run answers until the context ends.
func (s *Server) Run(ctx context.Context) error {
	var last string
	for {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		err = fmt.Errorf("%s server: %w", s.Name, err)
		if err.Error() != last {
			last = err.Error()
			s.Log.Error("a server does not answer", zap.Error(err), zap.Bool("again", !s.HardFail))
			if s.Failed != nil {
				s.Failed(err)
			}
		}
		if s.HardFail {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(cmp.Or(s.retry, defaultRetry)):
		}
	}
}

// serve answers until the context ends or listening fails.
func (s *Server) serve(ctx context.Context) error {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", s.Address)
	if err != nil {
		return err
	}
	h := http.Server{Handler: s.Handler, ReadHeaderTimeout: slow}
	stop := context.AfterFunc(ctx, func() { _ = h.Close() })
	defer stop()
	s.Log.Info("listening", zap.String("server", s.Name), zap.Stringer("address", l.Addr()))
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
