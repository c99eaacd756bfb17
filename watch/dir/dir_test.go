package dir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch"
)

// service returns the manifest of a Service.
func service(name, ip string, port int) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: %s\nspec:\n  clusterIP: %s\n  ports:\n  - port: %d\n", name, ip, port)
}

// write puts files into a directory; an empty text removes one.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if text == "" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// served returns the Services of a part as "name:port", sorted.
func served(p watch.Part) string {
	var out []string
	for name, s := range p.Services.All() {
		out = append(out, fmt.Sprintf("%s:%d", name.Name, s.Model.Ports[0].Port))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// problems returns the problems of a part without the source, one a line.
func problems(p watch.Part) string {
	var out []string
	for _, p := range p.Problems {
		p.Source = ""
		out = append(out, p.String())
	}
	return strings.Join(out, "\n")
}

func TestRead(t *testing.T) {
	const slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: a}}\n" +
		"addressType: IPv4\nports: [{name: '', port: 80}]\nendpoints: [{addresses: [10.0.0.1]}]\n"
	tests := []struct {
		name     string
		files    map[string]string
		served   string
		problems []string // each must be part of the problem in its place
	}{
		{"OK several documents", map[string]string{"a.yaml": service("a", "10.96.0.1", 80) + "---\n" + slice + "---\n# nothing\n---\n" + service("b", "10.96.0.2", 81)}, "a:80 b:81", nil},
		{"OK windows line ends", map[string]string{"a.yaml": strings.ReplaceAll(service("a", "10.96.0.1", 80)+"---\n"+service("b", "10.96.0.2", 81), "\n", "\r\n")}, "a:80 b:81", nil},
		{"OK JSON values in a row", map[string]string{"a.json": `{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"clusterIP":"10.96.0.1","ports":[{"port":80}]}} {"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"},"spec":{"clusterIP":"10.96.0.2","ports":[{"port":81}]}}]}`}, "a:80 b:81", nil},
		{"OK typed list", map[string]string{"a.yml": "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n  spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n"}, "a:80", nil},
		{"OK other files are left alone", map[string]string{"a.txt": "x: [", ".b.yaml": "x: [", "c.yaml": service("c", "10.96.0.3", 80)}, "c:80", nil},
		{"other kinds", map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"}, "", []string{"a.yaml:1: ConfigMap: kind: v1 ConfigMap is of no concern"}},
		{"bad YAML beside good", map[string]string{"a.yaml": service("a", "10.96.0.1", 80) + "---\nkind: Service\nmetadata:\n  name: x\n  bad: [\n---\n" + service("b", "10.96.0.2", 81)}, "a:80 b:81", []string{"a.yaml:2: Service default/x: yaml: line 1"}},
		{"bad type", map[string]string{"a.yaml": service("a", "10.96.0.1", 80) + "  - port: many\n"}, "", []string{"a.yaml:1: Service default/a: spec.ports[1].port: is string, but should be a number"}},
		{"bad time", map[string]string{"a.yaml": strings.Replace(service("a", "10.96.0.1", 80), "  name: a\n", "  name: a\n  creationTimestamp: noon\n", 1)}, "", []string{"Service default/a: metadata.creationTimestamp: "}},
		{"bad field name", map[string]string{"a.yaml": service("a", "10.96.0.1", 80) + "    prot: TCP\n"}, "a:80", []string{"Service default/a: spec.ports[0].prot: is no field of Service"}},
		{"bad duplicate field", map[string]string{"a.yaml": service("a", "10.96.0.1", 80) + "kind: Service\n"}, "", []string{"key \"kind\" already set"}},
		{"bad port", map[string]string{"a.yaml": service("a", "10.96.0.1", 80) + "  - {name: b, port: 70000}\n"}, "a:80", []string{"spec.ports[1].port: 70000 is no port"}},
		{"bad version", map[string]string{"a.yaml": strings.Replace(slice, "io/v1", "io/v1beta1", 1)}, "", []string{"EndpointSlice default/s: apiVersion: is \"discovery.k8s.io/v1beta1\""}},
		{"not a mapping", map[string]string{"a.yaml": "- 1\n- 2\n", "b.yaml": "text\n", "c.yaml": "a: 1\n"}, "", []string{"a.yaml:1: is array", "b.yaml:1: is string", "c.yaml:1: kind: is missing"}},
		{"binary", map[string]string{"a.yaml": "\x7fELF\x00\x01", "b.yaml": "\xff\xfe", "c.yaml": service("c", "10.96.0.3", 80)}, "c:80", []string{"a.yaml: is not text", "b.yaml: is not text"}},
		{"twice in two files", map[string]string{"b.yaml": service("a", "10.96.0.1", 81), "a.yaml": service("a", "10.96.0.1", 80)}, "a:80", []string{"b.yaml:1: Service default/a: is there twice; what counts is a.yaml:1"}},
		{"twice in one file, the same text", map[string]string{"a.yaml": service("a", "10.96.0.1", 80) + "---\n" + service("a", "10.96.0.1", 80)}, "a:80", []string{"a.yaml:2: Service default/a: is there twice; what counts is a.yaml:1"}},
		{"no name", map[string]string{"a.yaml": "apiVersion: v1\nkind: Service\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n"}, "", []string{"metadata.name: is missing"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tt.files)
			p, err := Read(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := served(p); got != tt.served {
				t.Errorf("Read serves %q; want %q (problems: %s)", got, tt.served, problems(p))
			}
			if len(p.Problems) != len(tt.problems) {
				t.Fatalf("Read has problems\n%s\nwant %d", problems(p), len(tt.problems))
			}
			for i, want := range tt.problems {
				if got := strings.Split(problems(p), "\n")[i]; !strings.Contains(got, want) {
					t.Errorf("problem %d = %q; want %q in it", i, got, want)
				}
			}
		})
	}
}

func TestReadSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.yaml": service("a", "10.96.0.1", 80)})
	if err := os.Mkdir(filepath.Join(dir, "d.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "l.yaml")); err != nil {
		t.Fatal(err)
	}
	s := newState(dir, 10)
	if _, _, err := s.scan(time.Now()); err != nil {
		t.Fatal(err)
	}
	got := problems(s.part)
	for _, want := range []string{"a.yaml: has 100 bytes; the limit is 10", "d.yaml: is no regular file", "l.yaml: cannot be read: no such file"} {
		if !strings.Contains(got, want) {
			t.Errorf("problems = %s; want %q", got, want)
		}
	}
	if _, err := Read(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("Read of a directory that is not there = nil error; want one")
	}
}

// run starts a source on a directory and returns a function that waits for a part of which ok is true.
func run(t *testing.T, dir string) func(what string, ok func(watch.Part) bool) watch.Part {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	parts, done := make(chan watch.Part, 10000), make(chan error, 1)
	go func() { done <- New(dir, nil).Run(ctx, func(p watch.Part) { parts <- p }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v; want nil", err)
		}
	})
	return func(what string, ok func(watch.Part) bool) watch.Part {
		t.Helper()
		var last watch.Part
		limit := time.After(8 * time.Second) // less than the rescan: only events count
		for {
			select {
			case last = <-parts:
				if ok(last) {
					return last
				}
			case <-limit:
				t.Fatalf("no part with %s; the last one serves %q with problems\n%s", what, served(last), problems(last))
			}
		}
	}
}

