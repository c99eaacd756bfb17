package main

import (
	"context"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/nft/kernel"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// firstSync returns a channel that is closed after the first sync that succeeded. It must be called
// before the engine runs.
func firstSync(engine *proxier.Engine) <-chan struct{} {
	synced, done := make(chan struct{}), false
	engine.Observe(func(s proxier.Sync) {
		if s.Err == nil && !done {
			done = true
			close(synced)
		}
	})
	return synced
}

// watchForeign has the engine look at the kernel whenever somebody else changes our tables. It begins
// after the first sync: somebody who listens makes the large first transaction two or three times
// slower. Without it the proxy works, so a failure is no error.
func watchForeign(ctx context.Context, synced <-chan struct{}, conn *kernel.Conn, engine *proxier.Engine, log *zap.Logger) error {
	select {
	case <-ctx.Done():
		return nil
	case <-synced:
	}
	err := conn.Watch(ctx, kernel.Config{}, plan.TableName, func() {
		log.Warn("somebody else changed our tables, or may have; looking at the kernel")
		engine.Distrust()
	})
	if err != nil {
		log.Error("changes of our tables by others will not be noticed", zap.Error(err))
	}
	return nil
}
