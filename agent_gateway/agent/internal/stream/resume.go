package stream

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"sockerless/agent/internal/backoff"
	"sockerless/agent/internal/websocket"
)

// attach makes conn the stream's socket. After a redial the first thing said is how much we have received.
func (s *Stream) attach(conn *websocket.Conn, again bool) {
	s.mu.Lock()
	for s.flushing { // the last write on the old socket may still read the blocks
		s.changed.Wait()
	}
	s.conn = conn
	s.urgent, s.ackQueued, s.closing = nil, false, false
	if again {
		var id [8]byte
		rand.Read(id[:])
		s.waiting = hex.EncodeToString(id[:])
		s.ask()
	}
	gone := s.gone
	s.mu.Unlock()
	if gone {
		conn.Drop()
	}
	s.flush()
}

// question is a resume of ours: its id and what we had received when we asked.
type question struct {
	id       string
	received int64
}

// questionsKept bounds how many of our questions an answer may still come to.
const questionsKept = 16

// ask puts our question first on the new socket. It is called with the lock held.
func (s *Stream) ask() {
	s.skip = 0
	if len(s.asked) == questionsKept {
		s.asked = s.asked[1:]
	}
	s.asked = append(s.asked, question{s.waiting, s.in.end})
	s.urgent = append(s.urgent, (&Control{Resume: &Resume{Received: s.in.end, ID: s.waiting}}).encode())
}

// late handles an answer to a question that the peer's own question answered before: the peer has gone back to the offset
// we named then, so what we got since comes again. It is called with the lock held.
func (s *Stream) late(answer string) {
	for _, q := range s.asked {
		if q.id == answer && s.waiting == "" {
			s.skip = s.in.end - q.received
		}
	}
}

// redial finds a new socket, or gives the stream up.
func (s *Stream) redial(ctx context.Context) *websocket.Conn {
	s.mu.Lock()
	deadline := s.brokenAt.Add(lostAfter)
	s.mu.Unlock()
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var wait backoff.Backoff
	for ctx.Err() == nil {
		conn, err := s.offeredOrDialled(ctx)
		if err == nil {
			s.attach(conn, true)
			return conn
		}
		var status *websocket.StatusError
		if errors.As(err, &status) && status.Status >= 400 && status.Status < 500 && status.Status != 429 && status.Status != 408 {
			return nil // the gateway knows the stream is over
		}
		wait.Sleep(ctx)
	}
	return nil
}

func (s *Stream) offeredOrDialled(ctx context.Context) (*websocket.Conn, error) {
	select {
	case conn := <-s.offers:
		return conn, nil
	default:
		return s.dial(ctx)
	}
}

// resumed handles the peer's resume: a question (id), an answer to ours, or one of either kind without ids.
func (s *Stream) resumed(r *Resume) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Answer != "" && r.Answer != s.waiting {
		s.late(r.Answer)
		return nil
	}
	if r.Received < s.out.base || r.Received > s.out.end {
		return fmt.Errorf("%w: resume at %d, held is %d to %d", errProtocol, r.Received, s.out.base, s.out.end)
	}
	if r.ID != "" || (r.Answer == "" && s.waiting == "") {
		s.urgent = append(s.urgent, (&Control{Resume: &Resume{Received: s.in.end, Answer: r.ID}}).encode())
	}
	s.waiting, s.skip, s.brokenAt = "", 0, time.Time{}
	s.rewind(r.Received)
	s.changed.Broadcast()
	s.flushSoon()
	return nil
}

// rewind sends again from offset n, and the control messages that belong there or later.
func (s *Stream) rewind(n int64) {
	s.out.drop(n, s.open)
	s.sent = n
	for s.nextMark = 0; s.nextMark < len(s.marks) && s.marks[s.nextMark].at < n; {
		s.nextMark++
	}
	s.closing = false
	s.acked = min(s.acked, s.in.base)
	if s.in.base > s.acked {
		s.ackQueued = true
	}
}
