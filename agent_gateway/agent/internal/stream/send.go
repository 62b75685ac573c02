package stream

import (
	"encoding/binary"
	"time"

	"sockerless/agent/internal/websocket"
)

// least is the room a producer waits for, so that a full window opens in large steps.
const least = 64 << 10

// Begin waits until the window has room and returns space to write into, at most Window bytes long. Until Commit, other producers wait.
func (s *Stream) Begin() ([]byte, error) {
	s.producing.Lock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.gone && !s.ending && Window-(s.out.end-s.out.base) < least {
		if s.unsent() {
			s.mu.Unlock()
			s.flush()
			s.mu.Lock()
			continue
		}
		s.changed.Wait()
	}
	if s.gone || s.ending {
		s.producing.Unlock()
		return nil, ErrGone
	}
	s.open = true
	space := s.out.room(4 << 10)
	if room := int(Window - (s.out.end - s.out.base)); len(space) > room {
		space = space[:room]
	}
	return space, nil
}

// unsent tells whether a flush would have something to do.
func (s *Stream) unsent() bool {
	return s.sent < s.out.end && s.conn != nil && s.waiting == "" && !s.flushing
}

// Commit appends the first n bytes of the space that Begin returned, and sends them.
func (s *Stream) Commit(n int) {
	s.CommitLater(n)
	if n > 0 {
		s.Flush()
	}
}

// laterMax is how much CommitLater lets pile up.
const laterMax = 64 << 10

// Flush sends what CommitLater has left.
func (s *Stream) Flush() {
	s.mu.Lock()
	unsent := s.unsent()
	s.mu.Unlock()
	if unsent {
		s.flush()
	}
}

// CommitLater is Commit for a producer that has more at hand: small pieces travel together. It must call Flush before it waits for its source.
func (s *Stream) CommitLater(n int) {
	s.mu.Lock()
	s.open = false
	s.out.commit(n)
	if s.gone {
		s.out.clear()
	} else if n == 0 && s.out.base == s.out.end {
		s.out.drop(s.out.end, false)
	}
	full := s.out.end-s.sent >= laterMax
	s.mu.Unlock()
	s.producing.Unlock()
	if full {
		s.Flush()
	}
}

// Write appends p.
func (s *Stream) Write(p []byte) (int, error) {
	for written := 0; ; {
		space, err := s.Begin()
		if err != nil {
			return written, err
		}
		n := copy(space, p[written:])
		s.Commit(n)
		if written += n; written == len(p) {
			return written, nil
		}
	}
}

// HeaderSize is the length of a stdcopy header.
const HeaderSize = 8

// Header writes the stdcopy header of n bytes of payload: the stream's number, three zeros, the length.
func Header(p []byte, kind byte, n int) {
	p[0], p[1], p[2], p[3] = kind, 0, 0, 0
	binary.BigEndian.PutUint32(p[4:], uint32(n))
}

// WriteFrame appends p as stdcopy frames, to be sent by Flush at the latest; kind 0 writes it raw (TTY).
func (s *Stream) WriteFrame(kind byte, p []byte) error {
	head := 0
	if kind != 0 {
		head = HeaderSize
	}
	for len(p) > 0 {
		space, err := s.Begin()
		if err != nil {
			return err
		}
		n := copy(space[head:], p)
		if head > 0 {
			Header(space, kind, n)
		}
		s.CommitLater(head + n)
		p = p[n:]
	}
	return nil
}

// flush sends what can be sent. One goroutine at a time does it: whoever comes meanwhile leaves its part to that one.
func (s *Stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flushing {
		return
	}
	s.flushing = true
	for s.conn != nil && !s.gone {
		conn := s.conn
		op, p := s.next()
		if op == 0 {
			break
		}
		s.mu.Unlock()
		var err error
		if op == opClose {
			conn.Close(websocket.CloseNormal)
		} else {
			err = conn.Write(op, p)
		}
		s.mu.Lock()
		if err != nil {
			conn.Drop() // the reader sees it and redials
			if s.conn == conn {
				s.conn = nil
			}
		}
	}
	s.flushing = false
	if s.gone && !s.open {
		s.out.clear()
	}
	s.changed.Broadcast()
}

// flushSoon is flush for the goroutine that reads: it must never be held up by a peer that does not read.
func (s *Stream) flushSoon() { go s.flush() }

const opClose = 8

// next takes the next message to send. It is called with the lock held.
func (s *Stream) next() (op byte, p []byte) {
	if s.closing {
		return 0, nil
	}
	if len(s.urgent) > 0 {
		p, s.urgent = s.urgent[0], s.urgent[1:]
		return websocket.Text, p
	}
	if s.waiting != "" {
		return 0, nil
	}
	if s.ackQueued {
		s.ackQueued, s.acked = false, s.in.base
		return websocket.Text, (&Control{Ack: &s.acked}).encode()
	}
	limit := s.out.end
	if s.nextMark < len(s.marks) {
		m := s.marks[s.nextMark]
		if m.at == s.sent {
			s.nextMark++
			return websocket.Text, m.text
		}
		limit = min(limit, m.at)
	}
	if s.sent < limit {
		p = s.out.from(s.sent)
		p = p[:min(int64(len(p)), limit-s.sent)]
		s.sent += int64(len(p))
		return websocket.Binary, p
	}
	if s.ending && !s.closing && s.out.base == s.out.end {
		s.closing = true
		time.AfterFunc(closeWait, s.confirmed)
		return opClose, nil
	}
	return 0, nil
}

// confirmed ends a stream whose peer has everything but does not answer the close frame.
func (s *Stream) confirmed() {
	s.mu.Lock()
	over := s.closing && s.conn != nil
	s.mu.Unlock()
	if over {
		s.finish()
	}
}
