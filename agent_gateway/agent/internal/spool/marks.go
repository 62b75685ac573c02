package spool

import (
	"strconv"
	"sync/atomic"
)

// marks say in a line of the platform's log whose it is, where the platform does not: they stand inside the object `sockerless`, and after it.
type marks struct {
	inside, after []byte
	numbers       *atomic.Int64
}

// Label gives the lines a label of Cloud Logging with the container's id.
func Label(container string, outputs ...*Platform) {
	label := append(appendString([]byte(`,"logging.googleapis.com/labels":{"sockerless-container":"`), []byte(container)), `"}`...)
	for _, p := range outputs {
		p.mark(&marks{after: label})
	}
}

// Number gives the lines the container's id, their stream's name and a number that increases over both streams.
func Number(container string, stdout, stderr *Platform) {
	id := append(appendString([]byte(`,"container":"`), []byte(container)), `","stream":"`...)
	numbers := &atomic.Int64{}
	stdout.mark(&marks{inside: append(id[:len(id):len(id)], `stdout","n":`...), numbers: numbers})
	stderr.mark(&marks{inside: append(id[:len(id):len(id)], `stderr","n":`...), numbers: numbers})
}

func (p *Platform) mark(m *marks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marked = m
}

// end appends the end of a line's object.
func (m *marks) end(b []byte) []byte {
	if m == nil {
		return append(b, "}}\n"...)
	}
	b = append(b, m.inside...)
	if m.numbers != nil {
		b = strconv.AppendInt(b, m.numbers.Add(1), 10)
	}
	b = append(append(b, '}'), m.after...)
	return append(b, "}\n"...)
}