// serves returns a condition: the part serves these Services.
func serves(want string) func(watch.Part) bool {
	return func(p watch.Part) bool { return served(p) == want }
}

func TestRunFollowsFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.yaml": service("a", "10.96.0.1", 80) + "---\n" + service("b", "10.96.0.2", 80), "c.yaml": service("c", "10.96.0.3", 80)})
	until := run(t, dir)
	first := until("all", serves("a:80 b:80 c:80"))
	write(t, dir, map[string]string{"a.yaml": service("a", "10.96.0.1", 80) + "---\n" + service("b", "10.96.0.2", 81)})
	second := until("the change", serves("a:80 b:81 c:80"))
	for _, name := range []string{"a", "c"} {
		a, _ := first.Services.Get(model.Name{Namespace: "default", Name: name})
		b, _ := second.Services.Get(model.Name{Namespace: "default", Name: name})
		if a != b {
			t.Errorf("Service %s is another pointer after a change of b; want the same", name)
		}
	}
	write(t, dir, map[string]string{"a.yaml": service("a", "10.96.0.1", 80)})
	until("b gone", serves("a:80 c:80"))
	write(t, dir, map[string]string{".new": service("d", "10.96.0.4", 80)})
	if err := os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	until("c replaced by d", serves("a:80 d:80"))
	write(t, dir, map[string]string{"c.yaml": ""})
	until("d gone", serves("a:80"))
}

func TestRunKeepsLastGood(t *testing.T) {
	good := service("a", "10.96.0.1", 80) + "---\n" + service("b", "10.96.0.2", 80)
	tests := []struct{ name, text, problem string }{
		{"half written", good[:len(good)-12] + ": [", "a.yaml:2"},
		{"broken document", service("a", "10.96.0.1", 80) + "---\nkind: [\n", "a.yaml:2"},
		{"bad type", strings.Replace(good, "10.96.0.2\n  ports:\n  - port: 80", "10.96.0.2\n  ports:\n  - port: x", 1), "spec.ports[0].port"},
		{"cannot be served", strings.Replace(good, "10.96.0.2", "10.96.0.300", 1), "spec.clusterIP"},
		{"binary", "\x00\x01\x02", "a.yaml: is not text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"a.yaml": good})
			until := run(t, dir)
			until("all", serves("a:80 b:80"))
			// The new file is the sign that the broken one was read and left alone for long enough.
			write(t, dir, map[string]string{"a.yaml": tt.text})
			p := until("a problem", func(p watch.Part) bool { return strings.Contains(problems(p), tt.problem) })
			if got := served(p); got != "a:80 b:80" {
				t.Errorf("serves %q; want the last good state", got)
			}
			write(t, dir, map[string]string{"z.yaml": service("z", "10.96.0.9", 80)})
			until("the other file", serves("a:80 b:80 z:80"))
			write(t, dir, map[string]string{"a.yaml": service("a", "10.96.0.1", 82)})
			p = until("the file in order again", serves("a:82 z:80"))
			if len(p.Problems) > 0 {
				t.Errorf("problems = %s; want none", problems(p))
			}
		})
	}
}

