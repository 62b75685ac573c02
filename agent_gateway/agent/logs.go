package main

import (
	"time"

	"sockerless/agent/internal/spool"
	"sockerless/agent/internal/stream"
)

type logsParams struct {
	Stdout     bool   `json:"stdout"`
	Stderr     bool   `json:"stderr"`
	Follow     bool   `json:"follow"`
	Timestamps bool   `json:"timestamps"`
	Details    string `json:"details"` // stands before each line
	Since      string `json:"since"`
	Until      string `json:"until"`
	Tail       int64  `json:"tail"`
}

const logBuffer = 256 << 10

// logs serves `docker logs` from the spool.
func (a *Agent) logs(s *stream.Stream, p *logsParams) {
	s.Discard()
	w := &logWriter{s: s, stdout: p.Stdout, stderr: p.Stderr, timestamps: p.Timestamps, details: []byte(p.Details)}
	var err error
	if w.since, err = logTime(p.Since, 0); err == nil {
		w.until, err = logTime(p.Until, 1<<63-1)
	}
	if err != nil {
		s.Fail(err)
		return
	}
	a.mu.Lock()
	w.tty = a.spec != nil && a.spec.TTY
	a.mu.Unlock()
	a.copyLogs(w, p)
	w.close()
	s.Send(&stream.Control{EOF: true})
	s.End()
}

func (a *Agent) copyLogs(w *logWriter, p *logsParams) {
	buf := make([]byte, logBuffer)
	c := a.spool.Oldest()
	if p.Tail >= 0 {
		c = a.spool.Tail(p.Tail, buf)
	}
	for !w.past {
		limit := a.spool.Newest()
		for w.err == nil && !w.past && a.spool.Read(&c, limit, buf, w.entry) {
		}
		w.close()
		if !p.Follow || w.err != nil || w.past {
			return
		}
		more, ended := a.spool.More(c)
		if ended {
			return
		}
		var timeout <-chan time.Time
		if p.Until != "" {
			timeout = time.After(time.Until(time.Unix(0, w.until)))
		}
		select {
		case <-more:
		case <-timeout:
			return
		case <-w.s.Gone():
			return
		}
	}
}

func logTime(text string, absent int64) (int64, error) {
	if text == "" {
		return absent, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, stream.Refuse(400, "invalid time %q: %v", text, err)
	}
	return t.UnixNano(), nil
}

// logWriter writes entries into a stream as Docker's log format, a frame for each.
type logWriter struct {
	s              *stream.Stream
	tty            bool
	stdout, stderr bool
	timestamps     bool
	details        []byte
	since, until   int64

	past  bool // an entry after until was met
	err   error
	stamp spool.Stamp
	text  []byte

	space []byte // between Begin and Commit
	used  int
	frame int // where the open frame begins in space
	kind  byte
}

// entry writes one entry; false stops the reading.
func (w *logWriter) entry(e spool.Entry) bool {
	switch {
	case e.At < w.since:
		return true
	case w.until != 0 && e.At > w.until:
		w.past = true
		return false
	case e.Kind == 1 && !w.stdout || e.Kind == 2 && !w.stderr:
		return true
	}
	kind := w.frameKind(e.Kind)
	if w.timestamps {
		w.text = append(w.stamp.Append(w.text[:0], e.At), ' ')
		w.put(kind, w.text)
	}
	w.put(kind, w.details)
	w.put(kind, e.Data)
	// Each entry has a frame of its own, as moby's: clients take a frame for a line.
	w.closeFrame()
	w.kind = 0
	return w.err == nil
}

func (w *logWriter) frameKind(kind byte) byte {
	if w.tty {
		return 0
	}
	return kind
}

func (w *logWriter) put(kind byte, p []byte) {
	for len(p) > 0 && w.err == nil {
		head := 0
		if kind != 0 && (w.space == nil || kind != w.kind) {
			head = stream.HeaderSize
		}
		if w.space == nil || len(w.space)-w.used <= head {
			w.close()
			if w.space, w.err = w.s.Begin(); w.err != nil {
				w.space = nil
				return
			}
			w.kind = 0
			continue
		}
		if kind != w.kind {
			w.closeFrame()
			w.kind, w.frame = kind, w.used
			w.used += head
		}
		n := copy(w.space[w.used:], p)
		w.used += n
		p = p[n:]
	}
}

func (w *logWriter) closeFrame() {
	if w.kind != 0 && w.used > w.frame {
		stream.Header(w.space[w.frame:], w.kind, w.used-w.frame-stream.HeaderSize)
	}
}

// close sends what is collected.
func (w *logWriter) close() {
	if w.space != nil {
		w.closeFrame()
		w.s.Commit(w.used)
		w.space, w.used, w.frame, w.kind = nil, 0, 0, 0
	}
}
