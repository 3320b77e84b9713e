package app

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// shedProgram gives the pages of the program's own file back to the kernel,
// which maps those that are used again. Most of a program this size is used
// once, by its start, and would count as the process' memory for good.
func shedProgram() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var start, end uintptr
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &mode); err != nil {
			return err
		}
		// What can be written has what is not in the file.
		if !strings.HasSuffix(lines.Text(), self) || strings.Contains(mode, "w") {
			continue
		}
		pages := unsafe.Slice((*byte)(unsafe.Add(nil, start)), end-start)
		if err := syscall.Madvise(pages, syscall.MADV_DONTNEED); err != nil {
			return fmt.Errorf("give back %s: %w", lines.Text(), err)
		}
	}
	return nil
}
