package spool

import "encoding/binary"

// Cursor is a place in the spool.
type Cursor struct{ seg, off int64 }

// Entry is one line (its newline included) or a part of one.
type Entry struct {
	At   int64 // nanoseconds since 1970
	Kind byte
	Data []byte
}

// Oldest is the place of the oldest entry kept.
func (s *Spool) Oldest() Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Cursor{seg: s.first}
}

// Newest is the place behind the last entry.
func (s *Spool) Newest() Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest()
}

func (s *Spool) newest() Cursor {
	if len(s.segs) == 0 {
		return Cursor{seg: s.first}
	}
	return Cursor{seg: s.first + int64(len(s.segs)) - 1, off: s.segs[len(s.segs)-1].size}
}

// Tail is the place of the last n entries.
func (s *Spool) Tail(n int64, buf []byte) Cursor {
	s.mu.Lock()
	var total int64
	for _, seg := range s.segs {
		total += seg.entries
	}
	c, skip := Cursor{seg: s.first}, total-n
	for _, seg := range s.segs {
		if skip < seg.entries {
			break
		}
		skip -= seg.entries
		c.seg++
	}
	s.mu.Unlock()
	for skip > 0 {
		count := skip
		s.Read(&c, s.Newest(), buf, func(Entry) bool { skip--; return skip > 0 })
		if skip == count {
			break
		}
	}
	return c
}

// Read calls each for the entries from c on that lie before limit, as many as fit into buf (at least 64 KiB), and moves c behind
// those it was called for. It stops when each returns false. Nothing read: false.
func (s *Spool) Read(c *Cursor, limit Cursor, buf []byte, each func(Entry) bool) bool {
	for {
		n := s.fill(c, limit, buf)
		if n == 0 {
			return false
		}
		if n < 0 {
			continue // on to the next segment
		}
		for p := buf[:n]; len(p) >= entryHeader; {
			word := binary.LittleEndian.Uint32(p[8:])
			size := entryHeader + int(word&0xffffff)
			if size > len(p) {
				break
			}
			e := Entry{At: int64(binary.LittleEndian.Uint64(p)), Kind: byte(word>>24) &^ partialEntry, Data: p[entryHeader:size]}
			c.off += int64(size)
			if !each(e) {
				return true
			}
			p = p[size:]
		}
		return true
	}
}

// fill reads bytes at c; -1 when c has moved to another segment, 0 when there is nothing before limit.
func (s *Spool) fill(c *Cursor, limit Cursor, buf []byte) int {
	s.mu.Lock()
	if c.seg < s.first { // what it pointed to was dropped
		*c = Cursor{seg: s.first}
	}
	i := c.seg - s.first
	if i >= int64(len(s.segs)) || c.seg > limit.seg {
		s.mu.Unlock()
		return 0
	}
	seg := s.segs[i]
	end := seg.size
	last := i == int64(len(s.segs))-1
	if c.seg == limit.seg {
		end, last = min(end, limit.off), true
	}
	memory := seg.memory
	s.mu.Unlock()
	if c.off >= end {
		if last {
			return 0
		}
		*c = Cursor{seg: c.seg + 1}
		return -1
	}
	n := int(min(end-c.off, int64(len(buf))))
	if seg.file == nil {
		return copy(buf[:n], memory[c.off:])
	}
	n, err := seg.file.ReadAt(buf[:n], c.off)
	if err != nil && n == 0 {
		return 0
	}
	return n
}

// More returns a channel that is closed when there is something behind c, or the run has ended (then ended is true and the channel nil
// when nothing is left to read).
func (s *Spool) More(c Cursor) (more <-chan struct{}, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c != s.newest() {
		done := make(chan struct{})
		close(done)
		return done, false
	}
	if s.ended {
		return nil, true
	}
	s.waiters++
	return s.more, false
}
