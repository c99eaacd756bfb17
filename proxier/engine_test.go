package proxier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/fake"
	ipvsfake "github.com/nftproxy/nftproxy/proxier/ipvs/fake"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// snapshot returns Services with the numbers, each with a number of endpoints.
func snapshot(endpoints int, numbers ...int) model.Snapshot {
	var m model.Map[model.Name, *model.Service]
	e := m.Edit()
	for _, n := range numbers {
		s := &model.Service{
			Name:       model.Name{Namespace: "default", Name: fmt.Sprintf("service-%d", n)},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(n)})},
			Ports:      []model.Port{{Name: "http", Protocol: model.TCP, Port: 80}},
		}
		for i := range endpoints {
			s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, model.Endpoint{
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n), byte(i)}), 8080), Ready: true, Serving: true,
			})
		}
		e.Set(s.Name, s)
	}
	return model.Snapshot{Services: e.Map(), Node: &model.Node{Name: "here"}}
}

// config is kube-proxy's default.
var config = plan.Config{MasqueradeBit: 14}

// start runs an Engine inside a synctest bubble and returns it with the channel that feeds it.
func start(t *testing.T, k Kernel) (*Engine, chan model.Snapshot) {
	t.Helper()
	e := New(config, k, &ipvsfake.Kernel{Without: []string{""}}, zaptest.NewLogger(t, zaptest.Level(zap.FatalLevel)))
	ctx, cancel := context.WithCancel(t.Context())
	snapshots := make(chan model.Snapshot, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx, snapshots); err != nil {
			t.Errorf("Run() = %v; want nil", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return e, snapshots
}

// held returns the elements of the map services of the kernel.
func held(t *testing.T, k *fake.Kernel) int {
	t.Helper()
	tables, err := k.Load(plan.TableName)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range tables {
		n += len(tables[i].Elements["services"])
	}
	return n
}

func TestEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fake.Kernel{}
		e, snapshots := start(t, k)
		synctest.Wait()
		if s := e.Status(false); s.Healthy || k.Stats().Commits > 0 {
			t.Fatalf("before the first snapshot: healthy = %v, %d commits; want false, none", s.Healthy, k.Stats().Commits)
		}
		snapshots <- snapshot(3, 1, 2)
		synctest.Wait()
		s := e.Status(true)
		if !s.Healthy || s.Services != 2 || s.FrontEnds != 2 || s.Endpoints != 6 || len(s.Fronts) != 2 {
			t.Errorf("Status() = %+v; want it healthy with 2 services, 2 front ends, 6 endpoints", s)
		}
		if got := k.Stats().Commits; got != 1 {
			t.Errorf("the first load took %d transactions; want 1", got)
		}
		snapshots <- snapshot(3, 1, 2)
		synctest.Wait()
		if got := k.Stats().Commits; got != 1 {
			t.Errorf("the same again: %d transactions; want still 1", got)
		}
		snapshots <- snapshot(3, 2)
		synctest.Wait()
		if got := held(t, k); got != 1 {
			t.Errorf("%d elements in services; want 1", got)
		}
	})
}

// TestEngineRestart runs a second engine on what the first left.
func TestEngineRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fake.Kernel{}
		_, first := start(t, k)
		first <- snapshot(3, 1, 2)
		synctest.Wait()
		before := k.Stats().Commits
		e, second := start(t, k)
		second <- snapshot(3, 1, 2)
		synctest.Wait()
		if got := k.Stats().Commits; got != before {
			t.Errorf("the second engine made %d transactions; want none", got-before)
		}
		if !e.Status(false).Healthy {
			t.Error("the second engine is not healthy")
		}
	})
}

