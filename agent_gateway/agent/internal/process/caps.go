package process

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// capNames are the kernel's capabilities in their order.
var capNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// dockerCaps is the set Docker leaves a container.
var dockerCaps = strings.Fields(`CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
SYS_CHROOT KILL AUDIT_WRITE`)

// AllCaps is every capability that the agent has itself.
const AllCaps = ^uint64(0)

func capBit(name string) (uint64, error) {
	short := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	if short == "ALL" {
		return AllCaps, nil
	}
	for i, n := range capNames {
		if n == short {
			return 1 << i, nil
		}
	}
	return 0, &StartError{Code: CodeRefused, Bare: true, Text: fmt.Sprintf("invalid capability: %q", name)}
}

// CapSet is the bounding set for cap_add and cap_drop, by moby's rules: ALL in one list makes the other the exceptions.
// A capability asked for by name that the agent does not have itself is an error.
func CapSet(add, drop []string) (uint64, error) {
	var set, added, dropped, named uint64
	for _, name := range dockerCaps {
		bit, _ := capBit(name)
		set |= bit
	}
	for _, name := range add {
		bit, err := capBit(name)
		if err != nil {
			return 0, err
		}
		added |= bit
		if bit != AllCaps {
			named |= bit
			if bit&boundingSet() == 0 {
				return 0, &StartError{Code: CodeRefused, Bare: true,
					Text: fmt.Sprintf("capability %s cannot be added: the platform does not grant it to the container", name)}
			}
		}
	}
	for _, name := range drop {
		bit, err := capBit(name)
		if err != nil {
			return 0, err
		}
		dropped |= bit
	}
	switch {
	case added == AllCaps && dropped == AllCaps, dropped == AllCaps:
		return named, nil
	case added == AllCaps:
		return AllCaps &^ dropped, nil
	}
	return (set | added) &^ dropped, nil
}

// boundingSet is the agent's own.
func boundingSet() uint64 {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return AllCaps // without /proc there is no telling; the kernel keeps what is missing out anyway
	}
	_, rest, _ := strings.Cut(string(status), "\nCapBnd:\t")
	line, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		return AllCaps
	}
	return set
}

const (
	prCapBSetRead   = 23
	prCapBSetDrop   = 24
	prSetNoNewPrivs = 38
	prCapAmbient    = 47
	prAmbientClear  = 4
	prSetDumpable   = 4
	prSetSubreaper  = 36
	capVersion3     = 0x20080522
	cloneFS         = 0x200
)

type capHeader struct {
	version uint32
	pid     int32
}

type capData struct{ effective, permitted, inheritable uint32 }

func prctl(op, arg uintptr) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, op, arg, 0, 0, 0, 0)
	return errno
}

// limitCaps drops what is not in set from the calling thread's bounding set, and clears its inheritable and ambient sets. What a root
// process gets at its exec is the bounding set; others get nothing.
func limitCaps(set uint64) error {
	for c := range uintptr(64) {
		has, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prCapBSetRead, c, 0, 0, 0, 0)
		if errno != 0 {
			break // past the last capability the kernel knows
		}
		if has == 1 && set&(1<<c) == 0 {
			if errno := prctl(prCapBSetDrop, c); errno != 0 && (errno != syscall.EPERM || os.Geteuid() == 0) {
				return fmt.Errorf("drop capability %d: %w", c, errno)
			}
		}
	}
	h, d := capHeader{version: capVersion3}, [2]capData{}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&d)), 0); errno != 0 {
		return errno
	}
	d[0].inheritable, d[1].inheritable = 0, 0
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&d)), 0); errno != 0 {
		return errno
	}
	syscall.RawSyscall6(syscall.SYS_PRCTL, prCapAmbient, prAmbientClear, 0, 0, 0, 0)
	return nil
}

// Hide makes the agent non-dumpable: the container's processes cannot read its memory or environment (the token is in both).
func Hide() { prctl(prSetDumpable, 0) }
