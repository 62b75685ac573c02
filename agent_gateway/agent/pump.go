package main

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"sockerless/agent/internal/stream"
)

// pump carries one output of an exec to its stream: read(2) puts the bytes where the websocket's writev takes them from, behind
// a stdcopy header.
type pump struct {
	f    *os.File
	s    *stream.Stream
	kind byte
	send bool
	idle atomic.Bool // everything that was there has been read
	done chan struct{}
}

func newPump(f *os.File, s *stream.Stream, kind byte, send bool) *pump {
	return &pump{f: f, s: s, kind: kind, send: send, done: make(chan struct{})}
}

func (p *pump) run() {
	defer close(p.done)
	defer p.f.Close()
	if p.send && p.copy() {
		return
	}
	p.idle.Store(true)
	discard(p.f) // nobody reads it, but the process goes on
}

// copy returns true at the end of the output, false when the client is gone.
func (p *pump) copy() bool {
	rc, err := p.f.SyscallConn()
	if err != nil {
		return true
	}
	gone, _ := carry(rc, p.s, p.kind, &p.idle)
	return !gone
}

// carry sends what comes from a file or socket until its end, or until the client is gone. The error is that of the last read.
func carry(rc syscall.RawConn, s *stream.Stream, kind byte, idle *atomic.Bool) (gone bool, failed error) {
	head := 0
	if kind != 0 {
		head = stream.HeaderSize
	}
	for end := false; !gone && !end; {
		err := rc.Read(func(fd uintptr) bool {
			idle.Store(false)
			space, err := s.Begin()
			if err != nil {
				gone = true
				return true
			}
			n, err := syscall.Read(int(fd), space[head:])
			if n <= 0 {
				s.CommitLater(0)
				s.Flush()
				idle.Store(true)
				if end = err != syscall.EAGAIN && err != syscall.EINTR; end {
					failed = err
				}
				return err != syscall.EAGAIN // wait until there is something
			}
			if head > 0 {
				stream.Header(space, kind, n)
			}
			s.CommitLater(head + n)
			return true
		})
		if err != nil {
			end, failed = true, err
		}
	}
	return gone, failed
}

// settle waits for the end of the output, after deadline only for what was written already.
func (p *pump) settle(deadline time.Time) {
	for {
		select {
		case <-p.done:
			return
		case <-time.After(time.Until(deadline)):
			if p.idle.Load() {
				return
			}
			deadline = time.Now().Add(20 * time.Millisecond)
		}
	}
}
