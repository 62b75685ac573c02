package main

import (
	"sync"
	"time"

	"sockerless/agent/internal/spool"
	"sockerless/agent/internal/stream"
)

// attachment is one attach stream, from before or during a run.
type attachment struct {
	s      *stream.Stream
	p      *attachParams
	detach []byte
	run    chan *Run // gets the run once there is one

	mu  sync.Mutex // held while the log is replayed, and per write
	tty bool
}

// wants tells whether output kind (1 stdout, 2 stderr) goes to this attachment.
func (t *attachment) wants(kind byte) bool {
	return t.p.Stream && (kind == 1 && t.p.Stdout || kind == 2 && t.p.Stderr || t.tty && (t.p.Stdout || t.p.Stderr))
}

func (t *attachment) write(kind byte, p []byte) {
	if !t.wants(kind) {
		return
	}
	if t.tty {
		kind = 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.s.WriteFrame(kind, p) // a client that is gone misses it
}

// exit ends the stream, after a replay that may be going on.
func (t *attachment) exit(code int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.s.Exit(code)
}

// output is where a run's bytes go: the spool, the platform's log, the attachments.
type output struct {
	a    *Agent
	run  int
	tty  bool
	none bool // nothing is kept, nothing passed on: only attachments see the output
	mu   sync.Mutex
	cut  [3]spool.Splitter
	last int64
	atts []*attachment // replaced, never changed in place
}

func newOutput(a *Agent, spec *LaunchSpec) *output {
	o := &output{a: a, run: spec.Run, tty: spec.TTY, none: spec.LogMaxBytes < 0}
	o.cut[1].Kind, o.cut[2].Kind = 1, 2
	return o
}

// write takes what the process wrote. It returns when every attachment has room for it: that is the back-pressure.
// What it leaves in buffers, flush passes on: small writes of a busy process travel together.
func (o *output) write(kind byte, p []byte) {
	o.mu.Lock()
	o.cut[kind].Feed(p, o.emit(kind))
	atts := o.atts
	o.mu.Unlock()
	for _, t := range atts {
		t.write(kind, p)
	}
}

// flush passes on what is buffered; the pump calls it when the process has written no more.
func (o *output) flush(kind byte) {
	o.mu.Lock()
	o.a.spool.Flush()
	o.a.platform[kind].Flush()
	atts := o.atts
	o.mu.Unlock()
	for _, t := range atts {
		t.s.Flush()
	}
}

// emit stamps lines: never twice the same time, so that every log keeps their order.
func (o *output) emit(kind byte) spool.Emit {
	if o.none {
		return func([]byte, bool) {}
	}
	at := time.Now().UnixNano()
	return func(line []byte, partial bool) {
		at = max(at, o.last+1)
		o.last = at
		o.a.spool.Add(at, kind, line, partial)
		o.a.platform[kind].Add(at, o.run, line, partial)
	}
}

// finish puts unfinished lines into the logs.
func (o *output) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for kind := byte(1); kind <= 2; kind++ {
		o.cut[kind].Finish(o.emit(kind))
		o.a.platform[kind].Flush()
	}
	o.a.spool.Flush()
	o.a.spool.End()
}

// add makes t an attachment. The log up to this very moment is replayed first when it asks for that.
func (o *output) add(t *attachment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t.tty = o.tty
	if t.p.Logs {
		o.a.spool.Flush()
		limit := o.a.spool.Newest()
		var rest [3][]byte
		for kind := 1; kind <= 2; kind++ {
			rest[kind] = append([]byte(nil), o.cut[kind].Pending()...)
		}
		t.mu.Lock()
		go o.replay(t, limit, rest)
	}
	o.atts = append(o.atts[:len(o.atts):len(o.atts)], t)
}

func (o *output) replay(t *attachment, limit spool.Cursor, rest [3][]byte) {
	defer t.mu.Unlock()
	w := &logWriter{s: t.s, tty: t.tty, stdout: t.p.Stdout, stderr: t.p.Stderr}
	buf := make([]byte, logBuffer)
	for c := o.a.spool.Oldest(); w.err == nil && o.a.spool.Read(&c, limit, buf, w.entry); {
	}
	w.close()
	for kind := byte(1); kind <= 2; kind++ {
		if len(rest[kind]) > 0 && (t.wants(kind) || !t.p.Stream) {
			t.s.WriteFrame(w.frameKind(kind), rest[kind])
		}
	}
	t.s.Flush()
}

func (o *output) remove(t *attachment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var left []*attachment
	for _, other := range o.atts {
		if other != t {
			left = append(left, other)
		}
	}
	o.atts = left
}

// attachments returns those that are there, and takes no more.
func (o *output) attachments() []*attachment {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.atts
}
