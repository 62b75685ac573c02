package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	msReadOnly = 1
	msNoSuid   = 2
	msNoDev    = 4
	msNoExec   = 8
	msRemount  = 32
	msNoAtime  = 1024
	msNoDirAt  = 2048
	msBind     = 4096
	msRec      = 16384
	msPrivate  = 1 << 18
	msRelAtime = 1 << 21
	mntDetach  = 2
)

// lockedFlags of a mount must be repeated when it is remounted, or an unprivileged remount is refused.
const lockedFlags = msNoSuid | msNoDev | msNoExec | msNoAtime | msNoDirAt | msRelAtime

func (s *Spec) mounts() error {
	if len(s.Mounts) == 0 {
		return nil
	}
	syscall.Mount("", "/", "", msRec|msPrivate, "") // refused on some platforms, where nothing is shared anyway
	for _, m := range s.byDepth() {
		var err error
		switch m.Type {
		case "bind", "volume":
			err = m.bind(s)
		case "tmpfs":
			err = m.tmpfs(s)
		case "directory":
			err = m.directory(s)
		default:
			err = fmt.Errorf("mount type %q is unknown", m.Type)
		}
		var missing *missingSource
		if errors.As(err, &missing) {
			return err
		}
		if errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("mount %s: the platform does not permit mounts in this container (operation not permitted)", m.Target)
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	return nil
}

// byDepth orders mounts so that one below another's target comes after it.
func (s *Spec) byDepth() []Mount {
	list := slices.Clone(s.Mounts)
	slices.SortStableFunc(list, func(a, b Mount) int {
		return strings.Count(filepath.Clean(a.Target), "/") - strings.Count(filepath.Clean(b.Target), "/")
	})
	return list
}

func (m *Mount) bind(s *Spec) error {
	source, err := openBelow(m.Source, m.Subpath, m.Create)
	if errors.Is(err, fs.ErrNotExist) {
		return &missingSource{m}
	}
	if err != nil {
		return err
	}
	defer source.Close()
	from := fmt.Sprintf("/proc/self/fd/%d", source.Fd())
	info, err := source.Stat()
	if err != nil {
		return err
	}
	target, err := s.prepareTarget(m.Target, info.IsDir())
	if err != nil {
		return err
	}
	if m.CopyUp && info.IsDir() {
		if err := copyUp(target, from); err != nil {
			return fmt.Errorf("copy the image's files into the volume: %w", err)
		}
	}
	if err := syscall.Mount(from, target, "", msBind|msRec, ""); err != nil {
		return err
	}
	if m.ReadOnly {
		return remountReadOnly(target)
	}
	return nil
}

// directory makes the target, where the platform has no volume for it. Below a root that is read-only it stays writable, as a volume does.
func (m *Mount) directory(s *Spec) error {
	target, err := s.prepareTarget(m.Target, true)
	if err != nil || !s.ReadOnlyRoot {
		return err
	}
	return syscall.Mount(target, target, "", msBind|msRec, "")
}

// missingSource is moby's refusal of a bind whose source is not there.
type missingSource struct{ m *Mount }

func (e *missingSource) Error() string {
	path := e.m.Source
	if e.m.Subpath != "" { // the source is a whole export; its root is what the user knows as /
		path = "/" + strings.TrimPrefix(e.m.Subpath, "/")
	}
	return fmt.Sprintf("invalid mount config for type %q: bind source path does not exist: %s", "bind", path)
}

func remountReadOnly(target string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(target, &st); err != nil {
		return err
	}
	return syscall.Mount("", target, "", msRemount|msBind|msReadOnly|uintptr(st.Flags)&lockedFlags, "")
}

// writable takes back that a mount is read-only.
func writable(target string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(target, &st); err != nil {
		return err
	}
	if st.Flags&msReadOnly == 0 {
		return errNotReadOnly
	}
	return syscall.Mount("", target, "", msRemount|msBind|uintptr(st.Flags)&lockedFlags, "")
}

var errNotReadOnly = errors.New("the mount is not read-only")

func (m *Mount) tmpfs(s *Spec) error {
	target, err := s.prepareTarget(m.Target, true)
	if err != nil {
		return err
	}
	flags, data := tmpfsOptions(m.Options)
	if info, err := os.Stat(target); err == nil && !strings.Contains(","+data, ",mode=") {
		if entries, _ := os.ReadDir(target); len(entries) > 0 || info.Mode().Perm() != 0o755 {
			data = strings.TrimPrefix(fmt.Sprintf("%s,mode=%o", data, info.Sys().(*syscall.Stat_t).Mode&0o7777), ",")
		}
	}
	if m.ReadOnly {
		flags |= msReadOnly
	}
	return syscall.Mount("tmpfs", target, "tmpfs", flags, data)
}

// tmpfsOptions splits mount options into flags and data; noexec, nosuid and nodev hold unless taken back, as in moby.
func tmpfsOptions(options string) (uintptr, string) {
	type flag struct {
		bit uintptr
		on  bool
	}
	names := map[string]flag{"ro": {msReadOnly, true}, "rw": {msReadOnly, false}, "nosuid": {msNoSuid, true}, "suid": {msNoSuid, false},
		"nodev": {msNoDev, true}, "dev": {msNoDev, false}, "noexec": {msNoExec, true}, "exec": {msNoExec, false}, "noatime": {msNoAtime, true},
		"atime": {msNoAtime, false}, "nodiratime": {msNoDirAt, true}, "diratime": {msNoDirAt, false}, "relatime": {msRelAtime, true},
		"norelatime": {msRelAtime, false}, "defaults": {}, "": {}, "rprivate": {}, "private": {}}
	flags, data := uintptr(msNoSuid|msNoDev|msNoExec), []string{}
	for _, option := range strings.Split(options, ",") {
		f, ok := names[option]
		switch {
		case !ok:
			data = append(data, option)
		case f.on:
			flags |= f.bit
		default:
			flags &^= f.bit
		}
	}
	return flags, strings.Join(data, ",")
}

// shm gives /dev/shm its size.
func (s *Spec) shm() error {
	const path = "/dev/shm"
	var st syscall.Statfs_t
	if s.ShmSize <= 0 || syscall.Statfs(path, &st) != nil {
		return nil
	}
	const tmpfsMagic = 0x01021994
	size := fmt.Sprintf("size=%d", s.ShmSize)
	isShm := st.Type == tmpfsMagic
	if isShm && int64(st.Blocks)*int64(st.Bsize) == s.ShmSize {
		return nil
	}
	err := errors.ErrUnsupported
	if isShm {
		err = syscall.Mount("shm", path, "tmpfs", msRemount|msNoSuid|msNoDev|msNoExec, size)
	}
	if err != nil {
		err = syscall.Mount("shm", path, "tmpfs", msNoSuid|msNoDev|msNoExec, "mode=1777,"+size)
	}
	// A platform without mounts may still offer as much as was asked for.
	if err != nil && !(isShm && int64(st.Blocks)*int64(st.Bsize) >= s.ShmSize) {
		return fmt.Errorf("size of /dev/shm cannot be set to %d: %w", s.ShmSize, err)
	}
	return nil
}

// detachSources takes whole exports out of the container's sight.
func (s *Spec) detachSources() error {
	for _, source := range s.Sources {
		if err := syscall.Unmount(source, mntDetach); err != nil && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("detach %s: %w", source, err)
		}
		os.Remove(source)
	}
	return nil
}

// ReadOnly makes the root read-only when the spec asks for it.
func (s *Spec) ReadOnly() error {
	if !s.ReadOnlyRoot {
		return nil
	}
	if err := remountReadOnly("/"); err != nil {
		return fmt.Errorf("the root cannot be made read-only: %w", err)
	}
	return nil
}
