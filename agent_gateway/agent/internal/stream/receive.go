package stream

import (
	"errors"
	"fmt"
	"io"
	"time"

	"sockerless/agent/internal/websocket"
)

var errProtocol = errors.New("the peer broke the stream protocol")

// readAll reads conn until it ends.
func (s *Stream) readAll(conn *websocket.Conn) error {
	for {
		op, length, err := conn.Next()
		if err == nil && op == websocket.Binary {
			err = s.receive(conn, length)
		} else if err == nil {
			err = s.control(conn)
		}
		if errors.Is(err, errProtocol) {
			conn.Close(websocket.CloseProtocol)
		}
		if err != nil {
			return err
		}
	}
}

// receive takes one binary message into the input queue, straight from the socket.
func (s *Stream) receive(conn *websocket.Conn, length int64) error {
	for length > 0 {
		s.mu.Lock()
		if s.waiting != "" || s.inEOF {
			s.mu.Unlock()
			return nil // sent before our resume was heard: it comes again (conn.Next skips it)
		}
		// Each resume opens the peer's window anew, so more than one window may be queued here; much more may not.
		if s.in.end-s.in.base >= 16*Window {
			s.mu.Unlock()
			return fmt.Errorf("%w: window exceeded", errProtocol)
		}
		space := s.in.room(4 << 10)
		space = space[:min(int64(len(space)), length)]
		again := min(s.skip, int64(len(space)))
		if again > 0 {
			space = space[:again]
		}
		s.mu.Unlock()
		n, err := conn.Read(space)
		length -= int64(n)
		s.mu.Lock()
		if again > 0 {
			s.skip = max(0, s.skip-int64(n)) // had already: the room is used again
		} else {
			s.in.commit(n)
		}
		if s.discard {
			s.deliver(s.in.end)
		}
		// Woken for each piece, the consumer would take the bytes as they trickle in. A message is soon there as a whole.
		if length == 0 || n == len(space) || err != nil {
			s.changed.Broadcast()
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Stream) control(conn *websocket.Conn) error {
	text, err := conn.Message()
	if err != nil {
		return err
	}
	c, err := parseControl(text)
	if err != nil {
		return fmt.Errorf("%w: %v", errProtocol, err)
	}
	switch {
	case c.Resume != nil:
		return s.resumed(c.Resume)
	case c.Ack != nil:
		return s.acknowledged(*c.Ack)
	case c.Resize != nil:
		s.OnResize(c.Resize[0], c.Resize[1])
	case c.EOF:
		s.mu.Lock()
		if s.waiting == "" {
			s.inEOF = true
			s.changed.Broadcast()
		}
		s.mu.Unlock()
	case c.Error != nil:
		conn.Close(websocket.CloseNormal)
		return &websocket.CloseError{Code: websocket.CloseNormal}
	}
	return nil
}

func (s *Stream) acknowledged(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting != "" || n <= s.out.base {
		return nil
	}
	if n > s.sent {
		return fmt.Errorf("%w: acknowledged what was not sent", errProtocol)
	}
	s.out.drop(n, s.open)
	s.changed.Broadcast()
	if s.ending && n == s.out.end {
		s.flushSoon()
	}
	return nil
}

// Next waits for input and returns what is there, contiguous; Done tells how much of it was delivered. io.EOF after the
// client's half-close, ErrGone when it went away without one.
func (s *Stream) Next() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if p := s.in.from(s.in.base); len(p) > 0 && !s.discard {
			return p, nil
		}
		switch {
		case s.inEOF:
			return nil, io.EOF
		case s.gone || s.discard:
			return nil, ErrGone
		}
		s.changed.Wait()
	}
}

// Done acknowledges n more bytes of input as delivered.
func (s *Stream) Done(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.discard {
		s.deliver(s.in.base + int64(n))
	}
}

// Read is Next and Done as an io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	in, err := s.Next()
	if err != nil {
		return 0, err
	}
	n := copy(p, in)
	s.Done(n)
	return n, nil
}

// Discard drops input that nobody wants, now and later, acknowledging it.
func (s *Stream) Discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discardInput()
}

func (s *Stream) discardInput() {
	s.discard = true
	s.changed.Broadcast()
	s.deliver(s.in.end)
}

// deliver counts input up to pos as delivered and sees to its acknowledgement. It is called with the lock held.
func (s *Stream) deliver(pos int64) {
	if pos == s.in.base {
		return
	}
	s.in.drop(pos, true) // the reader may hold the last block
	if s.ackQueued || s.gone {
		return
	}
	if pos-s.acked >= ackEvery {
		s.ackQueued = true
		s.flushSoon()
	} else if !s.ackArmed {
		s.ackArmed = true
		if s.ackTimer == nil {
			s.ackTimer = time.AfterFunc(ackWithin, s.ackNow)
		} else {
			s.ackTimer.Reset(ackWithin)
		}
	}
}

func (s *Stream) ackNow() {
	s.mu.Lock()
	s.ackArmed = false
	if s.in.base > s.acked {
		s.ackQueued = true
	}
	s.mu.Unlock()
	s.flush()
}
