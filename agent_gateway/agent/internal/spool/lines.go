// Package spool keeps the main process' output: line by line with timestamps for `logs`, and as structured lines on the
// agent's own stdout and stderr for the platform's log.
package spool

import "bytes"

// MaxLine is where a longer line is split, as moby does.
const MaxLine = 16 << 10

// Splitter cuts one output stream into lines.
type Splitter struct {
	Kind    byte // 1 stdout, 2 stderr
	pending []byte
}

// Emit takes one line without its newline; partial ones go on in the next.
type Emit func(line []byte, partial bool)

// Feed cuts p and calls emit for each line that is complete, or MaxLine long without an end.
func (s *Splitter) Feed(p []byte, emit Emit) {
	for len(p) > 0 {
		room := MaxLine - len(s.pending)
		end := bytes.IndexByte(p[:min(len(p), room)], '\n')
		switch {
		case end >= 0:
			emit(s.joined(p[:end]), false)
			p = p[end+1:]
		case len(p) >= room:
			emit(s.joined(p[:room]), true)
			p = p[room:]
		default:
			s.pending = append(s.pending, p...)
			return
		}
	}
}

func (s *Splitter) joined(p []byte) []byte {
	if len(s.pending) == 0 {
		return p
	}
	line := append(s.pending, p...)
	s.pending = line[:0]
	return line
}

// Pending is the begin of a line whose end has not come yet.
func (s *Splitter) Pending() []byte { return s.pending }

// Finish emits what is left at the end of the stream, as a partial line.
func (s *Splitter) Finish(emit Emit) {
	if len(s.pending) > 0 {
		emit(s.pending, true)
		s.pending = s.pending[:0]
	}
}
