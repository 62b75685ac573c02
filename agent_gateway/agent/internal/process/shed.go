package process

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"unsafe"
)

// agentCaps is what the agent itself needs while processes run: to become their users, set their bounds and signal them, and to copy files.
var agentCaps = append([]string{"SYS_RESOURCE"}, dockerCaps...)

// Shed takes from the agent the capabilities that its processes do not get, for good, when they may trace it (SYS_PTRACE by its name): what a
// process can trace it can act as. Mounts and the like must have been made before. With ALL there is nothing to be gained by tracing.
func Shed(add []string, caps uint64) error {
	traceable, err := capBit("SYS_PTRACE")
	if err != nil || caps&traceable == 0 || slices.ContainsFunc(add, isAll) || os.Geteuid() != 0 {
		return err
	}
	for _, name := range agentCaps {
		bit, _ := capBit(name)
		caps |= bit
	}
	// Each of the runtime's threads has capabilities of its own; new ones take after those that start them.
	for c := range uintptr(len(capNames)) {
		if caps&(1<<c) != 0 {
			continue
		}
		if _, _, errno := syscall.AllThreadsSyscall6(syscall.SYS_PRCTL, prCapBSetDrop, c, 0, 0, 0, 0); errno != 0 && errno != syscall.EINVAL {
			return fmt.Errorf("drop capability %d of the agent: %w", c, errno)
		}
	}
	header := capHeader{version: capVersion3}
	var data [2]capData
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
		return errno
	}
	for i := range data {
		part := uint32(caps >> (32 * i))
		data[i] = capData{effective: data[i].effective & part, permitted: data[i].permitted & part}
	}
	if _, _, errno := syscall.AllThreadsSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
		return fmt.Errorf("drop the agent's capabilities: %w", errno)
	}
	return nil
}

func isAll(name string) bool {
	bit, err := capBit(name)
	return err == nil && bit == AllCaps
}