func TestRunFollowsSymlinkSwap(t *testing.T) {
	dir := t.TempDir()
	swap := func(version, text string) {
		t.Helper()
		data := filepath.Join(dir, ".."+version)
		if err := os.Mkdir(data, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, data, map[string]string{"a.yaml": text})
		tmp := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(".."+version, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap("1", service("a", "10.96.0.1", 80))
	if err := os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	until := run(t, dir)
	until("the first version", serves("a:80"))
	for i := range 5 {
		swap(fmt.Sprint(i+2), service("a", "10.96.0.1", 81+i))
		until("the next version", serves(fmt.Sprintf("a:%d", 81+i)))
	}
}

func TestRunDirectoryVanishes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "manifests")
	until := run(t, dir)
	until("a sign of waiting", func(p watch.Part) bool { return p.Waiting && strings.Contains(problems(p), "no such file") })
	make := func(port int) {
		t.Helper()
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, dir, map[string]string{"a.yaml": service("a", "10.96.0.1", port)})
	}
	make(80)
	until("the directory", func(p watch.Part) bool { return !p.Waiting && served(p) == "a:80" })
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	p := until("a problem", func(p watch.Part) bool { return strings.Contains(problems(p), "all stays as it was") })
	if p.Waiting {
		t.Error("the part is waiting after the source spoke; want not")
	}
	make(81)
	until("the directory again", func(p watch.Part) bool { return served(p) == "a:81" && len(p.Problems) == 0 })
	// Exchanged at once by another directory.
	other := dir + ".new"
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, other, map[string]string{"a.yaml": service("a", "10.96.0.1", 82)})
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, dir); err != nil {
		t.Fatal(err)
	}
	until("the other directory", serves("a:82"))
	write(t, dir, map[string]string{"a.yaml": service("a", "10.96.0.1", 83)})
	until("a change in it", serves("a:83"))
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(service("a", "10.96.0.1", 80) + "---\n" + service("b", "fd00::1", 0)))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"kind":"Node","apiVersion":"v1","metadata":{"name":"n"}}]}`))
	f.Add([]byte("--- {kind: x}\n...\n%YAML 1.2\n---\nkind: [\n"))
	f.Add([]byte("kind: List\nitems: &a [*a]\n"))
	f.Add([]byte("apiVersion: v1\nkind: Endpoints\nmetadata: {name: e}\nsubsets: [{addresses: [{ip: 127.0.0.1}], ports: [{port: -1}]}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := readText(data, nil)
		for e := range file.entries() {
			if !e.ok && len(e.faults) == 0 {
				t.Errorf("an entry that cannot be used has no fault: %+v", e)
			}
		}
		again := readText(data, file)
		if len(again.documents) != len(file.documents) {
			t.Errorf("the same text has %d documents, then %d", len(file.documents), len(again.documents))
		}
	})
}

// readText returns the file that a text makes after another version of it.
func readText(data []byte, before *file) *file {
	f := &file{}
	f.parse(data, before)
	return f
}

func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	var text strings.Builder
	for i := range 10000 {
		text.WriteString("---\n" + service(fmt.Sprintf("s%d", i), fmt.Sprintf("10.96.%d.%d", i/250, i%250+1), 80))
		fmt.Fprintf(&text, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s%d-1\n  labels:\n    kubernetes.io/service-name: s%d\naddressType: IPv4\nports:\n- name: \"\"\n  port: 8080\n  protocol: TCP\nendpoints:\n", i, i)
		for j := range 10 {
			fmt.Fprintf(&text, "- addresses:\n  - 10.%d.%d.%d\n  conditions:\n    ready: true\n    serving: true\n    terminating: false\n  nodeName: node-%d\n", i/250, i%250, j+1, j)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	b.Run("first", func(b *testing.B) {
		b.SetBytes(int64(text.Len()))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Read(dir); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("one object changed", func(b *testing.B) {
		s := newState(dir, maxFile)
		if _, _, err := s.scan(time.Now()); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			b.StopTimer()
			changed := strings.Replace(text.String(), "port: 80\n", fmt.Sprintf("port: %d\n", 1000+n), 1)
			if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(changed), 0o644); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if changed, _, err := s.scan(time.Now()); err != nil || !changed {
				b.Fatalf("scan = %t, %v; want a change", changed, err)
			}
		}
	})
}
