package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"

	"sockerless/agent/internal/stream"
)

type attachParams struct {
	Stdin      bool   `json:"stdin"`
	Stdout     bool   `json:"stdout"`
	Stderr     bool   `json:"stderr"`
	Stream     bool   `json:"stream"`
	Logs       bool   `json:"logs"`
	DetachKeys string `json:"detach_keys"`
}

// attach joins the stream to the run that goes on, else to the next one. It takes part when this returns.
func (a *Agent) attach(s *stream.Stream, p *attachParams) (begin func(), err error) {
	keys, err := detachKeys(p.DetachKeys)
	if err != nil {
		return nil, err
	}
	t := &attachment{s: s, p: p, detach: keys, run: make(chan *Run, 1)}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.OnResize = func(rows, cols int) { a.resizeMain(rows, cols) }
	switch {
	case a.run != nil && !a.run.over():
		a.run.join(t)
	case !p.Stream:
		return func() { a.replayOnly(t) }, nil
	default:
		a.pending = append(a.pending, t)
	}
	return func() { a.serveAttachment(t) }, nil
}

// replayOnly is an attach with logs but without stream, to a container that does not run.
func (a *Agent) replayOnly(t *attachment) {
	a.logs(t.s, &logsParams{Stdout: t.p.Stdout && t.p.Logs, Stderr: t.p.Stderr && t.p.Logs, Tail: -1})
}

// serveAttachment carries stdin until the client or the process is through with it.
func (a *Agent) serveAttachment(t *attachment) {
	var run *Run
	select {
	case run = <-t.run:
	case <-t.s.Gone():
		a.mu.Lock()
		for i, other := range a.pending {
			if other == t {
				a.pending = append(a.pending[:i:i], a.pending[i+1:]...)
				break
			}
		}
		a.mu.Unlock()
		select {
		case run = <-t.run: // it had just begun
		default:
			return
		}
	}
	switch {
	case !t.p.Stream:
		t.mu.Lock() // after the replay
		t.mu.Unlock()
		run.output.remove(t)
		t.s.Send(&stream.Control{EOF: true})
		t.s.End()
	case !t.p.Stdin || !run.spec.OpenStdin:
		t.s.Discard()
		<-t.s.Gone()
	default:
		<-run.ready
		if !run.stdin.carry(t.s, t.keys(run.spec.TTY), run.spec.StdinOnce && !run.spec.TTY) {
			<-t.s.Gone()
		} else { // detached: as moby does when stdin ends and is not to be closed
			t.s.Send(&stream.Control{EOF: true})
			t.s.End()
		}
	}
	run.output.remove(t)
}

func (t *attachment) keys(tty bool) []byte {
	if tty {
		return t.detach
	}
	return nil
}

// stdin is a process' standard input, which several clients may write to.
type stdin struct {
	mu     sync.Mutex
	f      *os.File
	keep   bool // the file is a terminal, which output is read from as well
	closed bool
}

// carry writes a stream's input to the process until one of them ends. closeAtEnd closes stdin when the client's input is over;
// otherwise that, and the detach keys, mean that the client detaches: then it returns true.
func (in *stdin) carry(s *stream.Stream, keys []byte, closeAtEnd bool) (detached bool) {
	filter := escape{keys: keys}
	for {
		p, err := s.Next()
		if err != nil {
			if closeAtEnd {
				in.close()
				return false
			}
			return errors.Is(err, io.EOF)
		}
		out, escaped := filter.pass(p)
		if len(out) > 0 {
			if _, err := in.f.Write(out); err != nil { // also when the process could not be started
				s.Discard() // nobody reads it any more
				return false
			}
		}
		s.Done(len(p))
		if escaped {
			return true
		}
	}
}

func (in *stdin) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.closed && !in.keep && in.f != nil {
		in.f.Close()
	}
	in.closed = true
}

// escape finds the detach keys in input.
type escape struct {
	keys []byte
	held int // how many of the keys have been seen in a row
}

// pass returns what of p goes to the process, and whether the keys are complete.
func (e *escape) pass(p []byte) (out []byte, escaped bool) {
	if len(e.keys) == 0 {
		return p, false
	}
	for _, b := range p {
		if b != e.keys[e.held] {
			out = append(out, e.keys[:e.held]...)
			e.held = 0
		}
		if b != e.keys[e.held] {
			out = append(out, b)
			continue
		}
		if e.held++; e.held == len(e.keys) {
			return out, true
		}
	}
	return out, false
}

const defaultDetachKeys = "ctrl-p,ctrl-q"

// detachKeys reads Docker's syntax: single characters and ctrl-… between commas.
func detachKeys(text string) ([]byte, error) {
	if text == "" {
		text = defaultDetachKeys
	}
	var keys []byte
	for _, name := range strings.Split(text, ",") {
		switch {
		case len(name) == 1:
			keys = append(keys, name[0])
		case name == "DEL":
			keys = append(keys, 127)
		case len(name) == 6 && strings.HasPrefix(name, "ctrl-"):
			if c := name[5]; c >= 'a' && c <= 'z' {
				keys = append(keys, c-'a'+1)
				continue
			} else if i := strings.IndexByte(`@[\]^_`, c); i >= 0 {
				keys = append(keys, []byte{0, 27, 28, 29, 30, 31}[i])
				continue
			}
			fallthrough
		default:
			return nil, stream.Refuse(400, "Invalid detach keys (%s) provided", text)
		}
	}
	return keys, nil
}
