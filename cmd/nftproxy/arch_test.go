package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the path of our module.
const module = "github.com/nftproxy/nftproxy"

// mayImport says what of ours and of others each package may import, beside the standard library: a
// path, or a path with all below it ("k8s.io/..."). A package that is not here may not be.
func mayImport() map[string][]string {
	const (
		zap     = "go.uber.org/zap"
		klog    = "k8s.io/klog/v2"
		kubeAll = "k8s.io/..."
		sys     = "golang.org/x/sys/unix"
		group   = "golang.org/x/sync/errgroup"
		prom    = "github.com/prometheus/client_golang/prometheus/..."
	)
	return map[string][]string{
		"nft":                      nil,
		"nft/fake":                 {"nft", sys},
		"nft/fake/suite":           {"nft", "nft/nfttest", sys, "github.com/google/go-cmp/..."},
		"nft/nfttest":              {"nft"},
		"nft/wire":                 {sys, "github.com/mdlayher/netlink"},
		"nft/kernel":               {"nft", "nft/wire", sys, "github.com/google/nftables/...", "github.com/mdlayher/netlink/..."},
		"proxier/model":            nil,
		"proxier/plan":             {"nft", "proxier/ipvs", "proxier/model"},
		"proxier":                  {"nft", "proxier/ipvs", "proxier/model", "proxier/plan", sys, zap},
		"proxier/conntrack":        {"nft", "proxier", "proxier/model", zap},
		"proxier/conntrack/kernel": {"nft", "nft/wire", "proxier/conntrack", sys},
		"proxier/ipvs":             {"proxier/model"},
		"proxier/ipvs/fake":        {"proxier/ipvs", sys},
		"proxier/ipvs/kernel":      {"nft/wire", "proxier/ipvs", "proxier/model", sys, "github.com/cloudflare/ipvs/...", "github.com/mdlayher/genetlink", "github.com/vishvananda/netlink"},
		"proxier/ipvs/fake/suite":  {"proxier/ipvs", "proxier/model", sys, "github.com/google/go-cmp/..."},
		"proxier/events":           {"proxier/model", zap},
		"proxier/health":           {"nft", "proxier/events", "proxier/model", "proxier/plan", zap},
		"proxier/metrics":          {"nft", "proxier", "proxier/model", "proxier/plan", prom},
		"proxier/status":           {"proxier", "proxier/model", zap},
		"watch/cluster":            {"proxier/events", "proxier/model", prom, kubeAll},
		"watch":                    {"proxier/model", "watch/objects", zap, group, kubeAll},
		"watch/objects":            {"proxier/ipvs", "proxier/model", kubeAll},
		"watch/dir":                {"watch", "watch/objects", "proxier/model", zap, kubeAll, "sigs.k8s.io/yaml/...", "go.yaml.in/yaml/...", "sigs.k8s.io/json", "github.com/fsnotify/fsnotify", group, sys},
		"watch/kube":               {"watch", "watch/objects", "proxier/model", zap, kubeAll},
		"watch/node":               {"watch", "proxier/ipvs", "proxier/model", zap, sys, "github.com/vishvananda/netlink/...", "github.com/vishvananda/netns"},
		"cmd/nftproxy": {
			"proxier/events", "proxier/health", "proxier/metrics", "proxier/status", "watch/cluster", prom,
			"cmd/nftproxy/options", "proxier/host", "proxier/leftovers",
			"nft", "nft/kernel", "proxier", "proxier/conntrack", "proxier/conntrack/kernel", "proxier/ipvs", "proxier/ipvs/kernel", "proxier/model", "proxier/plan", "watch", "watch/dir", "watch/kube", "watch/node",
			zap, "go.uber.org/zap/zapcore", klog, "github.com/go-logr/zapr", "github.com/spf13/cobra", "github.com/spf13/pflag", "k8s.io/component-base/logs/api/v1", "k8s.io/client-go/...", group, sys,
		},
		"cmd/nftproxy/options": {kubeAll, "github.com/spf13/pflag", "sigs.k8s.io/yaml", "github.com/fsnotify/fsnotify"},
		"proxier/host":         {sys},
		"proxier/leftovers":    {"proxier/ipvs", sys, "github.com/mdlayher/netlink"},
	}
}

// A goFile is a parsed file of the module.
type goFile struct {
	path string // from the root of the module, with slashes
	dir  string
	test bool
	ast  *ast.File
	fset *token.FileSet
}

// at returns where a node is.
func (f *goFile) at(n ast.Node) string {
	return f.path + ":" + strconv.Itoa(f.fset.Position(n.Pos()).Line)
}

// e2e reports whether the file belongs to the tests of the whole program, which may do what they
// like.
func (f *goFile) e2e() bool { return f.dir == "e2e" || strings.HasPrefix(f.dir, "e2e/") }

// goFiles returns all files of the module.
func goFiles(t *testing.T) []*goFile {
	t.Helper()
	root := filepath.Join("..", "..")
	var files []*goFile
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f := &goFile{path: filepath.ToSlash(rel), test: strings.HasSuffix(name, "_test.go"), fset: token.NewFileSet()}
		f.dir = filepath.ToSlash(filepath.Dir(rel))
		f.ast, err = parser.ParseFile(f.fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatalf("parse the module: %v", err)
	}
	if len(files) < 10 {
		t.Fatalf("found %d Go files; want the whole module", len(files))
	}
	return files
}

