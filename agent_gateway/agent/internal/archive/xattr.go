package archive

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const paxXattr = "SCHILY.xattr."

// readXattrs returns the extended attributes that belong to a file's content: file capabilities and the user's.
func readXattrs(path string) map[string]string {
	var names [4096]byte
	p, err := syscall.BytePtrFromString(path)
	if err != nil {
		return nil
	}
	n, _, errno := syscall.Syscall(syscall.SYS_LLISTXATTR, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&names[0])), uintptr(len(names)))
	if errno != 0 || n == 0 {
		return nil
	}
	var records map[string]string
	for _, name := range bytes.Split(bytes.TrimRight(names[:n], "\x00"), []byte{0}) {
		attr := string(name)
		if attr != "security.capability" && !strings.HasPrefix(attr, "user.") {
			continue
		}
		if value, ok := getXattr(p, attr); ok {
			if records == nil {
				records = map[string]string{}
			}
			records[paxXattr+attr] = value
		}
	}
	return records
}

func getXattr(path *byte, name string) (string, bool) {
	q, err := syscall.BytePtrFromString(name)
	if err != nil {
		return "", false
	}
	value := make([]byte, 64<<10)
	n, _, errno := syscall.Syscall6(syscall.SYS_LGETXATTR, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(q)),
		uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), 0, 0)
	return string(value[:n*b2u(errno == 0)]), errno == 0
}

func b2u(b bool) uintptr {
	if b {
		return 1
	}
	return 0
}

// writeXattrs sets the attributes of PAX records. Where the file system or the platform has none, they are left out, as moby does.
func writeXattrs(path string, records map[string]string) error {
	for key, value := range records {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		p, err1 := syscall.BytePtrFromString(path)
		q, err2 := syscall.BytePtrFromString(name)
		if err1 != nil || err2 != nil {
			return syscall.EINVAL
		}
		data := append([]byte(value), 0)
		_, _, errno := syscall.Syscall6(syscall.SYS_LSETXATTR, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(q)),
			uintptr(unsafe.Pointer(&data[0])), uintptr(len(value)), 0, 0)
		if errno != 0 && errno != syscall.ENOTSUP && errno != syscall.EPERM {
			return &fs.PathError{Op: "setxattr " + name, Path: path, Err: errno}
		}
	}
	return nil
}

// utimes sets times without following a symlink.
func utimes(path string, accessed, modified time.Time) error {
	const (
		atCwd      = ^uintptr(99) // AT_FDCWD
		noFollow   = 0x100
		utimensat  = syscall.SYS_UTIMENSAT
		nanosecond = 1
	)
	p, err := syscall.BytePtrFromString(path)
	if err != nil {
		return err
	}
	times := [2]syscall.Timespec{spec(accessed), spec(modified)}
	_, _, errno := syscall.Syscall6(utimensat, atCwd, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&times[0])), noFollow, 0, 0)
	if errno != 0 {
		return &fs.PathError{Op: "utimes", Path: path, Err: errno}
	}
	return nil
}

func spec(t time.Time) syscall.Timespec {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return syscall.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func readOnly(path string) bool {
	var st syscall.Statfs_t
	const flagReadOnly = 1
	return syscall.Statfs(path, &st) == nil && st.Flags&flagReadOnly != 0
}

// mountedOn tells whether path lies on another mount than the root.
func mountedOn(path string) bool {
	a, err1 := os.Stat("/")
	b, err2 := os.Stat(path)
	if err := errors.Join(err1, err2); err != nil {
		return false
	}
	return a.Sys().(*syscall.Stat_t).Dev != b.Sys().(*syscall.Stat_t).Dev
}
