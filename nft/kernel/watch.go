package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/nftproxy/nftproxy/nft/wire"
	"golang.org/x/sys/unix"
)

const (
	// watchQueue is how many bytes of foreign events the kernel may keep for us. More count as a
	// change, whatever they are.
	watchQueue = 1 << 20
	// watchPause is the shortest time between two reports, so that a program that never stops to
	// change our tables does not keep us from everything else.
	watchPause = 50 * time.Millisecond
)

// Watch calls changed whenever somebody else changes, or makes or removes, a table of a name, until ctx
// ends. The transactions of the Conn do not count, nor do other tables, nor elements that packets add or
// that time out. What comes at once is reported once. Events that were lost count as a change, and so
// does a transaction of anybody between the last Load or Commit and the beginning of the watch.
//
// Any listener makes the kernel write an event for each step of every transaction: begin after the
// first load, which is the large one.
func (c *Conn) Watch(ctx context.Context, cfg Config, name string, changed func()) error {
	w, err := c.listen(cfg, name)
	if err != nil {
		return fmt.Errorf("watch table %s: %w", name, err)
	}
	if err := w.run(ctx, c.disturbed, changed); err != nil {
		return fmt.Errorf("watch table %s: %w", name, err)
	}
	return nil
}

// disturbed reports whether the kernel may have done a transaction that is not ours since the last
// Load.
func (c *Conn) disturbed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.generation()
	return err != nil || now != c.gen
}

// A watcher is a socket that hears of the transactions of others.
type watcher struct {
	sock *wire.Socket
	name string
}

// listen joins the multicast group of nf_tables with a socket that does not hear what c does.
func (c *Conn) listen(cfg Config, name string) (*watcher, error) {
	ours, ok := c.sock.(*wire.Socket)
	if !ok {
		return nil, fmt.Errorf("%T has no events", c.sock)
	}
	s, err := wire.Open(unix.NETLINK_NETFILTER, cfg.NetNS, watchQueue)
	if err != nil {
		return nil, err
	}
	w := &watcher{sock: s, name: name}
	if err := w.join(ours.Conn.PID()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return w, nil
}

// join has the kernel drop the events of a port id before they take room, and joins the group.
func (w *watcher) join(ours uint32) error {
	filter := eventFilter(ours)
	var err error
	if e := w.sock.Raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("attach a filter for our own events: %w", err)
	}
	if err := w.sock.Conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("join the events of nf_tables: %w", err)
	}
	return nil
}

// eventFilter returns the program that drops datagrams whose first message is an event caused by a
// port id. All events of a datagram have the same cause.
func eventFilter(ours uint32) []unix.SockFilter {
	const offsetPID = 12 // in struct nlmsghdr, in the byte order of the machine; BPF reads big-endian
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		ours = bits.ReverseBytes32(ours)
	}
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetPID},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: ours},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
}

// run calls changed for what there is to report until ctx ends, and closes the socket.
func (w *watcher) run(ctx context.Context, disturbed func() bool, changed func()) error {
	defer w.sock.Close()
	stop := context.AfterFunc(ctx, func() { _ = w.sock.Conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if disturbed() {
		changed()
	}
	for {
		found, err := w.burst()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case !found:
			continue
		}
		changed()
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// burst waits for events and reads all that are there. It reports whether any concerns our tables.
func (w *watcher) burst() (found bool, err error) {
	found, err = w.receive(w.sock.Wait)
	for err == nil {
		var more bool
		more, err = w.receive(w.sock.Receive)
		found = found || more
	}
	if errors.Is(err, unix.EAGAIN) {
		err = nil
	}
	return found, err
}

// receive reads one datagram and reports whether it concerns our tables.
func (w *watcher) receive(read func() ([]byte, error)) (bool, error) {
	events, err := read()
	switch {
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EMSGSIZE):
		return true, nil // events were lost
	case err != nil:
		return false, err
	}
	return concerns(events, w.name), nil
}

// concerns reports whether one of the events in b is about a table.
func concerns(b []byte, table string) bool {
	for msg := range wire.Messages(b) {
		typ := msg.Type()
		if typ>>8 != unix.NFNL_SUBSYS_NFTABLES || typ == nftType(unix.NFT_MSG_NEWGEN) || len(msg) < headers {
			continue
		}
		// The attribute with the table's name has the number 1 in all messages: NFTA_TABLE_NAME,
		// NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE, NFTA_OBJ_TABLE.
		if string(wire.CString(wire.Find(msg[headers:], unix.NFTA_TABLE_NAME))) == table {
			return true
		}
	}
	return false
}
