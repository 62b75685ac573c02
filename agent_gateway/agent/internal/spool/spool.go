package spool

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

const (
	segments     = 8
	defaultMax   = 64 << 20
	memoryMax    = 8 << 20 // without a writable file system
	batchMax     = 64 << 10
	entryHeader  = 12 // nanoseconds since 1970 (8 bytes), kind and length (4 bytes)
	partialEntry = 0x80
)

// Spool is a bounded log of entries; the oldest eighth is dropped when it is full. Its files have no names: the container's
// processes and `docker diff` do not see them.
type Spool struct {
	dir string
	max int64

	mu      sync.Mutex
	segs    []*segment
	first   int64 // number of segs[0]
	batch   []byte
	entries int64 // in batch
	more    chan struct{}
	waiters int
	ended   bool // no run is going on: followers stop at the end
}

type segment struct {
	file    *os.File // nil: in memory
	memory  []byte
	size    int64
	entries int64
}

// New makes a spool whose files lie in dir; where dir cannot be written it stays in memory.
func New(dir string) *Spool {
	return &Spool{dir: dir, max: defaultMax, ended: true, more: make(chan struct{})}
}

// Begin starts a run: maxBytes bounds the spool from now on (0: a default).
func (s *Spool) Begin(maxBytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if maxBytes > 0 {
		s.max = maxBytes
	}
	s.ended = false
}

// End ends the run: followers read on to the end and stop.
func (s *Spool) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.wake()
}

// Add puts an entry into the batch; Flush makes it readable.
func (s *Spool) Add(at int64, kind byte, line []byte, partial bool) {
	n := uint32(len(line))
	flags := uint32(kind)
	if partial {
		flags |= partialEntry
	} else {
		n++
	}
	b := binary.LittleEndian.AppendUint64(s.batch, uint64(at))
	b = binary.LittleEndian.AppendUint32(b, flags<<24|n)
	b = append(b, line...)
	if !partial {
		b = append(b, '\n')
	}
	s.batch = b
	s.entries++
	if int64(len(b)) >= min(batchMax, s.max/segments/4) {
		s.Flush()
	}
}

// Flush writes the batch. Add and Flush are called by one goroutine at a time.
func (s *Spool) Flush() {
	if len(s.batch) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seg := s.writable(int64(len(s.batch)))
	if seg.file != nil {
		if _, err := seg.file.WriteAt(s.batch, seg.size); err != nil { // the disk is full: go on in memory
			seg = s.rotate(&segment{})
		}
	}
	if seg.file == nil {
		seg.memory = append(seg.memory, s.batch...)
	}
	seg.size += int64(len(s.batch))
	seg.entries += s.entries
	s.batch, s.entries = s.batch[:0], 0
	s.wake()
}

func (s *Spool) wake() {
	if s.waiters > 0 {
		close(s.more)
		s.more, s.waiters = make(chan struct{}), 0
	}
}

// writable returns the segment that takes the next n bytes.
func (s *Spool) writable(n int64) *segment {
	if len(s.segs) > 0 {
		last := s.segs[len(s.segs)-1]
		limit := s.max
		if last.file == nil {
			limit = min(limit, memoryMax)
		}
		if last.size+n <= limit/segments || last.size == 0 {
			return last
		}
	}
	return s.rotate(&segment{file: s.create()})
}

func (s *Spool) rotate(seg *segment) *segment {
	limit := s.max
	if seg.file == nil {
		limit = min(limit, memoryMax)
	}
	var total int64
	for _, old := range s.segs {
		total += old.size
	}
	for len(s.segs) > 0 && (len(s.segs) >= segments || total > limit-limit/segments) {
		// Readers may still hold the dropped segment; its file is closed when the last of them lets go of it.
		total -= s.segs[0].size
		s.segs = append(s.segs[:0:0], s.segs[1:]...)
		s.first++
	}
	s.segs = append(s.segs, seg)
	return seg
}

// create opens a file without a name, or returns nil when that cannot be.
func (s *Spool) create() *os.File {
	const tmpfile = 0x400000 | syscall.O_DIRECTORY
	if os.MkdirAll(s.dir, 0o700) != nil {
		return nil
	}
	if f, err := os.OpenFile(s.dir, os.O_RDWR|tmpfile, 0o600); err == nil {
		return f
	}
	name := filepath.Join(s.dir, "log")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil
	}
	os.Remove(name)
	return f
}
