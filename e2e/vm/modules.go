package vm

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// bootModules returns the modules that the machine needs before it has its file system.
func bootModules() []string {
	return []string{"virtio_pci", "virtio_console", "virtio_rng", "9pnet_virtio", "9p", "overlay"}
}

// moduleName returns the name of the module in a file: the kernel takes - and _ for the same.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// loadOrder returns the files of modules and of all that they depend on, in the order in which they can
// be loaded. Deps is the text of modules.dep as depmod writes it: a file, a colon, and the files that
// it needs, each before those that it needs itself. A module that is not there is built into
// the kernel.
func loadOrder(deps string, modules []string) []string {
	needs := map[string][]string{}
	for line := range strings.Lines(deps) {
		file, rest, ok := strings.Cut(line, ":")
		if ok {
			needs[moduleName(file)] = append([]string{file}, strings.Fields(rest)...)
		}
	}
	var order []string
	seen := map[string]bool{}
	for _, m := range modules {
		files := needs[moduleName(m)]
		for i := range files {
			f := files[len(files)-1-i]
			if !seen[f] {
				seen[f] = true
				order = append(order, f)
			}
		}
	}
	return order
}

// moduleFiles returns the files of an initramfs that are the modules of bootModules, named so that
// their order is that in which they can be loaded.
func moduleFiles(dir string) ([]file, error) {
	deps, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	files := []file{{name: modulesDir, mode: fs.ModeDir | 0o755}}
	for i, name := range loadOrder(string(deps), bootModules()) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files = append(files, file{name: fmt.Sprintf("%s/%02d-%s", modulesDir, i, path.Base(name)), mode: 0o644, data: data})
	}
	return files, nil
}
