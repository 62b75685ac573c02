package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Sink takes a tar: small pieces with Write, which may keep them until Flush, and files read straight into its space.
type Sink interface {
	io.Writer
	// Begin returns space to fill, until CommitLater tells how much of it was.
	Begin() ([]byte, error)
	CommitLater(n int)
	Flush()
}

// Getter writes what is at one path as a tar.
type Getter struct {
	Stat   *Stat
	source string // directory or file, resolved
	rename string // what stands for the source in the names
	isDir  bool

	out  Sink
	seen map[inode]string
}

type inode struct{ dev, ino uint64 }

// Open finds path for Get.
func (c Container) Open(path string) (*Getter, error) {
	stat, resolved, err := c.stat(path)
	if err != nil {
		return nil, err
	}
	return &Getter{Stat: stat, source: filepath.Clean(resolved), rename: filepath.Base(absolute(path)), isDir: stat.Mode.IsDir(),
		seen: map[inode]string{}}, nil
}

// Copy writes the tar to out. Files that vanish meanwhile are left out; the names begin with the last element of the path asked for.
func (g *Getter) Copy(out Sink) error {
	g.out = out
	err := filepath.WalkDir(g.source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if path != g.source && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EINVAL)) {
				return nil
			}
			return err
		}
		if hidden(path) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			if path != g.source && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		return g.add(path, info)
	})
	if err != nil {
		return err
	}
	if err := tar.NewWriter(out).Close(); err != nil { // the mark of the end
		return err
	}
	out.Flush()
	return nil
}

// name is path's name in the archive: the source is called rename; the root's own name is empty, as in `docker cp c:/ -`.
func (g *Getter) name(path string) string {
	rename := g.rename
	if rename == "/" {
		rename = ""
	}
	rel, _ := filepath.Rel(g.source, path)
	if rel == "." {
		return rename
	}
	return rename + "/" + rel
}

func (g *Getter) add(path string, info fs.FileInfo) error {
	name := g.name(path)
	if name == "" {
		name = "/"
	}
	if info.Mode()&os.ModeSocket != 0 {
		return nil // tar has no sockets
	}
	link := ""
	if info.Mode()&os.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(path); err != nil {
			return nil
		}
	}
	h, err := g.header(info, link)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	h.Name = name
	if info.IsDir() && !strings.HasSuffix(name, "/") {
		h.Name += "/"
	}
	h.PAXRecords = readXattrs(path)
	if st, ok := info.Sys().(*syscall.Stat_t); ok && !info.IsDir() && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := g.seen[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			h.PAXRecords = nil
		} else {
			g.seen[id] = h.Name
		}
	}
	if h.Typeflag == tar.TypeReg {
		return g.addFile(path, h)
	}
	return g.writeHeader(h)
}

// writeHeader writes a header alone. A tar.Writer wants a file's content before the next header, but ours goes past it; so each
// has its own.
func (g *Getter) writeHeader(h *tar.Header) error { return tar.NewWriter(g.out).WriteHeader(h) }

// header is tar.FileInfoHeader without its look-up of names.
func (g *Getter) header(info fs.FileInfo, link string) (*tar.Header, error) {
	h, err := tar.FileInfoHeader(nameless{info}, link)
	if err != nil {
		return nil, err
	}
	h.Format = tar.FormatPAX
	h.ModTime = info.ModTime().Truncate(time.Second)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		h.Uid, h.Gid = int(st.Uid), int(st.Gid)
		if info.Mode()&os.ModeDevice != 0 {
			h.Devmajor, h.Devminor = int64(major(uint64(st.Rdev))), int64(minor(uint64(st.Rdev)))
		}
	}
	return h, nil
}

type nameless struct{ fs.FileInfo }

func (nameless) Sys() any { return nil }

// addFile streams a regular file: what it had when its header was written, cut or filled up with zeros if it changes meanwhile.
func (g *Getter) addFile(path string, h *tar.Header) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := g.writeHeader(h); err != nil {
		return err
	}
	for left := h.Size; left > 0; {
		space, err := g.out.Begin()
		if err != nil {
			return err
		}
		space = space[:min(left, int64(len(space)))]
		n, err := f.Read(space)
		if n == 0 && err == io.EOF {
			n, err = len(space), nil
			clear(space)
		}
		g.out.CommitLater(n)
		if n == 0 && err != nil {
			return err
		}
		left -= int64(n)
	}
	_, err = g.out.Write(padding[:-h.Size&(tarBlock-1)])
	return err
}

var padding [tarBlock]byte

func major(dev uint64) uint64 { return dev>>8&0xfff | dev>>32&^0xfff }
func minor(dev uint64) uint64 { return dev&0xff | dev>>12&^0xff }
func device(major, minor int64) int {
	ma, mi := uint64(major), uint64(minor)
	return int(mi&0xff | (ma&0xfff)<<8 | (mi&^0xff)<<12 | (ma&^0xfff)<<32)
}
