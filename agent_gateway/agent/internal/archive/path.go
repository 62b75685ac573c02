// Package archive moves files between the container's file system and tar streams, with the rules and texts of moby's `cp`.
package archive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sockerless/agent/internal/stream"
)

// Stat is the X-Docker-Container-Path-Stat of a path.
type Stat struct {
	Name       string      `json:"name"`
	Size       int64       `json:"size"`
	Mode       os.FileMode `json:"mode"`
	Mtime      time.Time   `json:"mtime"`
	LinkTarget string      `json:"linkTarget"`
}

// Container names the container in errors.
type Container struct{ ID string }

func (c Container) notFound(path string) error {
	return stream.Refuse(404, "Could not find the file %s in container %s", path, c.ID)
}

// refuse gives an error of the file system its status.
func (c Container) refuse(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c.notFound(path)
	case errors.Is(err, syscall.ENOTDIR):
		return stream.Refuse(500, "lstat %s: not a directory", path)
	case errors.Is(err, fs.ErrPermission):
		return stream.Refuse(403, "%v", err)
	}
	return err
}

// absolute cleans path as moby does: a trailing `/` or `/.` stays, for it says "the directory".
func absolute(path string) string {
	clean := filepath.Join("/", path)
	switch {
	case strings.HasSuffix(path, "/.") || path == ".":
		if clean == "/" {
			return "/."
		}
		return clean + "/."
	case strings.HasSuffix(path, "/") && clean != "/":
		return clean + "/"
	}
	return clean
}

// resolve follows the symlinks in path but for its last element.
func resolve(path string) (resolved string, err error) {
	dir, base := filepath.Split(path)
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	return strings.TrimSuffix(dir, "/") + "/" + base, nil
}

// Stat describes path; a symlink itself, with its target fully resolved.
func (c Container) Stat(path string) (*Stat, error) {
	stat, _, err := c.stat(path)
	return stat, err
}

func (c Container) stat(path string) (*Stat, string, error) {
	abs := absolute(path)
	resolved, err := resolve(abs)
	if err != nil {
		return nil, "", c.refuse(path, err)
	}
	info, err := os.Lstat(resolved)
	if err != nil {
		return nil, "", c.refuse(path, err)
	}
	if hidden(resolved) {
		return nil, "", c.notFound(path)
	}
	stat := &Stat{Name: filepath.Base(abs), Size: info.Size(), Mode: info.Mode(), Mtime: info.ModTime()}
	if info.Mode()&os.ModeSymlink != 0 {
		stat.LinkTarget = followAll(resolved)
	}
	return stat, resolved, nil
}

// followAll resolves a symlink as far as it goes; what does not exist stays as it is written.
func followAll(path string) string {
	for range 40 {
		link, err := os.Readlink(path)
		if err != nil {
			break
		}
		if filepath.IsAbs(link) {
			path = filepath.Clean(link)
		} else {
			path = filepath.Join(filepath.Dir(path), link)
		}
		if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			path = filepath.Join(dir, filepath.Base(path))
		}
	}
	return path
}
