package main

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
	ctkernel "github.com/nftproxy/nftproxy/proxier/conntrack/kernel"
)

// cleanConntrack returns the task that deletes stale UDP entries of connection tracking after the
// engine's syncs, and tells passed of each pass. It must be called before the engine runs.
func cleanConntrack(engine *proxier.Engine, log *zap.Logger, passed func(conntrack.Pass)) (func(context.Context) error, error) {
	conn, err := ctkernel.Dial(ctkernel.Config{})
	if err != nil {
		return nil, fmt.Errorf("open conntrack (this needs CAP_NET_ADMIN): %w", err)
	}
	r := conntrack.New(conn, log, passed)
	engine.Observe(r.Observe)
	return func(ctx context.Context) error { return errors.Join(r.Run(ctx), conn.Close()) }, nil
}
