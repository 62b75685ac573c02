package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

const (
	sysOpenat2    = 437 // on all architectures
	resolveInRoot = 0x10
	oPath         = 0x200000
)

// openBelow opens source/subpath to bind it, whatever it is: a socket cannot be opened for reading. A symlink in a volume's content cannot lead
// out of the volume: one that is absolute begins at the volume's root, which of a whole export is the `/` that its user knows.
func openBelow(source, subpath string, create bool) (*os.File, error) {
	if subpath == "" {
		return os.OpenFile(source, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	}
	root, err := os.Open(source)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openMade(int(root.Fd()), strings.TrimLeft(filepath.Clean(subpath), "/"), create)
	if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EPERM) {
		return openPlain(source, subpath, create)
	}
	return f, err
}

// openMade makes the directories that are missing when create says so.
func openMade(root int, path string, create bool) (*os.File, error) {
	f, err := openInRoot(root, path)
	if !create || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	parent, err := openMade(root, filepath.Dir(path), filepath.Dir(path) != ".")
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if err := syscall.Mkdirat(int(parent.Fd()), filepath.Base(path), 0o755); err != nil && err != syscall.EEXIST {
		return nil, &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return openInRoot(root, path)
}

func openInRoot(dir int, path string) (*os.File, error) {
	text, err := syscall.BytePtrFromString(path)
	if err != nil {
		return nil, err
	}
	how := struct{ flags, mode, resolve uint64 }{oPath | syscall.O_CLOEXEC, 0, resolveInRoot}
	fd, _, errno := syscall.Syscall6(sysOpenat2, uintptr(dir), uintptr(unsafe.Pointer(text)), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
	if errno != 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errno}
	}
	return os.NewFile(fd, path), nil
}

// openPlain is openBelow on a kernel (or sandbox) without openat2(2). It follows no absolute symlinks and opens no sockets.
func openPlain(source, subpath string, create bool) (*os.File, error) {
	const how = os.O_RDONLY | syscall.O_NONBLOCK
	root, err := os.OpenRoot(source)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(subpath, how, 0)
	if create && errors.Is(err, fs.ErrNotExist) {
		made := ""
		for _, element := range strings.Split(filepath.Clean(subpath), "/") {
			made = filepath.Join(made, element)
			if err := root.Mkdir(made, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
		f, err = root.OpenFile(subpath, how, 0)
	}
	return f, err
}
