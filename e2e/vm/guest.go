package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What the initramfs holds beside /init, and what the machine calls its ports and its share.
const (
	commandFile = "command.json"
	modulesDir  = "modules"
	portStdout  = "stdout"
	portStderr  = "stderr"
	portStatus  = "status"
	shareTag    = "host"
)

// The lines that the guest writes to its port of status.
const (
	statusUp     = "up"     // the program is about to be started
	statusExit   = "exit"   // and its number: it has ended
	statusFailed = "failed" // and why: it was not run
)

// A Command is what runs in the machine.
type Command struct {
	// Path is the program. It is not looked up in PATH.
	Path string
	// Args are its arguments without its name.
	Args []string
	// Env is its environment.
	Env []string
	// Dir is its working directory.
	Dir string
}

// guestCommand is a Command as it is written into the initramfs.
type guestCommand struct {
	Command
	Modules, Modprobe string
}

// InGuest reports whether this process is the first one of a machine, which has to call [Guest].
func InGuest() bool {
	if os.Getpid() != 1 {
		return false
	}
	_, err := os.Stat("/" + commandFile)
	return err == nil
}

// insideArgument is an argument of the machine's kernel that means nothing to it.
const insideArgument = "nftproxy.machine"

// Inside reports whether this process runs in a machine of this package.
func Inside() bool {
	line, err := os.ReadFile("/proc/cmdline")
	return err == nil && slices.Contains(strings.Fields(string(line)), insideArgument)
}

// Guest is what the first process of a machine does: it gives the machine its file system, runs the command
// and turns the machine off.
func Guest() {
	status := -1
	code, err := guest(&status)
	line := fmt.Sprintf("%s %d\n", statusExit, code)
	if err != nil {
		line = fmt.Sprintf("%s %s\n", statusFailed, strings.ReplaceAll(err.Error(), "\n", " "))
		fmt.Fprint(os.Stderr, line) // the console
	}
	if status >= 0 {
		_, _ = unix.Write(status, []byte(line))
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// guest sets the machine up and runs the command. It leaves the descriptor of the port of status in
// status as soon as there is one.
func guest(status *int) (code int, err error) {
	text, err := os.ReadFile("/" + commandFile)
	if err != nil {
		return 0, err
	}
	var c guestCommand
	if err := json.Unmarshal(text, &c); err != nil {
		return 0, err
	}
	for _, m := range []mountPoint{{"proc", "/proc", "proc", ""}, {"sysfs", "/sys", "sysfs", ""}, {"dev", "/dev", "devtmpfs", ""}} {
		if err := m.mount(); err != nil {
			return 0, err
		}
	}
	if err := loadModules(); err != nil {
		return 0, err
	}
	var ports [3]int
	for i, name := range []string{portStatus, portStdout, portStderr} {
		if ports[i], err = openPort(name); err != nil {
			return 0, err
		}
	}
	*status = ports[0]
	if err := enterShare(); err != nil {
		return 0, err
	}
	if err := settle(c); err != nil {
		return 0, err
	}
	if _, err := unix.Write(*status, []byte(statusUp+"\n")); err != nil {
		return 0, err
	}
	return run(c.Command, ports[1], ports[2])
}

// A mountPoint is a file system to mount.
type mountPoint struct{ source, target, kind, options string }

// mount makes the directory and mounts the file system.
func (m mountPoint) mount() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.kind, 0, m.options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
	}
	return nil
}

// loadModules loads the modules of the initramfs in the order of their names.
func loadModules() error {
	files, err := filepath.Glob("/" + modulesDir + "/*")
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		flags := 0
		if filepath.Ext(name) != ".ko" {
			flags = unix.MODULE_INIT_COMPRESSED_FILE
		}
		err = unix.FinitModule(int(f.Fd()), "", flags)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

// openPort opens a virtio port by the name that the machine gave it. Ports appear a moment after
// their driver.
func openPort(name string) (int, error) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return -1, err
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err == nil && strings.TrimSpace(string(text)) == name {
				// Not by package os: a program gets the port as its output, and expects it to block.
				fd, err := unix.Open(filepath.Join("/dev", filepath.Base(filepath.Dir(f))), unix.O_WRONLY|unix.O_CLOEXEC, 0)
				if err == nil {
					return fd, nil
				}
			}
		}
		if time.Now().After(deadline) {
			return -1, fmt.Errorf("the machine has no port %s", name)
		}
	}
}

// run runs the command and returns its status as a shell does. Meanwhile it takes care of processes
// that have lost their parent.
func run(c Command, stdout, stderr int) (int, error) {
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(c.Path, append([]string{c.Path}, c.Args...), &syscall.ProcAttr{
		Dir: c.Dir, Env: c.Env,
		Files: []uintptr{uintptr(null), uintptr(stdout), uintptr(stderr)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s in %s: %w", c.Path, c.Dir, err)
	}
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR), err == nil && got != pid:
		case err != nil:
			return 0, fmt.Errorf("wait for %s: %w", c.Path, err)
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		default:
			return ws.ExitStatus(), nil
		}
	}
}
