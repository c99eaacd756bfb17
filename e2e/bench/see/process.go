package see

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the CPU time, user and system, that a process and the programs that it runs and ran have used.
// That of programs that have ended is in steps of 10 ms, the rest is exact.
func CPU(pid int) (time.Duration, error) {
	own, err := clock(pid)
	if err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// After the name, which may have anything in it: fields 3 and following of proc_pid_stat(5).
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0, fmt.Errorf("read /proc/%d/stat: %q", pid, b)
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on all machines
	sum := own
	for _, f := range fields[13:15] { // cutime, cstime
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	for _, child := range Children(pid) {
		c, err := clock(child)
		if err == nil { // else it has ended just now
			sum += c
		}
	}
	return sum, nil
}

// clock returns the CPU time that a process itself has used.
func clock(pid int) (time.Duration, error) {
	// The clock of another process, from <linux/posix-timers.h>: CPUCLOCK_SCHED of ~pid.
	const scheduled = 2
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduled), &t)
	return time.Duration(t.Nano()), err
}

// Children returns the programs that a process runs.
func Children(pid int) (list []int) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	for _, path := range threads {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(word); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// A Memory is the resident memory of a process in bytes, now and at its peak.
type Memory struct{ Now, Peak int64 }

// MemoryOf returns the resident memory of a process.
func MemoryOf(pid int) (Memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	now, err := kilobytes(b, "VmRSS")
	if err != nil {
		return Memory{}, err
	}
	peak, err := kilobytes(b, "VmHWM")
	return Memory{now, peak}, err
}

// KernelMemory returns the bytes that the kernel has allocated for itself and cannot give back by
// dropping caches: slabs, large allocations and those for each CPU.
func KernelMemory() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, name := range []string{"SUnreclaim", "VmallocUsed", "Percpu"} {
		n, err := kilobytes(b, name)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// kilobytes returns a number of bytes that a file of /proc has in kB.
func kilobytes(b []byte, name string) (int64, error) {
	m := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		return 0, fmt.Errorf("the kernel does not tell %s", name)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10, err
}