// TestEngineRefused has the kernel refuse one front end: the rest goes in, Status names the Service,
// and it is tried again until the kernel takes it.
func TestEngineRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fake.Kernel{}
		var refuse atomic.Bool
		refuse.Store(true)
		k.Fail = func(op nft.Op) error {
			if refuse.Load() && op.Element != nil && strings.Contains(op.String(), "10.96.0.2 . tcp . 80") {
				return unix.EEXIST
			}
			return nil
		}
		e, snapshots := start(t, k)
		snapshots <- snapshot(3, 1, 2, 3)
		synctest.Wait()
		if got := held(t, k); got != 2 {
			t.Errorf("%d elements in services; want the 2 that are not refused", got)
		}
		s := e.Status(false)
		if !s.Healthy || len(s.Refused) != 1 || s.Refused[0].Service != "default/service-2" || s.Refused[0].FrontEnd != "10.96.0.2:80/tcp" {
			t.Fatalf("Status() = %+v; want it healthy with default/service-2 refused", s)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s = e.Status(false); len(s.Refused) != 1 || s.Refused[0].Attempts < 4 || s.Refused[0].Attempts > 12 {
			t.Errorf("after a minute: %+v; want a few attempts, fewer and fewer", s.Refused)
		}
		refuse.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s = e.Status(false); len(s.Refused) != 0 || held(t, k) != 3 {
			t.Errorf("when the kernel takes it: refused = %v, %d elements; want none, 3", s.Refused, held(t, k))
		}
	})
}

// TestEngineRefusedAndGone forgets a refusal when the Service is deleted.
func TestEngineRefusedAndGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fake.Kernel{Fail: func(op nft.Op) error {
			if op.Element != nil && strings.Contains(op.String(), "10.96.0.2 . tcp . 80") {
				return unix.EINVAL
			}
			return nil
		}}
		e, snapshots := start(t, k)
		snapshots <- snapshot(1, 1, 2)
		synctest.Wait()
		snapshots <- snapshot(1, 1)
		synctest.Wait()
		if s := e.Status(false); len(s.Refused) != 0 || !s.Healthy {
			t.Errorf("Status() = %+v; want nothing refused", s)
		}
	})
}

// TestEngineDistrust clears the kernel behind the engine's back.
func TestEngineDistrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fake.Kernel{}
		e, snapshots := start(t, k)
		snapshots <- snapshot(3, 1, 2)
		synctest.Wait()
		k.Clear()
		e.Distrust()
		synctest.Wait()
		if got := held(t, k); got != 2 {
			t.Errorf("%d elements in services; want 2 again", got)
		}
	})
}

// TestEngineUnusedChains deletes a chain that nothing uses any more, but not at once.
func TestEngineUnusedChains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fake.Kernel{}
		_, snapshots := start(t, k)
		has := func() bool {
			tables, err := k.Load(plan.TableName)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range tables[0].Chains {
				if c.Name == "lb-100" {
					return true
				}
			}
			return false
		}
		snapshots <- snapshot(100, 1)
		synctest.Wait()
		if !has() {
			t.Fatal("no chain lb-100 with 100 endpoints")
		}
		snapshots <- snapshot(3, 1)
		synctest.Wait()
		if !has() {
			t.Error("chain lb-100 went with its last element; want it deleted later")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if has() {
			t.Error("chain lb-100 is still there when nothing uses it")
		}
	})
}

// TestEngineForeignElement has an element in the kernel that the engine does not know of and that is
// in the way: it is found when the engine looks again.
func TestEngineForeignElement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fake.Kernel{}
		e, snapshots := start(t, k)
		snapshots <- snapshot(1, 1)
		synctest.Wait()
		tables, err := k.Load(plan.TableName)
		if err != nil {
			t.Fatal(err)
		}
		foreign := nft.Element{Key: nft.Value{}.Addr(netip.MustParseAddr("10.96.0.2")).Proto(6).Port(80), Data: nft.Value{}.Uint32(7)}
		err = k.Commit(func(yield func(nft.Op) bool) {
			yield(nft.Op{Family: nft.IPv4, Name: plan.TableName, Set: &tables[0].Sets[0], Element: &foreign})
		})
		if err != nil {
			t.Fatal(err)
		}
		snapshots <- snapshot(1, 1, 2)
		synctest.Wait()
		if s := e.Status(false); len(s.Refused) != 1 || s.Refused[0].Service != "default/service-2" {
			t.Fatalf("Status() = %+v; want default/service-2 refused", s)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := e.Status(false); len(s.Refused) != 0 || !s.Healthy || held(t, k) != 2 {
			t.Errorf("Status() = %+v; want nothing refused any more", s)
		}
	})
}

