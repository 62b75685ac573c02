// Package stream is the agent's end of a stream: flow control by acknowledgement, and resumption after a broken socket.
package stream

import "sync"

const blockSize = 256 << 10

var blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}

// fifo holds the bytes [base, end) of one direction of a stream, in pooled blocks: what a producer writes into a block is sent
// from there, and is never moved. Its owner locks it.
type fifo struct {
	spans     []span
	base, end int64
}

type span struct {
	data  *[blockSize]byte
	start int64 // offset in the stream of data[0]
	used  int
}

// room returns writable space of at least least bytes behind the end; what is written there counts after commit.
func (f *fifo) room(least int) []byte {
	if n := len(f.spans); n == 0 || blockSize-f.spans[n-1].used < least {
		f.spans = append(f.spans, span{data: blocks.Get().(*[blockSize]byte), start: f.end})
	}
	last := &f.spans[len(f.spans)-1]
	return last.data[last.used:]
}

func (f *fifo) commit(n int) {
	f.spans[len(f.spans)-1].used += n
	f.end += int64(n)
}

// from returns the contiguous bytes that begin at pos.
func (f *fifo) from(pos int64) []byte {
	for i := range f.spans {
		s := &f.spans[i]
		if pos >= s.start && pos < s.start+int64(s.used) {
			return s.data[pos-s.start : s.used]
		}
	}
	return nil
}

// drop forgets the bytes before pos. The last block stays when a producer may be writing into it.
func (f *fifo) drop(pos int64, producing bool) {
	f.base = pos
	for len(f.spans) > 0 {
		s := f.spans[0]
		if s.start+int64(s.used) > pos || (len(f.spans) == 1 && producing) {
			return
		}
		blocks.Put(s.data)
		copy(f.spans, f.spans[1:])
		f.spans[len(f.spans)-1] = span{}
		f.spans = f.spans[:len(f.spans)-1]
	}
}

func (f *fifo) clear() {
	f.base = f.end
	f.drop(f.end, false)
}
