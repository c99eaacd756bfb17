package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"github.com/nftproxy/nftproxy/e2e/netns"
	"golang.org/x/sys/unix"
)

// message returns a message with a body.
func message(typ uint16, seq uint32, body ...byte) Message {
	b := append(OpenMessage(nil, typ, unix.NLM_F_REQUEST, seq), body...)
	CloseMessage(b, 0)
	return b
}

// status returns the message that ends with a number.
func status(typ uint16, n int32) Message {
	return message(typ, 7, binary.NativeEndian.AppendUint32(nil, uint32(n))...)
}

func TestMessages(t *testing.T) {
	two := append(Pad(message(16, 1, 0xff)), message(17, 2)...)
	short := message(16, 1)
	binary.NativeEndian.PutUint32(short, HeaderSize-1)
	tests := []struct {
		name string
		in   []byte
		want []uint32 // the numbers
	}{
		{"OK two", two, []uint32{1, 2}},
		{"OK no padding at the end", two[:17], []uint32{1}},
		{"bad second is cut off", two[:len(two)-1], []uint32{1}},
		{"bad shorter than its header", short, nil},
		{"bad empty", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []uint32
			for m := range Messages(tt.in) {
				got = append(got, m.Seq())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Messages() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMessageHeader(t *testing.T) {
	b := append([]byte("before"), OpenMessage(nil, 16, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, 7)...)
	b = append(b, 1, 2, 3, 4)
	CloseMessage(b, 6)
	m := Message(b[6:])
	m.SetSeq(9)
	m.Acknowledge()
	var got netlink.Message
	if err := got.UnmarshalBinary(m); err != nil {
		t.Fatal(err)
	}
	want := netlink.Message{
		Header: netlink.Header{Length: 20, Type: 16, Flags: netlink.Request | netlink.Dump | netlink.Acknowledge, Sequence: 9},
		Data:   []byte{1, 2, 3, 4},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if m.Type() != 16 || m.Flags() != uint16(want.Header.Flags) || m.Seq() != 9 {
		t.Errorf("Type, Flags, Seq = %d, %#x, %d", m.Type(), m.Flags(), m.Seq())
	}
}

func TestErr(t *testing.T) {
	tests := []struct {
		name string
		in   Message
		want error
	}{
		{"ack", status(unix.NLMSG_ERROR, 0), nil},
		{"refused", status(unix.NLMSG_ERROR, -int32(unix.EEXIST)), unix.EEXIST},
		{"dump that failed", status(unix.NLMSG_DONE, -int32(unix.ENOENT)), unix.ENOENT},
		{"no error", status(unix.NLMSG_DONE, 2), nil},
		{"no room for an error", message(unix.NLMSG_DONE, 7, 1, 2, 3), nil},
	}
	for _, tt := range tests {
		if got := tt.in.Err(); got != tt.want {
			t.Errorf("%s: Err() = %v; want %v", tt.name, got, tt.want)
		}
	}
}

// What is appended is what another library reads.
func TestAppend(t *testing.T) {
	b := AppendBytes(nil, 1, []byte{1, 2, 3})
	b = AppendString(b, 2, "four")
	b = AppendUint16(b, 3, 0x0102)
	b = AppendUint32(b, 4, 0x01020304)
	b = AppendNativeUint16(b, 5, 0x0102)
	b = AppendNativeUint32(b, 6, 0x01020304)
	b = AppendAddr(b, 7, netip.MustParseAddr("10.0.0.1"))
	b = AppendAddr(b, 8, netip.MustParseAddr("fd00::1"))
	b, start := OpenNested(b, 9)
	b = AppendUint32(b, 1, 5)
	CloseNested(b, start)
	want := []netlink.Attribute{
		{Length: 7, Type: 1, Data: []byte{1, 2, 3}},
		{Length: 9, Type: 2, Data: []byte("four\x00")},
		{Length: 6, Type: 3, Data: []byte{1, 2}},
		{Length: 8, Type: 4, Data: []byte{1, 2, 3, 4}},
		{Length: 6, Type: 5, Data: binary.NativeEndian.AppendUint16(nil, 0x0102)},
		{Length: 8, Type: 6, Data: binary.NativeEndian.AppendUint32(nil, 0x01020304)},
		{Length: 8, Type: 7, Data: []byte{10, 0, 0, 1}},
		{Length: 20, Type: 8, Data: append([]byte{0xfd}, append(make([]byte, 14), 1)...)},
		{Length: 12, Type: 9 | unix.NLA_F_NESTED, Data: AppendUint32(nil, 1, 5)},
	}
	got, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	i := 0
	for typ, data := range Attrs(b) {
		if typ != want[i].Type&^unix.NLA_F_NESTED || string(data) != string(want[i].Data) {
			t.Errorf("Attrs(): %d is %d, %x; want %d, %x", i, typ, data, want[i].Type, want[i].Data)
		}
		i++
	}
	if i != len(want) {
		t.Errorf("Attrs() yields %d attributes; want %d", i, len(want))
	}
	if got := Find(b, 2); string(CString(got)) != "four" {
		t.Errorf("Find(2) = %q; want the string", got)
	}
	if got := Find(b, 77); got != nil {
		t.Errorf("Find(missing) = %x; want nil", got)
	}
	if n := testing.AllocsPerRun(100, func() { Find(b, 9) }); n > 0 {
		t.Errorf("Find() allocates %v times; want none", n)
	}
}

// FuzzRead reads any bytes. Nothing may panic, and what is read is within what there is.
func FuzzRead(f *testing.F) {
	f.Add([]byte(status(unix.NLMSG_ERROR, -1)))
	f.Add([]byte(append(message(16, 1, AppendString(nil, 1, "x")...), status(unix.NLMSG_DONE, 0)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for m := range Messages(b) {
			total += len(m)
			_, _ = m.Type(), m.Err()
			inside := HeaderSize
			for typ, data := range Attrs(m[HeaderSize:]) {
				inside += AttrHeaderSize + len(data)
				CString(Find(m[HeaderSize:], typ))
			}
			if inside > len(m) {
				t.Errorf("a message of %d bytes holds %d", len(m), inside)
			}
		}
		if total > len(b) {
			t.Errorf("%d bytes hold messages of %d", len(b), total)
		}
	})
}

// open opens a socket in a new namespace.
func open(t *testing.T) *Socket {
	t.Helper()
	s, err := Open(unix.NETLINK_ROUTE, netns.ForTest(t).FD(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A batch that is longer than the send buffer at first is taken whole, and answered when it is sent.
func TestSendGrows(t *testing.T) {
	s := open(t)
	before, err := s.Conn.WriteBuffer()
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for len(b) < 2*before {
		b = append(b, message(unix.NLMSG_NOOP, 1)...)
	}
	last := message(unix.NLMSG_NOOP, 2)
	last.Acknowledge()
	if err := s.Send(append(b, last...)); err != nil {
		t.Fatal(err)
	}
	part, err := s.Receive()
	if err != nil {
		t.Fatal(err)
	}
	for m := range Messages(part) {
		if m.Type() != unix.NLMSG_ERROR || m.Seq() != 2 || m.Err() != nil {
			t.Errorf("the answer is of type %d, to %d: %v; want an ack to 2", m.Type(), m.Seq(), m.Err())
		}
	}
}

func TestReceiveDoesNotWait(t *testing.T) {
	s := open(t)
	if _, err := s.Receive(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("Receive() of nothing = %v; want EAGAIN", err)
	}
	links := message(unix.RTM_GETLINK, 1, make([]byte, unix.SizeofIfInfomsg)...)
	binary.NativeEndian.PutUint16(links[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := s.Send(links); err != nil {
		t.Fatal(err)
	}
	if part, err := s.Wait(); err != nil || len(part) == 0 {
		t.Errorf("Wait() = %d bytes, %v; want links", len(part), err)
	}
	if err := s.Drain(); err != nil {
		t.Errorf("Drain() = %v; want nil", err)
	}
	if _, err := s.Receive(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("Receive() after Drain() = %v; want EAGAIN", err)
	}
	s.in = s.in[:8]
	if err := s.Send(links); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Receive(); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("Receive() with a short buffer = %v; want EMSGSIZE", err)
	}
}

func TestCloseNothing(t *testing.T) {
	var s *Socket
	if err := s.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
}