// TestEngineConflicts logs who claims the same front end, once when it begins and once when it ends.
func TestEngineConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		e := New(config, &fake.Kernel{}, &ipvsfake.Kernel{}, zap.New(core))
		snapshots := make(chan model.Snapshot, 1)
		go func() { _ = e.Run(t.Context(), snapshots) }()
		one := snapshot(1, 1)
		name := model.Name{Namespace: "default", Name: "service-1"}
		service, _ := one.Services.Get(name)
		twin := *service
		twin.Name.Name = "twin"
		edit := one.Services.Edit()
		edit.Set(twin.Name, &twin)
		two := model.Snapshot{Services: edit.Map(), Node: one.Node}
		for _, s := range []model.Snapshot{one, two, two, one, one} {
			snapshots <- s
			synctest.Wait()
		}
		var got []string
		for _, entry := range logs.FilterFieldKey("servedBy").All() {
			got = append(got, fmt.Sprint(entry.Level, " ", entry.ContextMap()))
		}
		want := []string{
			"warn map[frontEnd:10.96.0.1:80/tcp notServed:default/twin servedBy:default/service-1]",
			"info map[frontEnd:10.96.0.1:80/tcp notServed:default/twin servedBy:default/service-1]",
		}
		if !slices.Equal(got, want) {
			t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// deaf is a kernel that cannot be read.
type deaf struct{ fake.Kernel }

func (*deaf) Load(string) ([]nft.Table, error) { return nil, errors.New("no answer") }

// TestEngineNoKernel keeps trying and says so.
func TestEngineNoKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, snapshots := start(t, &deaf{})
		snapshots <- snapshot(1, 1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s := e.Status(false)
		if s.Healthy || s.LastError != "read the ruleset: no answer" || s.Failures < 3 {
			t.Errorf("Status() = %+v; want it unhealthy with the error and some failures", s)
		}
	})
}

// TestEngineSurvives has one in ten transactions fail, one way or the other, over a random walk: in
// the end the kernel holds what a fresh engine wants.
func TestEngineSurvives(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			k := &fake.Kernel{Refuse: 0.1, Lose: 0.1, Rand: rand.New(rand.NewPCG(seed, 2))}
			e, snapshots := start(t, k)
			var last model.Snapshot
			for range 40 {
				var numbers []int
				for n := range 8 {
					if random.IntN(2) == 0 {
						numbers = append(numbers, n)
					}
				}
				last = snapshot(random.IntN(70), numbers...)
				snapshots <- last
				synctest.Wait()
			}
			// The faults go on: what fails now is tried again until it does not.
			time.Sleep(time.Hour)
			synctest.Wait()
			if s := e.Status(false); !s.Healthy || len(s.Refused) > 0 {
				t.Fatalf("seed %d: Status() = %+v; want it healthy, with nothing refused", seed, s)
			}
			tables, err := k.Load(plan.TableName)
			if err != nil {
				t.Fatal(err)
			}
			want := plan.Compile(config, last, plan.Recall(tables))
			if p := plan.DiffTables(tables, want); !p.Empty() {
				t.Errorf("seed %d: the kernel differs from the last snapshot:\n%s%s", seed, p.Tx, p.Later)
			}
		})
	}
}

