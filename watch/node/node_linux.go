// Package node is a source of the addresses of this node's interfaces, as they are at any time.
package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/watch"
)

// retry is how long the source waits before it subscribes again after an error.
const retry = time.Second

// A Source reads the addresses of a network namespace.
type Source struct {
	log *zap.Logger
	// namespace is that of the process if it is netns.None().
	namespace netns.NsHandle
}

// New returns a source that reads the network namespace that the process is in.
func New(log *zap.Logger) *Source { return NewIn(netns.None(), log) }

// NewIn returns a source that reads the given network namespace, which stays the caller's to close.
func NewIn(namespace netns.NsHandle, log *zap.Logger) *Source {
	if log == nil {
		log = zap.NewNop()
	}
	return &Source{log: log, namespace: namespace}
}

// String names the source.
func (s *Source) String() string { return "node addresses" }

// Run puts the addresses now and whenever they change, until the context ends. It subscribes again
// and reads all when it was told that it missed something.
func (s *Source) Run(ctx context.Context, put func(watch.Part)) error {
	var last *watch.Part
	for {
		err := s.follow(ctx, func(p watch.Part) {
			if last == nil || last.Waiting || len(last.Problems) > 0 || !slices.Equal(last.Addresses, p.Addresses) {
				put(p)
			}
			last = &p
		})
		if ctx.Err() != nil {
			return nil
		}
		s.log.Warn("lost the node's addresses, reading them again", zap.Error(err))
		if !errors.Is(err, errMissed) {
			p := watch.Part{Waiting: true}
			if last != nil {
				p = *last
			}
			p.Problems = []watch.Problem{{Source: s.String(), Message: err.Error()}}
			put(p)
			last = &p
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retry):
			}
		}
	}
}

// errMissed says that the kernel had more to tell than we could take.
var errMissed = errors.New("missed some changes")

// follow subscribes, puts all addresses, and puts them again after each change. It returns an error
// when the subscription broke, and nil when the context ended.
func (s *Source) follow(ctx context.Context, put func(watch.Part)) error {
	handle, err := s.handle()
	if err != nil {
		return fmt.Errorf("open route netlink: %w", err)
	}
	defer handle.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed, broken := make(chan struct{}, 1), make(chan error, 1)
	if err := s.subscribe(ctx, changed, broken); err != nil {
		return err
	}
	for {
		addresses, err := read(handle)
		if err != nil {
			return err
		}
		put(watch.Part{Addresses: addresses})
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			return err
		case <-changed:
		}
	}
}

// handle returns a socket in the namespace.
func (s *Source) handle() (*netlink.Handle, error) {
	if s.namespace.IsOpen() {
		return netlink.NewHandleAt(s.namespace, unix.NETLINK_ROUTE)
	}
	return netlink.NewHandle(unix.NETLINK_ROUTE)
}

// subscribe signals each change of addresses and links, and the error that ends it, until the
// context ends. What changed is not looked at: all is read again, so that nothing can be missed.
func (s *Source) subscribe(ctx context.Context, changed chan<- struct{}, broken chan<- error) error {
	fail := func(err error) {
		// The library does not wrap the error of the system.
		if strings.Contains(err.Error(), unix.ENOBUFS.Error()) {
			err = errMissed
		}
		select {
		case broken <- err:
		default:
		}
	}
	var at *netns.NsHandle
	if s.namespace.IsOpen() {
		at = &s.namespace
	}
	addrs, links := make(chan netlink.AddrUpdate), make(chan netlink.LinkUpdate)
	if err := netlink.AddrSubscribeWithOptions(addrs, ctx.Done(), netlink.AddrSubscribeOptions{
		Namespace: at, ErrorCallback: fail,
	}); err != nil {
		return fmt.Errorf("subscribe to addresses: %w", err)
	}
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{
		Namespace: at, ErrorCallback: fail,
	}); err != nil {
		go signal(addrs, nil)
		return fmt.Errorf("subscribe to links: %w", err)
	}
	go signal(addrs, changed)
	go signal(links, changed)
	return nil
}

// signal signals that something came out of a channel, until it is closed. The subscription closes
// it when the context ends.
func signal[T any](from <-chan T, to chan<- struct{}) {
	for range from {
		select {
		case to <- struct{}{}:
		default:
		}
	}
}

// read reads the links and addresses that there are now.
func read(handle *netlink.Handle) ([]watch.Address, error) {
	list, err := retryDump(handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make([]link, 0, len(list))
	for _, l := range list {
		links = append(links, link{index: l.Attrs().Index, name: l.Attrs().Name, kind: l.Type()})
	}
	found, err := retryDump(func() ([]netlink.Addr, error) { return handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	addresses := make([]address, 0, len(found))
	for _, a := range found {
		ip, _ := netip.AddrFromSlice(a.IP)
		addresses = append(addresses, address{
			link:     a.LinkIndex,
			addr:     ip.Unmap(),
			unusable: a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0,
		})
	}
	return process(links, addresses), nil
}

// retryDump repeats a dump that was torn by a change in between, a few times.
func retryDump[T any](dump func() ([]T, error)) ([]T, error) {
	const tries = 10
	for i := 0; ; i++ {
		list, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || i == tries {
			return list, err
		}
	}
}
