package archive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sockerless/agent/internal/stream"
)

// locate turns a name of the archive into a real path: no symlink is left in it but perhaps the last element. Missing directories are made.
//
// Symlinks that were in the container before are followed, as moby follows them (`/bin` may be a link to `usr/bin`). Those that came with this archive are followed
// only while they stay below the destination: an archive can not reach out of it by its own means.
func (p *Putter) locate(name string) (string, error) {
	dir, base := filepath.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if dir == "" {
		return filepath.Join(p.dest, base), nil
	}
	if p.parent.name != dir {
		path, err := p.walk(dir)
		if err != nil {
			return "", err
		}
		p.parent.name, p.parent.path = dir, path
	}
	return filepath.Join(p.parent.path, base), nil
}

func (p *Putter) walk(dir string) (string, error) {
	path := p.dest
	for _, element := range strings.Split(dir, "/") {
		path = filepath.Join(path, element)
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := os.Mkdir(path, 0o755); err != nil {
				return "", err
			}
			continue
		case err != nil:
			return "", err
		case info.Mode()&os.ModeSymlink == 0:
			continue // a file here fails at the next step
		}
		planted := p.planted[path]
		real, err := p.follow(path)
		if err != nil {
			return "", err
		}
		if planted && !p.below(real) {
			return "", stream.Refuse(400, "%q leads outside of %q by a symlink of the archive", dir, p.dest)
		}
		path = real
	}
	return path, nil
}

// follow resolves the symlink path. A chain that uses a planted link on its way counts as planted.
func (p *Putter) follow(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", stream.Refuse(400, "%q is a symlink to nothing", path)
	}
	if err == nil && len(p.planted) > 0 && !p.below(real) && p.chainPlanted(path) {
		return "", stream.Refuse(400, "%q leads outside of %q by a symlink of the archive", path, p.dest)
	}
	return real, err
}

// chainPlanted tells whether resolving path goes over a symlink of this archive.
func (p *Putter) chainPlanted(path string) bool {
	for range 40 {
		if p.planted[path] {
			return true
		}
		link, err := os.Readlink(path)
		if err != nil {
			return false
		}
		if !filepath.IsAbs(link) {
			link = filepath.Dir(path) + "/" + link
		}
		// Each prefix of the target may be a planted link as well.
		prefix := ""
		for _, element := range strings.Split(strings.Trim(link, "/"), "/") {
			prefix = filepath.Join(prefix, "/", element)
			if p.planted[prefix] {
				return true
			}
		}
		path = prefix
	}
	return true
}

func (p *Putter) below(path string) bool {
	return p.dest == "/" || path == p.dest || strings.HasPrefix(path, p.dest+"/")
}