// TestSyncTells expects observers to hear of reads of the kernel and of chains that could not be deleted.
func TestSyncTells(t *testing.T) {
	e := New(config, &fake.Kernel{}, &ipvsfake.Kernel{}, zaptest.NewLogger(t, zaptest.Level(zap.FatalLevel)))
	var got []Sync
	e.Observe(func(s Sync) { got = append(got, s) })
	e.snapshot = snapshot(1, 1)
	e.sync(time.Now())
	e.cleanups = 2
	e.have = nil
	e.sync(time.Now())
	e.sync(time.Now())
	if len(got) != 3 || !got[0].Looked || got[0].State == nil || got[0].Cleanups != 0 || got[1].Cleanups != 2 || got[2].Cleanups != 0 {
		t.Errorf("observed %+v; want three, two failed deletions before the second", got)
	}
}

// What the kernel held is told to observers once, when it was read.
func TestFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		udp := func(numbers ...int) model.Snapshot {
			s := snapshot(1, numbers...)
			e := s.Services.Edit()
			for name, service := range s.Services.All() {
				c := *service
				c.Ports = []model.Port{c.Ports[0]}
				c.Ports[0].Protocol = model.UDP
				e.Set(name, &c)
			}
			s.Services = e.Map()
			return s
		}
		k := &fake.Kernel{}
		for _, want := range []int{0, 2} { // a daemon, and the next one
			e := New(config, k, &ipvsfake.Kernel{}, zap.NewNop())
			var syncs []Sync
			e.Observe(func(s Sync) { syncs = append(syncs, s) })
			snapshots := make(chan model.Snapshot)
			done := make(chan error)
			go func() { done <- e.Run(t.Context(), snapshots) }()
			snapshots <- udp(1, 2)
			snapshots <- udp(2)
			snapshots <- udp(1, 2)
			close(snapshots)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if len(syncs) != 3 || len(syncs[0].Found) != want || syncs[1].Found != nil || syncs[2].Found != nil {
				t.Errorf("syncs %+v; want three, of which the first found %d front ends", syncs, want)
			}
		}
	})
}

// manyServices returns Services with 10 endpoints each.
func manyServices(n int) model.Snapshot {
	var m model.Map[model.Name, *model.Service]
	e := m.Edit()
	for i := range n {
		s := &model.Service{
			Name:       model.Name{Namespace: "default", Name: fmt.Sprintf("service-%d", i)},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
			Ports:      []model.Port{{Name: "http", Protocol: model.TCP, Port: 80}},
		}
		for j := range 10 {
			s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, model.Endpoint{
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), 8080), Ready: true, Serving: true,
			})
		}
		e.Set(s.Name, s)
	}
	return model.Snapshot{Services: e.Map(), Node: &model.Node{Name: "here"}}
}

// TestEngineLongLoad loads so much that it takes several transactions, of which a later one fails, or is
// refused an element: what is there stays, and the rest follows.
func TestEngineLongLoad(t *testing.T) {
	const services, refused = 4000, "10.96.15.150 . tcp . 80" // service-3990
	tests := []struct {
		name  string
		err   error
		early int // elements of services right after
	}{
		{"without a fault", nil, services},
		{"no memory", unix.ENOMEM, 1},
		{"an element is refused", unix.EEXIST, services - 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &fake.Kernel{}
				var fail atomic.Bool
				fail.Store(tt.err != nil)
				k.Fail = func(op nft.Op) error {
					if fail.Load() && op.Element != nil && op.Set.Name == "services" && strings.Contains(op.String(), refused) {
						return tt.err
					}
					return nil
				}
				_, snapshots := start(t, k)
				snapshots <- manyServices(services)
				synctest.Wait()
				if got := held(t, k); got < tt.early || got > services {
					t.Errorf("%d Services at first; want %d at least", got, tt.early)
				}
				if got := k.Stats().Commits; got < 2 {
					t.Errorf("%d transactions; want several", got)
				}
				fail.Store(false)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if got := held(t, k); got != services {
					t.Errorf("%d Services in the end; want %d", got, services)
				}
			})
		})
	}
}