// production returns the files of goFiles that are built into the program.
func production(t *testing.T) []*goFile {
	t.Helper()
	return slices.DeleteFunc(goFiles(t), func(f *goFile) bool { return f.test || f.e2e() })
}

// imports returns the paths that a file imports.
func (f *goFile) imports(t *testing.T) []string {
	t.Helper()
	var paths []string
	for _, i := range f.ast.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// standard reports whether a path is one of the standard library.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// allowed reports whether rules let a package import a path.
func allowed(rules []string, path string) bool {
	path = strings.TrimPrefix(path, module+"/")
	return slices.ContainsFunc(rules, func(rule string) bool {
		below, ok := strings.CutSuffix(rule, "/...")
		return path == rule || ok && (path == below || strings.HasPrefix(path, below+"/"))
	})
}

func TestImports(t *testing.T) {
	rules := mayImport()
	for _, f := range production(t) {
		rule, ok := rules[f.dir]
		if !ok {
			t.Errorf("%s: package %s has no import rule; add it to mayImport", f.path, f.dir)
			continue
		}
		for _, path := range f.imports(t) {
			switch {
			case path == "os/exec":
				t.Errorf("%s imports os/exec; only tests run programs", f.path)
			case !standard(path) && !allowed(rule, path):
				t.Errorf("%s imports %s; package %s may not", f.path, path, f.dir)
			}
		}
	}
}

// TestPlanIsPure keeps clock, log, files and waiting out of what decides.
func TestPlanIsPure(t *testing.T) {
	for _, f := range production(t) {
		if !slices.Contains([]string{"proxier/plan", "proxier/model", "proxier/ipvs", "nft"}, f.dir) {
			continue
		}
		for _, path := range f.imports(t) {
			if slices.Contains([]string{"os", "net", "context", "log", "log/slog", "math/rand", "math/rand/v2", "syscall", "sync"}, path) {
				t.Errorf("%s imports %s; package %s is pure", f.path, path, f.dir)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && selects(s, "time", "Now") {
				t.Errorf("%s calls time.Now; package %s is pure", f.at(n), f.dir)
			}
			return true
		})
	}
}

func TestOnlyTestsImportEndToEnd(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test || f.e2e() {
			continue
		}
		for _, path := range f.imports(t) {
			if strings.HasPrefix(path, module+"/e2e") {
				t.Errorf("%s imports %s; only tests may", f.path, path)
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	comments, packages := map[string][]string{}, map[string]bool{}
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		packages[f.dir] = true
		if f.ast.Doc == nil {
			continue
		}
		comments[f.dir] = append(comments[f.dir], f.path)
		want := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			want = "Command " + filepath.Base(f.dir) + " "
		}
		if text := f.ast.Doc.Text(); !strings.HasPrefix(text, want) {
			t.Errorf("%s: the package comment begins %.30q; want %q", f.path, text, want)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		if len(comments[dir]) != 1 {
			t.Errorf("package %s has its comment in %d files %v; want 1", dir, len(comments[dir]), comments[dir])
		}
	}
}

func TestNoState(t *testing.T) {
	for _, f := range production(t) {
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: init function; New and Run do what is to be done", f.at(d))
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR {
					checkVars(t, f, d)
				}
			}
		}
	}
}

// checkVars fails for package variables, but for those that nobody changes: errors, checks that a
// type implements an interface, and what the linker sets.
func checkVars(t *testing.T, f *goFile, d *ast.GenDecl) {
	t.Helper()
	for _, spec := range d.Specs {
		s, ok := spec.(*ast.ValueSpec)
		if !ok {
			continue
		}
		for i, name := range s.Names {
			isError := false
			if i < len(s.Values) {
				call, ok := s.Values[i].(*ast.CallExpr)
				if ok {
					fun, ok := call.Fun.(*ast.SelectorExpr)
					isError = ok && selects(fun, "errors", "New")
				}
			}
			linked := f.path == "cmd/nftproxy/version.go" && (name.Name == "version" || name.Name == "commit")
			if name.Name != "_" && !isError && !linked {
				t.Errorf("%s: package variable %s; pass it to who needs it", f.at(name), name.Name)
			}
		}
	}
}

func TestNoSleep(t *testing.T) {
	for _, f := range production(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && selects(s, "time", "Sleep") {
				t.Errorf("%s sleeps; wait for what has to happen", f.at(n))
			}
			return true
		})
	}
}

// TestSize keeps files and functions to what a person can read in one go.
func TestSize(t *testing.T) {
	const longestFile, longestFunc = 400, 80
	for _, f := range production(t) {
		if n := f.fset.Position(f.ast.FileEnd).Line; n > longestFile {
			t.Errorf("%s has %d lines; want at most %d", f.path, n, longestFile)
		}
		for _, d := range f.ast.Decls {
			d, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.fset.Position(d.End()).Line - f.fset.Position(d.Pos()).Line + 1; n > longestFunc {
				t.Errorf("%s: %s has %d lines; want at most %d", f.at(d), d.Name.Name, n, longestFunc)
			}
		}
	}
}

// selects reports whether s is pkg.name.
func selects(s *ast.SelectorExpr, pkg, name string) bool {
	id, ok := s.X.(*ast.Ident)
	return ok && id.Name == pkg && s.Sel.Name == name
}
