package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// How long a machine may take until it starts its program: in time of the processor, of which it needs five
// seconds, and by the clock, for when others leave it nearly none.
const (
	bootProcessor = time.Minute
	bootTime      = 5 * time.Minute
)

// errNotUp says that a machine did not come up.
var errNotUp = errors.New("the machine did not come up")

// A Machine says what machine to run a command in.
type Machine struct {
	// Kernel is its kernel.
	Kernel Kernel
	// Init is a static program that calls [Guest] when [InGuest] says so, such as the one that this is.
	Init string
	// Memory is its memory in MiB.
	Memory int
	// CPUs is how many processors it has.
	CPUs int
	// Console receives what the kernel says; nil for nobody.
	Console io.Writer
}

// Run runs a command in a new machine and returns its exit status, which is that of a shell: 128 and the
// number of the signal if one ended it. A machine that does not come up is tried once more. The
// machine ends with ctx, or with this process.
func (m Machine) Run(ctx context.Context, c Command, stdout, stderr io.Writer) (int, error) {
	status, err := m.run(ctx, c, stdout, stderr)
	if errors.Is(err, errNotUp) && ctx.Err() == nil {
		fmt.Fprintf(stderr, "%v; trying once more\n", err)
		status, err = m.run(ctx, c, stdout, stderr)
	}
	return status, err
}

// run is Run, once.
func (m Machine) run(ctx context.Context, c Command, stdout, stderr io.Writer) (int, error) {
	initramfs, err := m.initramfs(c)
	if err != nil {
		return 0, fmt.Errorf("make the initramfs: %w", err)
	}
	defer os.Remove(initramfs)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// If the thread ended before QEMU, it would be killed (Pdeathsig).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.args(initramfs)...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	console := io.Writer(&said)
	if m.Console != nil {
		console = io.MultiWriter(console, m.Console)
	}
	p, err := plug(cmd)
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, errors.Join(err, p.close())
	}
	var end ending
	p.read(func(r io.Reader) { _, _ = io.Copy(stdout, r) },
		func(r io.Reader) { _, _ = io.Copy(stderr, r) },
		func(r io.Reader) {
			up := make(chan struct{})
			p.wg.Go(func() { hurry(cmd.Process.Pid, up, cancel) })
			end.follow(r, sync.OnceFunc(func() { close(up) }), cancel)
		},
		func(r io.Reader) { _, _ = io.Copy(console, r) })
	err = cmd.Wait()
	p.wait()
	switch cause := context.Cause(ctx); {
	case end.known && end.failed == "":
		return end.status, nil
	case end.failed != "":
		return 0, fmt.Errorf("the machine: %s", end.failed)
	case errors.Is(cause, errNotUp):
		return 0, fmt.Errorf("%w within %v, or %v of the processor; it said:\n%s", errNotUp, bootTime, bootProcessor, said.String())
	case cause != nil:
		return 0, fmt.Errorf("end the machine: %w", cause)
	case !end.up:
		return 0, fmt.Errorf("%w: it ended (%v); it said:\n%s", errNotUp, err, said.String())
	}
	return 0, fmt.Errorf("the machine ended (%v) before the command; it said:\n%s", err, said.String())
}

// args returns the arguments of QEMU. The descriptors from 3 are those of plug.
func (m Machine) args(initramfs string) []string {
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.Memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot",
		"-kernel", m.Kernel.Image, "-initrd", initramfs,
		"-append", "console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr norandmaps no_timer_check random.trust_cpu=on audit=0 " + insideArgument,
		"-virtfs", "local,path=/,mount_tag=" + shareTag + ",security_model=none,readonly=on,multidevs=remap",
		"-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
	}
	for i, name := range []string{portStdout, portStderr, portStatus} {
		args = append(args,
			"-chardev", fmt.Sprintf("file,id=%s,path=/dev/fd/%d", name, i+3),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", name, name))
	}
	return append(args, "-chardev", "file,id=console,path=/dev/fd/6", "-serial", "chardev:console")
}

// initramfs writes the first file system of a machine to a file and returns its path.
func (m Machine) initramfs(c Command) (path string, err error) {
	program, err := os.ReadFile(m.Init)
	if err != nil {
		return "", err
	}
	modprobe, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(guestCommand{Command: c, Modules: m.Kernel.Modules, Modprobe: modprobe})
	if err != nil {
		return "", err
	}
	files, err := moduleFiles(m.Kernel.Modules)
	if err != nil {
		return "", err
	}
	files = append(files, file{name: "init", mode: 0o755, data: program}, file{name: commandFile, mode: 0o644, data: text})
	f, err := os.CreateTemp("", "nftproxy-vm-*.cpio")
	if err != nil {
		return "", err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err := errors.Join(writeCPIO(w, files), w.Flush(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return filepath.Abs(f.Name())
}

// An ending is what a machine said of its program.
type ending struct {
	up, known bool
	status    int
	failed    string
}

// hurry cancels a machine that has used up its time before it is up.
func hurry(pid int, up <-chan struct{}, cancel context.CancelCauseFunc) {
	clock := int32(^pid<<3 | 2) // that of the process, see clock_getcpuclockid(3)
	for began := time.Now(); ; {
		select {
		case <-up:
			return
		case <-time.After(time.Second):
			var used unix.Timespec
			err := unix.ClockGettime(clock, &used)
			if err == nil && time.Duration(used.Nano()) > bootProcessor || time.Since(began) > bootTime {
				cancel(errNotUp)
				return
			}
		}
	}
}

// follow reads what the guest says. It calls up at the first word or the end, and cancels the machine when its
// program has ended.
func (e *ending) follow(r io.Reader, up func(), cancel context.CancelCauseFunc) {
	defer up()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		up()
		e.take(lines.Text())
		if e.known {
			// All that the program wrote has arrived: a write to a port waits for that.
			cancel(nil)
		}
	}
}

// take takes one line of the guest.
func (e *ending) take(line string) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case statusUp:
		e.up = true
	case statusFailed:
		e.failed, e.known = rest, true
	case statusExit:
		n, err := strconv.Atoi(rest)
		if err != nil {
			e.failed = fmt.Sprintf("said %q", line)
		}
		e.status, e.known = n, true
	}
}

// plugs are the pipes that lead out of a machine.
type plugs struct {
	readers, writers []*os.File
	wg               sync.WaitGroup
}

// plug gives a program four pipes to write to, its descriptors from 3.
func plug(cmd *exec.Cmd) (*plugs, error) {
	p := &plugs{}
	for range 4 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		p.readers, p.writers = append(p.readers, r), append(p.writers, w)
	}
	cmd.ExtraFiles = p.writers
	return p, nil
}

// read reads each pipe until its end.
func (p *plugs) read(readers ...func(io.Reader)) {
	for _, w := range p.writers {
		_ = w.Close() // the program has its own
	}
	for i, read := range readers {
		p.wg.Go(func() {
			read(p.readers[i])
			_ = p.readers[i].Close()
		})
	}
}

// wait waits until all pipes are read.
func (p *plugs) wait() { p.wg.Wait() }

// close closes pipes that nobody reads.
func (p *plugs) close() error {
	var err error
	for _, f := range append(p.readers, p.writers...) {
		err = errors.Join(err, f.Close())
	}
	return err
}

// A tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

// Write keeps the last 16 KiB.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-16<<10):]
	return len(p), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
