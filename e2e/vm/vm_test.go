package vm

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// entry is what TestWriteCPIO wants of an entry, from its magic to its data.
func entry(inode, mode, size int, name, data string) string {
	head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0)
	return head + name + "\x00" + data
}

func TestWriteCPIO(t *testing.T) {
	var got bytes.Buffer
	err := writeCPIO(&got, []file{
		{name: "dir", mode: fs.ModeDir | 0o755},
		{name: "dir/file", mode: 0o644, data: []byte("hello")},
		{name: "init", mode: 0o755, data: []byte("#!sh")},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := entry(1, 0o040755, 0, "dir", "\x00\x00") +
		entry(2, 0o100644, 5, "dir/file", "\x00hello\x00\x00\x00") +
		entry(3, 0o100755, 4, "init", "\x00#!sh") +
		entry(0, 0, 0, "TRAILER!!!", "\x00\x00\x00")
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
}

// TestCPIOReads has another program read an archive.
func TestCPIOReads(t *testing.T) {
	need(t, "busybox")
	var archive bytes.Buffer
	for n := range 9 { // each length of data and name modulo four
		if err := writeCPIO(&archive, []file{{name: strings.Repeat("n", n+1), mode: 0o600, data: make([]byte, n)}}); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("busybox", "cpio", "-t")
		cmd.Stdin = bytes.NewReader(archive.Bytes())
		out, err := cmd.Output()
		if want := strings.Repeat("n", n+1) + "\n"; err != nil || string(out) != want {
			t.Errorf("cpio -t = %q, %v; want %q", out, err, want)
		}
		archive.Reset()
	}
}

func TestLoadOrder(t *testing.T) {
	const deps = `kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko kernel/fs/fscache/fscache.ko
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio-ring.ko
kernel/net/9p/9pnet.ko:
kernel/drivers/virtio/virtio-ring.ko:
kernel/fs/fscache/fscache.ko:
kernel/fs/netfs/netfs.ko: kernel/fs/fscache/fscache.ko
`
	got := loadOrder(deps, []string{"9pnet_virtio", "virtio_ring", "built_in", "9p"})
	want := []string{
		"kernel/drivers/virtio/virtio-ring.ko", "kernel/net/9p/9pnet.ko", "kernel/net/9p/9pnet_virtio.ko.xz",
		"kernel/fs/fscache/fscache.ko", "kernel/fs/netfs/netfs.ko", "kernel/fs/9p/9p.ko",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("loadOrder (-want +got):\n%s", diff)
	}
}

func TestRealPackage(t *testing.T) {
	tests := []struct {
		name, in, want string
		ok             bool
	}{
		{"OK", "linux-image-amd64\n  Depends: linux-image-6.1.0-57-amd64\n", "linux-image-6.1.0-57-amd64", true},
		{"OK after others", "linux-image-amd64\n  Depends: x\n  Depends: linux-image-6.12.9+deb13-amd64\n", "linux-image-6.12.9+deb13-amd64", true},
		{"bad: unknown", "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := realPackage(tt.in)
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("realPackage = %q, %v; want %q, ok %t", got, err, tt.want, tt.ok)
			}
		})
	}
}

func TestArgs(t *testing.T) {
	m := Machine{Kernel: Kernel{Image: "/k/boot/vmlinuz-6"}, Memory: 512, CPUs: 3}
	got := " " + strings.Join(m.args("/tmp/i.cpio"), " ") + " "
	for _, want := range []string{
		" -smp 3 ", " -m 512 ", " -kernel /k/boot/vmlinuz-6 ", " -initrd /tmp/i.cpio ", " -no-reboot ",
		" -chardev file,id=stdout,path=/dev/fd/3 -device virtserialport,chardev=stdout,name=stdout ",
		" -chardev file,id=stderr,path=/dev/fd/4 ", " -chardev file,id=status,path=/dev/fd/5 ",
		" -chardev file,id=console,path=/dev/fd/6 ", "mount_tag=host,security_model=none,readonly=on",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("args =%s; want%s", got, want)
		}
	}
}

func TestEnding(t *testing.T) {
	tests := []struct {
		name  string
		lines []string
		want  ending
	}{
		{"OK up", []string{"up"}, ending{up: true}},
		{"OK exit", []string{"up", "exit 3"}, ending{up: true, known: true, status: 3}},
		{"OK failed", []string{"failed mount /host: no such device"}, ending{known: true, failed: "mount /host: no such device"}},
		{"bad exit", []string{"exit x"}, ending{known: true, failed: `said "exit x"`}},
		{"bad words", []string{"hello"}, ending{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got ending
			for _, l := range tt.lines {
				got.take(l)
			}
			if got != tt.want {
				t.Errorf("ending = %+v; want %+v", got, tt.want)
			}
		})
	}
}

func TestTail(t *testing.T) {
	var got tail
	for range 3000 {
		fmt.Fprint(&got, "12345678")
	}
	fmt.Fprint(&got, "end")
	if s := got.String(); len(s) != 16<<10 || !strings.HasSuffix(s, "678end") {
		t.Errorf("tail has %d bytes and ends with %q", len(s), s[max(0, len(s)-9):])
	}
}

// need skips the test, or fails it where nothing may be skipped, unless programs are there.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all" {
			t.Fatalf("this test needs the program %s", p)
		}
		t.Skipf("this test needs the program %s", p)
	}
}

// needRoot is need for root, which all that is below / can be read by.
func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case unix.Geteuid() == 0:
	case os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all":
		t.Fatal("this test needs root")
	default:
		t.Skip("this test needs root")
	}
}
