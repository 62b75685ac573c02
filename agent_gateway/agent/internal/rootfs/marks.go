package rootfs

import (
	"errors"
	"os"
)

// marks makes what moby adds to every image: programs know by /.dockerenv that they are in a container, and find the mount table at /etc/mtab.
func (s *Spec) marks() error {
	// With O_EXCL a symlink of the image's is not followed.
	if f, err := os.OpenFile("/.dockerenv", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755); err == nil {
		f.Close()
	}
	path, err := s.etcFile("mtab")
	if err == nil {
		os.Symlink("/proc/mounts", path) // refused when there is one
	}
	if errors.Is(err, errIntoSource) {
		return err
	}
	return nil // a read-only image has none
}
