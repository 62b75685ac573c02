package main

import (
	"encoding/json"
	"sync"
	"time"

	"sockerless/agent/internal/websocket"
)

type message map[string]any

func (m message) encode() []byte {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // made of strings and numbers only
	}
	return text
}

// events are the numbered messages: kept until the control plane has recorded them, and sent again in order on each new link.
type events struct {
	mu    sync.Mutex
	seq   int64
	acked int64
	queue [][]byte
	conn  *websocket.Conn // nil while no link is welcome
	moved chan struct{}   // closed at each acknowledgement
}

func newEvents() *events { return &events{moved: make(chan struct{})} }

// add numbers m, keeps it and sends it.
func (e *events) add(m message) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq++
	m["seq"] = e.seq
	text := m.encode()
	e.queue = append(e.queue, text)
	if e.conn != nil && e.conn.Write(websocket.Text, text) != nil {
		e.conn = nil
	}
	return e.seq
}

// attach sends everything not yet acknowledged over a new link, and what comes from now on.
func (e *events) attach(conn *websocket.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conn = conn
	for _, text := range e.queue {
		if conn.Write(websocket.Text, text) != nil {
			e.conn = nil
			return
		}
	}
}

func (e *events) detach() {
	e.mu.Lock()
	e.conn = nil
	e.mu.Unlock()
}

func (e *events) ack(seq int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.acked < min(seq, e.seq) {
		e.acked++
		e.queue[0] = nil
		e.queue = e.queue[1:]
	}
	close(e.moved)
	e.moved = make(chan struct{})
}

func (e *events) last() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seq
}

// wait returns when event seq is acknowledged, or as much time as limit says has passed.
func (e *events) wait(seq int64, limit func() time.Duration) {
	begin := time.Now()
	for {
		e.mu.Lock()
		done, moved := e.acked >= seq, e.moved
		e.mu.Unlock()
		if done || time.Since(begin) > limit() {
			return
		}
		select {
		case <-moved:
		case <-time.After(50 * time.Millisecond):
		}
	}
}
