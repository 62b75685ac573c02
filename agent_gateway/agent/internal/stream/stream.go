package stream

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"sockerless/agent/internal/websocket"
)

// Limits of the wire protocol.
const (
	Window    = 1 << 20   // most bytes a sender keeps unacknowledged
	ackEvery  = 256 << 10 // a receiver acknowledges at the latest after so many delivered bytes
	ackWithin = 50 * time.Millisecond
	lostAfter = 60 * time.Second // a broken stream that found no peer for so long is over
	closeWait = 5 * time.Second  // for the peer's close frame after ours
)

// ErrGone says that the other end is gone for good: it detached, or could not be reached again.
var ErrGone = errors.New("the other end of the stream is gone")

// Dial opens a new socket for a stream.
type Dial func(ctx context.Context) (*websocket.Conn, error)

// Stream is one stream. Output: Write, WriteFrame, Begin/Commit, Send. Input: Next/Done or Read.
type Stream struct {
	ID   string
	dial Dial
	// OnResize is told the client's terminal size. Set before Serve.
	OnResize func(rows, cols int)

	producing sync.Mutex // held from Begin to Commit

	mu      sync.Mutex
	changed *sync.Cond // anything a blocked producer or consumer waits for

	conn     *websocket.Conn
	waiting  string // id of our unanswered resume; "" when in step with the peer
	asked    []question
	skip     int64 // input bytes that come a second time, see resumed
	brokenAt time.Time
	offers   chan *websocket.Conn

	out      fifo // [acknowledged, produced)
	sent     int64
	marks    []mark
	nextMark int
	urgent   [][]byte // control that overtakes payload: resume, ack
	flushing bool
	open     bool // a producer is between Begin and Commit
	ending   bool // nothing follows what is queued; close when it is acknowledged
	closing  bool // our close frame is out

	in        fifo // [delivered, received)
	inEOF     bool
	discard   bool // input is acknowledged and dropped
	acked     int64
	ackTimer  *time.Timer
	ackArmed  bool
	ackQueued bool

	gone   bool
	goneCh chan struct{}
	cancel context.CancelFunc
}

// mark is a control message that belongs behind the payload byte at offset at.
type mark struct {
	at   int64
	text []byte
}

// New makes a stream that redials with dial when its socket breaks.
func New(id string, dial Dial) *Stream {
	s := &Stream{ID: id, dial: dial, goneCh: make(chan struct{}), offers: make(chan *websocket.Conn, 1), OnResize: func(int, int) {}}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// Gone is closed when the stream is over for both sides.
func (s *Stream) Gone() <-chan struct{} { return s.goneCh }

// Serve keeps the stream going over conn and its successors until it is over.
func (s *Stream) Serve(ctx context.Context, conn *websocket.Conn) {
	ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()
	defer s.finish()
	context.AfterFunc(ctx, s.finish)
	s.attach(conn, false)
	for {
		err := s.readAll(conn)
		conn.Drop()
		if s.over(err) {
			return
		}
		if conn = s.redial(ctx); conn == nil {
			return
		}
	}
}

// Adopt continues the stream on another socket that the relay has offered for it.
func (s *Stream) Adopt(conn *websocket.Conn) {
	s.mu.Lock()
	old := s.conn
	s.mu.Unlock()
	select {
	case s.offers <- conn:
	default:
		conn.Drop()
	}
	if old != nil {
		old.Drop()
	}
}

// Move leaves the present socket: the stream goes on over one that is dialled anew.
func (s *Stream) Move() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && !s.closing {
		s.conn.Drop()
	}
}

func (s *Stream) over(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var closed *websocket.CloseError
	if errors.As(err, &closed) && (s.closing || closed.Code != websocket.CloseGoing) && closed.Code != 1011 && closed.Code != 1012 {
		return true // 1001, 1011, 1012: the relay goes away, the peer may be reached over another one
	}
	if errors.Is(err, errProtocol) || s.gone {
		return true
	}
	s.conn = nil
	if s.waiting == "" || s.brokenAt.IsZero() {
		s.brokenAt = time.Now()
	}
	s.changed.Broadcast()
	return time.Since(s.brokenAt) > lostAfter
}

func (s *Stream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.gone = true
	if s.conn != nil {
		s.conn.Drop()
	}
	if s.ackTimer != nil {
		s.ackTimer.Stop()
	}
	if !s.flushing && !s.open {
		s.out.clear()
	}
	s.changed.Broadcast()
	close(s.goneCh)
}

// Send queues a control message behind everything written so far.
func (s *Stream) Send(c *Control) {
	s.mu.Lock()
	s.marks = append(s.marks, mark{at: s.out.end, text: c.encode()})
	s.mu.Unlock()
	s.flush()
}

// Result sends the kind's JSON result.
func (s *Stream) Result(v any) error {
	text, err := json.Marshal(v)
	if err == nil {
		s.Send(&Control{Result: text})
	}
	return err
}

// Fail ends the stream with an error.
func (s *Stream) Fail(err error) {
	s.Send(&Control{Error: AsRefusal(err)})
	s.End()
}

// Exit ends the stream with a process' exit code.
func (s *Stream) Exit(code int) {
	s.Send(&Control{Exit: &Exit{Code: code}})
	s.End()
}

// End closes the stream when the peer has acknowledged all. Input that still arrives is dropped.
func (s *Stream) End() {
	s.mu.Lock()
	s.ending = true
	s.discardInput()
	s.mu.Unlock()
	s.flush()
}
