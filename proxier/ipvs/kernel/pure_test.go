package kernel

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	cloudflare "github.com/cloudflare/ipvs"
	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft/wire"
	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// attrMap returns attributes by type.
func attrMap(t *testing.T, b []byte) map[uint16][]byte {
	t.Helper()
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		t.Fatalf("attributes: %v", err)
	}
	r := map[uint16][]byte{}
	for _, a := range list {
		r[a.Type] = a.Data
	}
	return r
}

// host returns numbers of 32 bits, one after another.
func host(v ...uint32) []byte {
	var b []byte
	for _, n := range v {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	return b
}

// host16 returns a number of 16 bits.
func host16(v uint16) []byte { return binary.NativeEndian.AppendUint16(nil, v) }

func TestAppendOp(t *testing.T) {
	key := ipvs.Key{Protocol: model.TCP, Addr: netip.MustParseAddrPort("10.96.0.1:80")}
	six := ipvs.Key{Protocol: model.SCTP, Addr: netip.MustParseAddrPort("[fd00::1]:80")}
	address := map[uint16][]byte{serviceFamily: host16(unix.AF_INET), serviceProtocol: host16(6), serviceAddr: {10, 96, 0, 1}, servicePort: {0, 80}}
	with := func(more map[uint16][]byte) map[uint16][]byte {
		r := map[uint16][]byte{}
		for _, m := range []map[uint16][]byte{address, more} {
			for k, v := range m {
				r[k] = v
			}
		}
		return r
	}
	tests := []struct {
		name          string
		op            ipvs.Op
		service, dest map[uint16][]byte
	}{
		{
			"add a server",
			ipvs.Op{Verb: ipvs.AddServer, Key: key, Server: ipvs.Server{Scheduler: "rr"}},
			with(map[uint16][]byte{serviceScheduler: []byte("rr\x00"), serviceFlags: host(0, 0xffffffff), serviceTimeout: host(0), serviceNetmask: host(0xffffffff)}), nil,
		},
		{
			"set a server with affinity and fallback",
			ipvs.Op{Verb: ipvs.SetServer, Key: six, Server: ipvs.Server{Scheduler: "mh", Persistence: 3 * time.Hour}},
			with(map[uint16][]byte{
				serviceFamily: host16(unix.AF_INET6), serviceProtocol: host16(132), serviceAddr: append([]byte{0xfd}, append(make([]byte, 14), 1)...),
				serviceScheduler: []byte("mh\x00"), serviceFlags: host(flagPersistent|flagFallback, 0xffffffff), serviceTimeout: host(10800), serviceNetmask: host(128),
			}),
			nil,
		},
		{"delete a server", ipvs.Op{Verb: ipvs.DeleteServer, Key: key}, address, nil},
		{
			"add a destination",
			ipvs.Op{Verb: ipvs.AddDest, Key: key, Dest: ipvs.Dest{Addr: netip.MustParseAddrPort("10.1.0.1:8080"), Weight: 3}},
			address,
			map[uint16][]byte{
				destFamily: host16(unix.AF_INET), destAddr: {10, 1, 0, 1}, destPort: {0x1f, 0x90},
				destForward: host(0), destWeight: host(3), destUpperLimit: host(0), destLowerLimit: host(0),
			},
		},
		{
			"delete a destination",
			ipvs.Op{Verb: ipvs.DeleteDest, Key: key, Dest: ipvs.Dest{Addr: netip.MustParseAddrPort("10.1.0.1:8080")}},
			address,
			map[uint16][]byte{destFamily: host16(unix.AF_INET), destAddr: {10, 1, 0, 1}, destPort: {0x1f, 0x90}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := attrMap(t, appendOp(nil, &tt.op, tt.op.Verb))
			if diff := cmp.Diff(tt.service, attrMap(t, got[attrService])); diff != "" {
				t.Errorf("service (-want +got):\n%s", diff)
			}
			delete(got, attrService)
			if tt.dest != nil {
				if diff := cmp.Diff(tt.dest, attrMap(t, got[attrDest])); diff != "" {
					t.Errorf("destination (-want +got):\n%s", diff)
				}
				delete(got, attrDest)
			}
			if len(got) > 0 {
				t.Errorf("other attributes: %v", got)
			}
		})
	}
}

func TestBatch(t *testing.T) {
	var b batch
	b.reset(7)
	server := ipvs.Op{Key: ipvs.Key{Addr: netip.MustParseAddrPort("10.96.0.1:80")}}
	address := ipvs.Op{Verb: ipvs.AddAddress, Address: netip.MustParseAddr("fd00::1")}
	b.addOp(4, 31, &server, ipvs.SetServer)
	b.addAddress(9, 3, &address)
	b.acknowledge()
	first := int(binary.NativeEndian.Uint32(b.buf))
	var got []netlink.Header
	for rest := b.buf; len(rest) > 0; {
		var m netlink.Message
		n := binary.NativeEndian.Uint32(rest)
		if err := m.UnmarshalBinary(rest[:n]); err != nil {
			t.Fatal(err)
		}
		m.Header.Length = 0
		got, rest = append(got, m.Header), rest[n:]
	}
	want := []netlink.Header{
		{Type: 31, Flags: netlink.Request, Sequence: 7},
		{Type: unix.RTM_NEWADDR, Flags: netlink.Request | netlink.Create | netlink.Excl | netlink.Acknowledge, Sequence: 8},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{4, 9}, b.steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if got, want := b.buf[16:20], []byte{cmdSetService, genericVersion, 0, 0}; !cmp.Equal(got, want) {
		t.Errorf("generic header = %v; want %v", got, want)
	}
	body := b.buf[first+16:]
	if diff := cmp.Diff(append([]byte{unix.AF_INET6, 128, 0, unix.RT_SCOPE_HOST}, host(3)...), body[:8]); diff != "" {
		t.Errorf("ifaddrmsg (-want +got):\n%s", diff)
	}
	got6 := attrMap(t, body[8:])
	if diff := cmp.Diff(host(0, ^uint32(0), 0, 0), got6[unix.IFA_CACHEINFO]); diff != "" {
		t.Errorf("lifetimes (-want +got):\n%s", diff)
	}
}

// answer returns an answer of the kernel.
func answer(seq uint32, code int32) []byte {
	b := host(36, 0, seq, 0, uint32(code), 0, 0, 0, 0)
	binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_ERROR)
	return b
}

func TestRead(t *testing.T) {
	b := batch{first: 100, steps: []int{5, 6, 8}}
	errs := map[int]error{}
	for _, m := range [][]byte{nil, answer(99, -1), answer(103, -1), answer(100, -int32(unix.EEXIST)), answer(101, 0), answer(102, -int32(unix.ESRCH))[:18]} {
		if b.read(m, errs) {
			t.Fatalf("read(%v) = true; want false", m)
		}
	}
	if !b.read(append(answer(1, -1), answer(102, -int32(unix.ESRCH))...), errs) {
		t.Error("read of the last answer = false; want true")
	}
	if diff := cmp.Diff(map[int]error{5: unix.EEXIST, 8: unix.ESRCH}, errs); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

// FuzzRead reads any answer.
func FuzzRead(f *testing.F) {
	f.Add(answer(100, -1))
	f.Add(append(answer(100, 0), answer(101, -2)...))
	f.Add(host(1, 2, 100, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := batch{first: 100, steps: []int{0, 1}}
		errs := map[int]error{}
		b.read(data, errs)
		for i := range errs {
			if i != 0 && i != 1 {
				t.Errorf("an error of step %d; there are only two", i)
			}
		}
	})
}

func TestReadServer(t *testing.T) {
	type parts struct {
		scheduler            string
		flags, timeout, mask uint32
		more                 []byte
	}
	base := parts{scheduler: "rr", flags: flagHashed, mask: ^uint32(0)}
	tests := []struct {
		name   string
		change func(*parts)
		want   string // empty if it is left out
	}{
		{"as we make it", func(*parts) {}, "TCP 10.96.0.1:80 scheduler rr"},
		{"any mask without affinity", func(p *parts) { p.mask = 0xffffff }, "TCP 10.96.0.1:80 scheduler rr"},
		{"affinity", func(p *parts) { p.flags |= flagPersistent; p.timeout = 60 }, "TCP 10.96.0.1:80 scheduler rr persistent 60"},
		{"affinity by network", func(p *parts) {
			p.flags |= flagPersistent
			p.timeout, p.mask = 60, 0xffffff
		}, "TCP 10.96.0.1:80 scheduler rr persistent 60 foreign"},
		{"one packet", func(p *parts) { p.flags |= 0x4 }, "TCP 10.96.0.1:80 scheduler rr foreign"},
		{"fallback", func(p *parts) { p.flags |= flagFallback; p.scheduler = "sh" }, "TCP 10.96.0.1:80 scheduler sh"},
		{"no fallback", func(p *parts) { p.scheduler = "mh" }, "TCP 10.96.0.1:80 scheduler mh foreign"},
		{"by firewall mark", func(p *parts) { p.more = wire.AppendNativeUint32(nil, serviceFWMark, 1) }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := base
			tt.change(&p)
			b := wire.AppendNativeUint16(nil, serviceFamily, unix.AF_INET)
			b = wire.AppendNativeUint16(b, serviceProtocol, unix.IPPROTO_TCP)
			b = append(wire.AppendHeader(b, serviceAddr, 16), 10, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
			b = wire.AppendUint16(b, servicePort, 80)
			b = wire.AppendString(b, serviceScheduler, p.scheduler)
			b = append(wire.AppendHeader(b, serviceFlags, 8), host(p.flags, ^uint32(0))...)
			b = wire.AppendNativeUint32(b, serviceTimeout, p.timeout)
			b = wire.AppendNativeUint32(b, serviceNetmask, p.mask)
			got := ""
			if key, s, ok := readServer(append(b, p.more...)); ok {
				got = key.String() + " " + s.String()
			}
			if got != tt.want {
				t.Errorf("readServer = %q; want %q", got, tt.want)
			}
		})
	}
}

func TestReadDest(t *testing.T) {
	addr := netip.MustParseAddrPort("[fd01::1]:8080")
	whole := func(forward, upper uint32) []byte {
		b := wire.AppendAddr(nil, destAddr, addr.Addr())
		b = wire.AppendUint16(b, destPort, addr.Port())
		b = wire.AppendNativeUint32(b, destForward, forward)
		b = wire.AppendNativeUint32(b, destWeight, 3)
		b = wire.AppendNativeUint32(b, destUpperLimit, upper)
		b = wire.AppendNativeUint32(b, destLowerLimit, 0)
		b = wire.AppendNativeUint32(b, destActive, 4)
		return wire.AppendNativeUint32(b, destInactive, 5)
	}
	for _, tt := range []struct {
		name   string
		b      []byte
		weight int
	}{
		{"as we make it", whole(0, 0), 3},
		{"tunneled to", whole(2, 0), ipvs.ForeignWeight},
		{"with a limit", whole(0, 7), ipvs.ForeignWeight},
	} {
		to, weight, counts, ok := readDest(tt.b, unix.AF_INET6)
		if want := (ipvs.Counts{Active: 4, Inactive: 5}); !ok || to != addr || weight != tt.weight || counts != want {
			t.Errorf("%s: readDest = %v, %d, %v, %v; want %v, %d, %v", tt.name, to, weight, counts, ok, addr, tt.weight, want)
		}
	}
	for n := range whole(0, 0) {
		if to, _, _, ok := readDest(whole(0, 0)[:n], unix.AF_INET6); ok && n < 20 {
			t.Errorf("readDest of %d bytes = %v; want nothing", n, to)
		}
	}
}

func TestReusesBadly(t *testing.T) {
	for release, want := range map[string]bool{
		"4.0.1": false, "4.1": true, "4.19.0-27-amd64": true, "5.8.18": true, "5.9.0-rc1": false, "6.1.0-18-cloud-amd64": false, "10.0": false, "": false, "x": false,
	} {
		if got := reusesBadly(release); got != want {
			t.Errorf("reusesBadly(%q) = %v; want %v", release, got, want)
		}
	}
	has := func(o Options, release string) bool {
		for _, s := range settings(o, release) {
			if s == (setting{"ipv4/vs/conn_reuse_mode", "0"}) {
				return true
			}
		}
		return false
	}
	if has(Options{}, "6.1") || !has(Options{}, "5.4") {
		t.Error("settings: conn_reuse_mode on the wrong kernels")
	}
}

func TestSet(t *testing.T) {
	dir := t.TempDir()
	if err := set(dir, setting{"missing", "1"}); err != nil {
		t.Errorf("set a sysctl that is missing = %v; want nil", err)
	}
	file := filepath.Join(dir, "there")
	for _, mode := range []os.FileMode{0o600, 0o400} { // the second time there is nothing to write
		if err := os.WriteFile(file, []byte("0\n"), 0o600); err == nil && mode == 0o400 {
			err = os.WriteFile(file, []byte("1\n"), 0o600)
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if err := set(dir, setting{"there", "1"}); err != nil {
			t.Errorf("set = %v; want nil", err)
		}
		if b, _ := os.ReadFile(file); string(b)[0] != '1' {
			t.Errorf("the file holds %q; want 1", b)
		}
	}
	if got := timeouts(Options{TCPTimeout: 15 * time.Minute, UDPTimeout: time.Millisecond}); got != (cloudflare.Config{TCPTimeout: 900, UDPTimeout: 1}) {
		t.Errorf("timeouts = %+v", got)
	}
}
