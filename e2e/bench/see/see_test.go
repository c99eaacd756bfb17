package see

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/netns"
)

// nft runs a script in a namespace.
func nft(t *testing.T, ns *netns.NetNS, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := ns.Output(cmd); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// skeleton is a table with a map of front ends.
const skeleton = `table ip demo {
	chain c { }
	map services { type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.1 . tcp . 80 : goto c, 10.96.0.2 . tcp . 80 : goto c } }
	set addresses { type ipv4_addr . inet_service; }
}`

func TestMap(t *testing.T) {
	ns := netns.ForTest(t)
	m, err := OpenMap(ns, "demo", "services")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	check := func(a string, want bool, count int) {
		t.Helper()
		got, err := m.Has(netip.MustParseAddrPort(a))
		if err != nil || got != want {
			t.Errorf("Has(%s) = %v, %v; want %v", a, got, err, want)
		}
		if got, err := m.Count(); err != nil || got != count {
			t.Errorf("Count = %d, %v; want %d", got, err, count)
		}
	}
	check("10.96.0.2:80", false, 0) // no table yet
	nft(t, ns, skeleton)
	check("10.96.0.2:80", true, 2)
	check("10.96.0.2:81", false, 2)
}

func TestEvents(t *testing.T) {
	ns := netns.ForTest(t)
	nft(t, ns, skeleton)
	e, err := Listen(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	endpoint := Target{Service: netip.MustParseAddr("10.96.0.1"), Endpoint: netip.MustParseAddr("100.64.0.7")}
	service := Target{Service: netip.MustParseAddr("10.96.0.2")}
	e.Expect(endpoint, service)
	nft(t, ns, `add element ip demo addresses { 100.64.0.7 . 8080 }`)
	nft(t, ns, `delete element ip demo services { 10.96.0.2 . tcp . 80 }`)
	at, err := e.Wait(ctx, service, endpoint)
	if err != nil || !slices.IsSorted([]int64{at[1], at[0]}) {
		t.Errorf("Wait = %v, %v; want the endpoint before the Service", at, err)
	}
	if got := e.Transactions(); got != 2 {
		t.Errorf("Transactions = %d; want 2", got)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if at, err := e.Wait(short, endpoint); err == nil {
		t.Errorf("Wait for what was seen already = %v; want an error", at)
	}
}

func TestForeign(t *testing.T) {
	ns := netns.ForTest(t)
	stop := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { close(stop) })
	took, err := Foreign(ns, time.Millisecond, stop)
	if err != nil || len(took) < 2 {
		t.Fatalf("Foreign = %v, %v; want several", took, err)
	}
	m, err := OpenMap(ns, foreignTable, foreignSet)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if n, err := m.Count(); err != nil || n != len(took) {
		t.Errorf("the set has %d elements, %v; want %d", n, err, len(took))
	}
}

// TestCPU counts what a process uses itself and in a program that it runs.
func TestCPU(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if !slices.Contains(Children(os.Getpid()), cmd.Process.Pid) {
		t.Errorf("Children = %v; want %d in it", Children(os.Getpid()), cmd.Process.Pid)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		now, err := CPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now-before > 50*time.Millisecond {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a busy program used %v within 20 s", now-before)
		}
	}
	m, err := MemoryOf(os.Getpid())
	if err != nil || m.Now <= 0 || m.Peak < m.Now/2 {
		t.Errorf("MemoryOf = %+v, %v", m, err)
	}
	if n, err := KernelMemory(); err != nil || n <= 0 {
		t.Errorf("KernelMemory = %d, %v", n, err)
	}
}

func TestComplete(t *testing.T) {
	const listing = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:0050 rr
  -> 0A010001:1F90      Masq    1      0          0
  -> 0A010002:1F90      Masq    1      0          0
TCP  0A600002:0050 rr
  -> 0A010003:1F90      Masq    1      0          0
`
	for full, want := range map[int]int{0: 2, 1: 2, 2: 1, 3: 0} {
		if got := complete([]byte(listing), full); got != want {
			t.Errorf("%d virtual servers have %d destinations; want %d", got, full, want)
		}
	}
}
