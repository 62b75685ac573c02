package rootfs

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// copyUp copies what the image has at target into the volume at source, when that is empty: owners, modes, times, links and the
// directory's own owner and mode, as moby does for a new volume.
func copyUp(target, source string) error {
	volume, err := os.ReadDir(source + "/.")
	if err != nil || len(volume) > 0 {
		return err
	}
	info, err := os.Stat(target)
	if err != nil || !info.IsDir() {
		return err
	}
	if err := copyTree(target, source+"/."); err != nil {
		return err
	}
	return dressLike(source+"/.", info)
}

func copyTree(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if err := copyOne(filepath.Join(from, entry.Name()), to+"/"+entry.Name(), info); err != nil {
			return err
		}
	}
	return nil
}

func copyOne(from, to string, info os.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode(); {
	case mode.IsDir():
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		if err := copyTree(from, to); err != nil {
			return err
		}
	case mode&os.ModeSymlink != 0:
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(link, to); err != nil {
			return err
		}
		return os.Lchown(to, int(st.Uid), int(st.Gid))
	case mode.IsRegular():
		if err := copyFile(from, to); err != nil {
			return err
		}
	case mode&os.ModeSocket != 0:
		return nil
	default:
		if err := syscall.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
			return &os.PathError{Op: "mknod", Path: to, Err: err}
		}
	}
	return dressLike(to, info)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

func dressLike(path string, info os.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := syscall.Chmod(path, st.Mode&0o7777); err != nil {
		return err
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}
