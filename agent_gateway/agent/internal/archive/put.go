package archive

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sockerless/agent/internal/stream"
)

// Source gives a tar: in copies with Read, or as it lies in its own memory with Next, which Done lets go of.
type Source interface {
	io.Reader
	Next() ([]byte, error)
	Done(n int)
}

// Putter extracts one tar.
type Putter struct {
	NoOverwriteDirNonDir bool
	Owner                *[2]int // uid and gid for everything; nil: those of the archive

	dest    string // real path
	planted map[string]bool
	parent  struct{ name, path string } // the last one resolved
	dirs    []*tar.Header
	dirPath []string
	buf     []byte
	source  Source
}

// Put extracts the tar from source into the directory path, which must exist.
func (c Container) Put(path string, p *Putter, source Source) error {
	dest, err := filepath.EvalSymlinks(absolute(path))
	if err != nil {
		return c.refuse(path, err)
	}
	info, err := os.Stat(dest)
	if err != nil {
		return c.refuse(path, err)
	}
	if !info.IsDir() {
		return stream.Refuse(400, "extraction point is not a directory")
	}
	p.dest, p.planted, p.buf, p.source = dest, map[string]bool{}, make([]byte, smallSize), source
	err = p.extract()
	switch {
	case errors.Is(err, syscall.EROFS) && readOnly("/") && !mountedOn(dest):
		return stream.Refuse(400, "container rootfs is marked read-only")
	case errors.Is(err, syscall.EROFS):
		return stream.Refuse(400, "mounted volume is marked read-only")
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
		return stream.Refuse(400, "invalid tar archive: %v", err)
	}
	return err
}

const (
	tarBlock  = 512
	smallSize = 64 << 10 // up to here a file's content comes through the tar.Reader
)

// large tells whether a file's content is taken straight from the source: big, and as it is (sparse files are maps and pieces).
func large(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return false
		}
	}
	return h.Size > smallSize && (h.Typeflag == tar.TypeReg || h.Typeflag == '\x00')
}

func (p *Putter) extract() error {
	tr := tar.NewReader(p.source)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return p.finishDirs()
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // we check the names ourselves
			return err
		}
		if err := p.entry(h, tr); err != nil {
			return err
		}
		if large(h) {
			tr = tar.NewReader(p.source) // the old one believes the content still to come
		}
	}
}

func (p *Putter) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := filepath.Clean(h.Name)
	if strings.HasPrefix(name, "../") || name == ".." {
		return stream.Refuse(400, "%q is outside of %q", h.Name, p.dest)
	}
	name = strings.TrimPrefix(name, "/")
	if name == "" || name == "." {
		if h.Typeflag != tar.TypeDir {
			return stream.Refuse(400, "%q is outside of %q", h.Name, p.dest)
		}
		return nil // the destination itself stays as it is
	}
	path, err := p.locate(name)
	if err != nil {
		return err
	}
	exists, err := p.makeWay(h, path)
	if err != nil {
		return err
	}
	if err := p.create(h, path, exists, r); err != nil {
		return err
	}
	return p.dress(h, path)
}

// makeWay removes what stands at path, but for a directory that is merged with one of the archive.
func (p *Putter) makeWay(h *tar.Header, path string) (exists bool, err error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	dir := h.Typeflag == tar.TypeDir
	switch {
	case p.NoOverwriteDirNonDir && info.IsDir() && !dir:
		return false, stream.Refuse(400, "cannot overwrite directory %q with non-directory %q", path, p.dest)
	case p.NoOverwriteDirNonDir && !info.IsDir() && dir:
		return false, stream.Refuse(400, "cannot overwrite non-directory %q with directory %q", path, p.dest)
	case info.IsDir() && dir:
		return true, nil
	}
	delete(p.planted, path)
	if err := os.RemoveAll(path); err != nil {
		return false, err
	}
	p.parent.name = "" // the cached parent may be gone
	return false, nil
}

func (p *Putter) create(h *tar.Header, path string, exists bool, r io.Reader) error {
	mode := uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeDir:
		if exists {
			return nil
		}
		return os.Mkdir(path, 0o700)
	case tar.TypeReg, '\x00', tar.TypeGNUSparse:
		return p.file(path, h, r)
	case tar.TypeSymlink:
		p.planted[path] = true
		return os.Symlink(h.Linkname, path)
	case tar.TypeLink:
		target := filepath.Join("/", h.Linkname)[1:]
		if outside := filepath.Clean(h.Linkname); strings.HasPrefix(outside, "../") || target == "" {
			return stream.Refuse(400, "invalid hardlink %q -> %q", h.Name, h.Linkname)
		}
		from, err := p.locate(target)
		if err != nil {
			return err
		}
		return os.Link(from, path)
	case tar.TypeBlock:
		return syscall.Mknod(path, mode|syscall.S_IFBLK, device(h.Devmajor, h.Devminor))
	case tar.TypeChar:
		return syscall.Mknod(path, mode|syscall.S_IFCHR, device(h.Devmajor, h.Devminor))
	case tar.TypeFifo:
		return syscall.Mknod(path, mode|syscall.S_IFIFO, 0)
	}
	return stream.Refuse(400, "unhandled tar header type %d", h.Typeflag)
}

func (p *Putter) file(path string, h *tar.Header, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if large(h) {
		err = p.fill(f, h.Size)
	} else {
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{r}, p.buf)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// fill writes the next size bytes of the source, and passes over those that fill its last block up.
func (p *Putter) fill(f *os.File, size int64) error {
	for end := size + -size&(tarBlock-1); end > 0; {
		in, err := p.source.Next()
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		in = in[:min(int64(len(in)), end)]
		if _, err := f.Write(in[:min(int64(len(in)), size)]); err != nil {
			return err
		}
		end, size = end-int64(len(in)), max(0, size-int64(len(in)))
		p.source.Done(len(in))
	}
	return nil
}

// dress gives path the header's owner, attributes, mode and times. Directories get their times last: what goes into them changes those.
func (p *Putter) dress(h *tar.Header, path string) error {
	if h.Typeflag == tar.TypeLink {
		return nil
	}
	uid, gid := h.Uid, h.Gid
	if p.Owner != nil {
		uid, gid = p.Owner[0], p.Owner[1]
	}
	if err := os.Lchown(path, uid, gid); err != nil && (os.Geteuid() == 0 || !errors.Is(err, syscall.EPERM)) {
		return err
	}
	if err := writeXattrs(path, h.PAXRecords); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		setTimes(path, h)
		return nil
	}
	if err := syscall.Chmod(path, uint32(h.Mode&0o7777)); err != nil {
		return &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	if h.Typeflag == tar.TypeDir {
		p.dirs, p.dirPath = append(p.dirs, h), append(p.dirPath, path)
		return nil
	}
	return setTimes(path, h)
}

func (p *Putter) finishDirs() error {
	for i, h := range p.dirs {
		if err := setTimes(p.dirPath[i], h); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func setTimes(path string, h *tar.Header) error {
	accessed := h.AccessTime
	if accessed.Before(time.Unix(0, 0)) {
		accessed = h.ModTime
	}
	return utimes(path, accessed, h.ModTime)
}
