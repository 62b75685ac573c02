package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// errIntoSource: a symlink of the image's leads into what the platform has mounted for volumes. That may be a whole export, with files of others.
var errIntoSource = errors.New("a symlink in the image leads into the platform's volumes")

// real resolves the symlinks in path, and refuses those that lead into a source.
func (s *Spec) real(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	for _, source := range s.Sources {
		export, err := filepath.EvalSymlinks(source)
		if err != nil {
			continue // nothing is there to lead to
		}
		if real == export || strings.HasPrefix(real, export+"/") {
			return "", fmt.Errorf("%s: %w", path, errIntoSource)
		}
	}
	return real, nil
}

// prepareTarget resolves target and makes it when it is missing: a directory, or an empty file to bind a file on.
func (s *Spec) prepareTarget(target string, dir bool) (string, error) {
	if real, err := s.real(target); err == nil || errors.Is(err, errIntoSource) {
		return real, err
	}
	parent, err := s.makeDirs(filepath.Dir(filepath.Clean("/" + target)))
	if err != nil {
		return "", err
	}
	path := filepath.Join(parent, filepath.Base(target))
	if dir {
		err = os.Mkdir(path, 0o755)
	} else {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err == nil {
			f.Close()
		}
	}
	return path, err
}

// makeDirs is os.MkdirAll that returns the real path.
func (s *Spec) makeDirs(path string) (string, error) {
	if real, err := s.real(path); err == nil || errors.Is(err, errIntoSource) {
		return real, err
	}
	parent, err := s.makeDirs(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	path = filepath.Join(parent, filepath.Base(path))
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return path, nil
}

// etcFile is the real path of a file of /etc. A symlink to nothing gives way to a file.
func (s *Spec) etcFile(name string) (string, error) {
	dir, err := s.makeDirs("/etc")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	real, err := s.real(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	if _, err := os.Lstat(path); err == nil {
		return path, os.Remove(path)
	}
	return path, nil
}
