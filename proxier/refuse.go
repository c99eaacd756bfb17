package proxier

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// The back-off after a failed transaction and for refused front ends.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = time.Minute
)

// maxRefusals is how many front ends are left out of one transaction before the engine takes the
// fault to be elsewhere.
const maxRefusals = 1000

// A refusal is a front end, or a Service's virtual servers, that the kernel refused.
type refusal struct {
	reason   string
	since    time.Time
	attempts int
	retry    time.Time
}

// refuse notes the front end of a step that the kernel refused, so that the next attempt leaves it
// out. It reports false if the error is no such refusal.
func (e *Engine) refuse(want *plan.State, err error, now time.Time) bool {
	var r *nft.RefusedError
	if !errors.As(err, &r) || r.Op.Element == nil || r.Op.Set == nil {
		return false
	}
	front, ok := want.Owner(r.Op.Family, r.Op.Set.Name, r.Op.Element)
	if !ok || len(e.refused) >= maxRefusals {
		return false
	}
	if r.Op.Verb == nft.Delete {
		// What we thought to be there is not: only a look at the kernel helps.
		return false
	}
	old := e.refused[front]
	if old == nil {
		old = &refusal{since: now}
		e.refused[front] = old
		service, address := want.Service(front)
		e.log.Error("the kernel refused a front end; it is left out", zap.Stringer("service", service), zap.String("frontEnd", address), zap.Error(err))
	}
	old.reason = r.Error()
	old.attempts++
	old.retry = now.Add(backOff(old.attempts))
	return true
}

// withheld returns the front ends to leave out now: those whose time to be tried again has not come.
func (e *Engine) withheld(now time.Time) map[plan.FrontEnd]bool {
	keys := map[plan.FrontEnd]bool{}
	for front, r := range e.refused {
		if r.retry.After(now) {
			keys[front] = true
		}
	}
	return keys
}

// accept takes back the refusals that were tried again without a new one.
func (e *Engine) accept(now time.Time) {
	for front, r := range e.refused {
		if !r.retry.After(now) {
			delete(e.refused, front)
			service, address := e.have.Service(front)
			e.log.Info("the kernel takes a front end that it refused", zap.Stringer("service", service), zap.String("frontEnd", address))
		}
	}
}

// forget drops the refusals of front ends that no Service claims any more.
func (e *Engine) forget(want *plan.State) {
	for front := range e.refused {
		if service, _ := want.Service(front); service == (model.Name{}) {
			delete(e.refused, front)
		}
	}
}

// backOff returns how long to wait after a number of failures in a row.
func backOff(failures int) time.Duration {
	return min(lastRetry, firstRetry<<min(failures-1, 10))
}

// refusals returns which Services the kernel refused. That something is there already, or is not, says
// nothing about the Service, but that somebody else changed it.
func (s *servers) refusals(failed []ipvs.OpError, want *plan.State) (map[model.Name]error, error) {
	refused := map[model.Name]error{}
	for _, f := range failed {
		owner, ok := want.ServerOwner(f.Op.Key)
		stale := errors.Is(f.Err, unix.EEXIST) || errors.Is(f.Err, unix.ESRCH) || f.Op.Verb == ipvs.SetDest && errors.Is(f.Err, unix.ENOENT)
		if !ok || stale {
			s.known = false
			return nil, fmt.Errorf("change virtual servers: %w", f)
		}
		if refused[owner] == nil {
			refused[owner] = f
		}
	}
	return refused, nil
}

// refuse notes a Service that does without IPVS for a while.
func (s *servers) refuse(name model.Name, err error, now time.Time) {
	old := s.unfit[name]
	if old == nil {
		old = &refusal{since: now}
		s.unfit[name] = old
		s.log.Error("the kernel refused a virtual server; nftables serves the Service", zap.Stringer("service", name), zap.Error(err))
	}
	old.reason = err.Error()
	old.attempts++
	old.retry = now.Add(backOff(old.attempts))
}

// withheld returns the Services that do without IPVS now.
func (s *servers) withheld(now time.Time) map[model.Name]bool {
	names := map[model.Name]bool{}
	for name, r := range s.unfit {
		if r.retry.After(now) {
			names[name] = true
		}
	}
	return names
}

// accept takes back the refusals that were tried again without a new one, or that concern nothing any
// more.
func (s *servers) accept(now time.Time, services model.Map[model.Name, *model.Service]) {
	for name, r := range s.unfit {
		_, there := services.Get(name)
		if !there {
			delete(s.unfit, name)
		} else if !r.retry.After(now) {
			delete(s.unfit, name)
			s.log.Info("the kernel takes a virtual server that it refused", zap.Stringer("service", name))
		}
	}
}
