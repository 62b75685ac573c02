package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"sockerless/agent/internal/backoff"
	"sockerless/agent/internal/stream"
	"sockerless/agent/internal/websocket"
)

// keepSpare holds one socket ready that gets its stream later: then an exec costs no handshake.
func (a *Agent) keepSpare() {
	var wait backoff.Backoff
	for a.ctx.Err() == nil {
		a.awaitLink()
		conn, err := a.gateway.Load().Dial(a.ctx, "/agent/streams")
		if err != nil {
			wait.Sleep(a.ctx)
			continue
		}
		a.linkMu.Lock()
		a.spare = conn
		a.linkMu.Unlock()
		m, err := readLink(conn)
		a.linkMu.Lock()
		a.spare = nil
		a.linkMu.Unlock()
		if err != nil || m.Type != "open" {
			conn.Drop()
			wait.Sleep(a.ctx)
			continue
		}
		wait = backoff.Backoff{}
		go a.serve(m, conn)
	}
}

// awaitLink: the gateway takes spares of containers it knows.
func (a *Agent) awaitLink() {
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	for a.link == nil {
		a.linkUp.Wait()
	}
}

// open dials the stream that the relay names.
func (a *Agent) open(m *fromRelay) {
	a.mu.Lock()
	known := a.streams[m.Stream] != nil
	a.mu.Unlock()
	if known {
		return // its own redial is under way
	}
	dial := a.dialStream(m.Stream)
	ctx, cancel := context.WithTimeout(a.ctx, 60*time.Second)
	defer cancel()
	var wait backoff.Backoff
	for ctx.Err() == nil {
		conn, err := dial(ctx)
		if err == nil {
			a.serve(m, conn)
			return
		}
		var status *websocket.StatusError
		if errors.As(err, &status) && status.Status >= 400 && status.Status < 500 {
			return // the client is gone already
		}
		wait.Sleep(ctx)
	}
}

func (a *Agent) dialStream(id string) stream.Dial {
	return func(ctx context.Context) (*websocket.Conn, error) {
		return a.gateway.Load().Dial(ctx, "/agent/streams/"+id)
	}
}

// serve runs the stream of an open message over conn.
func (a *Agent) serve(m *fromRelay, conn *websocket.Conn) {
	a.mu.Lock()
	if old := a.streams[m.Stream]; old != nil {
		a.mu.Unlock()
		old.Adopt(conn)
		return
	}
	s := stream.New(m.Stream, a.dialStream(m.Stream))
	a.streams[m.Stream] = s
	ended := a.ended.known[m.Stream]
	a.mu.Unlock()
	var begin func()
	err := error(stream.Refuse(410, "the stream has ended"))
	if !ended {
		begin, err = a.handler(s, m)
	}
	if err != nil {
		s.Discard()
	}
	a.markOpened(m.Stream)
	go func() {
		s.Serve(a.ctx, conn)
		a.forget(s)
	}()
	if err != nil {
		s.Fail(err)
		return
	}
	begin()
}

// handler finds what serves the stream. What it does before it returns happens before the stream counts as opened.
func (a *Agent) handler(s *stream.Stream, m *fromRelay) (begin func(), err error) {
	switch m.Kind {
	case "attach":
		p := &attachParams{}
		if err := decode(m.Params, p); err != nil {
			return nil, err
		}
		return a.attach(s, p)
	case "exec":
		e := &execSession{a: a, p: &execParams{}, s: s}
		s.OnResize = e.resize
		return e.serve, decode(m.Params, e.p)
	case "logs":
		p := &logsParams{Tail: -1}
		return func() { a.logs(s, p) }, decode(m.Params, p)
	case "dial":
		p := &dialParams{}
		return func() { a.dialPort(s, p) }, decode(m.Params, p)
	case "archive_get":
		p := &archiveParams{}
		return func() { a.archiveGet(s, p) }, decode(m.Params, p)
	case "archive_put":
		p := &archiveParams{}
		return func() { a.archivePut(s, p) }, decode(m.Params, p)
	}
	return nil, stream.Refuse(501, "stream kind %q is not known to this agent", m.Kind)
}

func decode(params json.RawMessage, into any) error {
	if len(params) == 0 {
		return nil
	}
	if err := json.Unmarshal(params, into); err != nil {
		return stream.Refuse(400, "invalid parameters: %v", err)
	}
	return nil
}

// openedChannel is closed when the stream id takes part.
func (a *Agent) openedChannel(id string) chan struct{} {
	ch := a.opened[id]
	if ch == nil {
		ch = make(chan struct{})
		a.opened[id] = ch
	}
	return ch
}

func (a *Agent) markOpened(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ch := a.openedChannel(id)
	select {
	case <-ch:
	default:
		close(ch)
	}
}

const streamsWait = 10 * time.Second

// awaitOpened waits until the streams attached before the start take part, for streamsWait at most.
func (a *Agent) awaitOpened(ids []string) {
	deadline := time.After(streamsWait)
	for _, id := range ids {
		a.mu.Lock()
		ended := a.ended.known[id]
		var ch chan struct{}
		if !ended {
			ch = a.openedChannel(id)
		}
		a.mu.Unlock()
		if ended {
			continue
		}
		select {
		case <-ch:
		case <-deadline:
			return
		}
	}
}
