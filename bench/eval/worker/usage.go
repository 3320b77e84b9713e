package worker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// used reads what this process has used since it started; Peak is since the
// last resetPeak.
func used() (Usage, error) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return Usage{}, fmt.Errorf("read CPU time: %w", err)
	}
	peak, err := peak()
	if err != nil {
		return Usage{}, err
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	return Usage{
		CPU:     time.Duration(ru.Utime.Nano() + ru.Stime.Nano()),
		Peak:    peak,
		Objects: ms.Mallocs,
		Bytes:   ms.TotalAlloc,
	}, nil
}

// since is what was used after an earlier reading. The peak is no difference.
func (u Usage) since(before Usage) Usage {
	return Usage{
		CPU:     u.CPU - before.CPU,
		Peak:    u.Peak,
		Objects: u.Objects - before.Objects,
		Bytes:   u.Bytes - before.Bytes,
	}
}

// peak is VmHWM.
func peak() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			fields := bytes.Fields(rest)
			kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("/proc/self/status has no VmHWM")
}

// resetPeak makes the peak what is resident now.
func resetPeak() error {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return fmt.Errorf("reset the peak of resident memory: %w", err)
	}
	return nil
}
