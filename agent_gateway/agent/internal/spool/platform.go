package spool

import (
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	platformPending = 512 << 10
	platformPatient = time.Second // without progress for so long, the platform's pipe counts as stuck
)

// Platform copies lines to one of the agent's own outputs as JSON objects, one a line, which Cloud Logging parses. It never holds
// the user's process up for long: with a reader that has stopped, lines are dropped (the spool has them).
type Platform struct {
	w io.Writer

	mu       sync.Mutex
	changed  *sync.Cond
	pending  []byte
	spare    []byte
	writing  bool
	stuck    bool
	progress time.Time
	dropped  int64
	stamp    Stamp
	marked   *marks
}

// NewPlatform starts copying to w.
func NewPlatform(w io.Writer) *Platform {
	p := &Platform{w: w, progress: time.Now()}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// Add queues one line of run.
func (p *Platform) Add(at int64, run int, line []byte, partial bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) > platformPending && !p.wait() {
		p.dropped++
		return
	}
	b := p.pending
	if p.dropped > 0 {
		b = fmt.Appendf(b, `{"message":"%d lines are missing here: the platform did not take them in time","severity":"WARNING","sockerless":{"run":%d,"partial":false`, p.dropped, run)
		b = p.marked.end(b)
		p.dropped = 0
	}
	if utf8.Valid(line) {
		b = appendString(append(b, `{"message":"`...), line)
	} else {
		b = base64.StdEncoding.AppendEncode(append(b, `{"base64":"`...), line)
	}
	b = p.stamp.Append(append(b, `","time":"`...), at)
	b = strconv.AppendInt(append(b, `","sockerless":{"run":`...), int64(run), 10)
	b = strconv.AppendBool(append(b, `,"partial":`...), partial)
	p.pending = p.marked.end(b)
}

// wait lets the reader catch up; false when it does not.
func (p *Platform) wait() bool {
	for len(p.pending) > platformPending {
		if !p.writing {
			go p.write()
			p.writing = true
		}
		if p.stuck || time.Since(p.progress) > platformPatient {
			p.stuck = true
			return false
		}
		timer := time.AfterFunc(platformPatient/4, p.changed.Broadcast)
		p.changed.Wait()
		timer.Stop()
	}
	return true
}

// Flush has the queued lines written, without waiting for it.
func (p *Platform) Flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) > 0 && !p.writing {
		p.writing, p.progress = true, time.Now()
		go p.write()
	}
}

func (p *Platform) write() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.pending) > 0 {
		whole := p.pending
		p.pending, p.spare = p.spare[:0], nil
		p.mu.Unlock()
		for out := whole; len(out) > 0; { // in parts, so that progress is seen
			n, err := p.w.Write(out[:min(len(out), 64<<10)])
			out = out[n:]
			p.mu.Lock()
			p.progress, p.stuck = time.Now(), false
			p.mu.Unlock()
			if err != nil {
				break // closed (EPIPE) or failing: what was to go there is lost
			}
		}
		p.mu.Lock()
		p.spare = whole[:0]
		p.changed.Broadcast()
	}
	p.writing = false
	p.changed.Broadcast()
}

// Drain waits until all is written, at most for limit.
func (p *Platform) Drain(limit time.Duration) {
	timer := time.AfterFunc(limit, p.changed.Broadcast)
	defer timer.Stop()
	deadline := time.Now().Add(limit)
	p.Flush()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.writing && time.Now().Before(deadline) {
		p.changed.Wait()
	}
}

const hexDigits = "0123456789abcdef"

// appendString appends valid UTF-8 as the inside of a JSON string.
func appendString(b, text []byte) []byte {
	from := 0
	for i, c := range text {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, text[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\t':
			b = append(b, '\\', 't')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(b, text[from:]...)
}
