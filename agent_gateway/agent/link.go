package main

import (
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"time"

	"sockerless/agent/internal/backoff"
	"sockerless/agent/internal/process"
	"sockerless/agent/internal/stream"
	"sockerless/agent/internal/websocket"
)

const (
	pingAfter = 20 * time.Second
	deadAfter = 60 * time.Second
)

// fromRelay is any message of the relay's on a link.
type fromRelay struct {
	Type    string          `json:"type"`
	Action  string          `json:"action"`
	Spec    *LaunchSpec     `json:"spec"`
	Streams []string        `json:"streams"`
	Stream  string          `json:"stream"`
	Kind    string          `json:"kind"`
	Params  json.RawMessage `json:"params"`
	ID      string          `json:"id"`
	Method  string          `json:"method"`
	Seq     int64           `json:"seq"`
	Gateway string          `json:"gateway"`
	URLs    []string        `json:"urls"`
	Token   string          `json:"token"`
}

// keepLink dials the link again and again. An agent that was never welcome, or has nothing left to run, gives up after a while.
func (a *Agent) keepLink() {
	var wait backoff.Backoff
	complained := false
	for a.ctx.Err() == nil {
		place := a.places.next()
		conn, err := place.Dial(a.ctx, "/agent/link")
		a.places.dialled(place, err == nil)
		if err == nil {
			a.gateway.Store(place)
			if a.talk(conn) {
				wait, complained = backoff.Backoff{}, false
			}
		} else if !complained && a.ctx.Err() == nil {
			complained = true
			diagnose("no link to the gateway: " + err.Error())
		}
		if a.drifted() {
			if !a.welcomed {
				a.giveUp()
			}
			a.stop()
		}
		wait.Sleep(a.ctx)
	}
}

// giveUp ends an agent that was never welcome.
func (a *Agent) giveUp() {
	if a.quitting() {
		return
	}
	diagnose("no welcome from the gateway in time: giving up")
	if a.holds == nil {
		os.Exit(process.CodeRefused)
	}
	a.mu.Lock()
	a.fallback = process.CodeRefused
	a.mu.Unlock()
}

// drifted: no link for the time allowed, and no process that would need one.
func (a *Agent) drifted() bool {
	a.linkMu.Lock()
	down := a.linkDown
	a.linkMu.Unlock()
	_, err := a.running()
	return err != nil && !down.IsZero() && time.Since(down) > a.connectTimeout
}

func (a *Agent) linked() bool {
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	return a.link != nil
}

// talk serves one link until it ends, and tells whether it was welcome.
func (a *Agent) talk(conn *websocket.Conn) (welcome bool) {
	a.linkMu.Lock()
	a.link = conn
	a.linkUp.Broadcast()
	a.linkMu.Unlock()
	stop := make(chan struct{})
	defer func() {
		close(stop)
		conn.Drop()
		a.events.detach()
		a.linkMu.Lock()
		a.link = nil
		if welcome {
			a.linkDown = time.Now()
		}
		a.linkMu.Unlock()
	}()
	if conn.Write(websocket.Text, a.hello().encode()) != nil {
		return false
	}
	heard := make(chan struct{}, 1)
	go keepAlive(conn, heard, stop)
	for {
		conn.SetReadDeadline(time.Now().Add(deadAfter))
		m, err := readLink(conn)
		if err != nil {
			return welcome
		}
		select {
		case heard <- struct{}{}:
		default:
		}
		if m.Type == "drain" {
			a.places.prefer(m.Gateway)
			conn.Close(websocket.CloseNormal)
			return welcome
		}
		if m.Type == "welcome" {
			welcome = true
		}
		if !a.dispatch(conn, m) {
			conn.Close(websocket.ClosePolicy)
			return welcome
		}
	}
}

func readLink(conn *websocket.Conn) (*fromRelay, error) {
	op, _, err := conn.Next()
	if err != nil {
		return nil, err
	}
	text, err := conn.Message()
	if err != nil {
		return nil, err
	}
	m := &fromRelay{}
	if op != websocket.Text || json.Unmarshal(text, m) != nil {
		conn.Close(websocket.ClosePolicy)
		return nil, errors.New("not a message of the link")
	}
	return m, nil
}

func keepAlive(conn *websocket.Conn, heard <-chan struct{}, stop <-chan struct{}) {
	timer := time.NewTimer(pingAfter)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-heard:
		case <-timer.C:
			conn.Write(websocket.Text, message{"type": "ping"}.encode())
		}
		timer.Reset(pingAfter)
	}
}

// dispatch handles one message; false for a type nobody knows.
func (a *Agent) dispatch(conn *websocket.Conn, m *fromRelay) bool {
	switch m.Type {
	case "welcome":
		a.welcome(conn, m)
	case "open":
		go a.open(m)
	case "call":
		go a.answer(conn, m)
	case "ack":
		a.events.ack(m.Seq)
	case "gateways":
		a.places.tell(m.URLs)
	case "token":
		a.renew(m.Token)
	case "pong":
	default:
		return false
	}
	return true
}

func (a *Agent) welcome(conn *websocket.Conn, m *fromRelay) {
	a.linkMu.Lock()
	a.linkDown, a.welcomed = time.Time{}, true
	a.linkMu.Unlock()
	a.arrived()
	a.events.attach(conn)
	switch m.Action {
	case "start":
		if m.Spec != nil {
			a.start(m.Spec, m.Streams) // started already: it is a redial, and we go on
		}
	case "shutdown":
		go a.shutdown(true)
	}
}

func (a *Agent) hello() message {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.links++
	m := message{"type": "hello", "link": a.links, "container": a.id, "version": version, "os": runtime.GOOS, "arch": runtime.GOARCH, "boot": a.boot,
		"run": 0, "running": false, "exit": nil, "pid": 0, "started_at": rfc3339(a.began), "execs": []string{}}
	if a.holds != nil && a.holds.mode == modeFunction {
		m["held"] = a.holds.any()
	}
	execs := []string{}
	for id, e := range a.execs {
		if e.pid != 0 {
			execs = append(execs, id)
		}
	}
	m["execs"] = execs
	if r := a.run; r != nil {
		exit := r.exited()
		m["run"], m["pid"], m["exit"] = r.spec.Run, r.pid, exit
		m["running"] = exit == nil && r.pid != 0
		if !r.startedAt.IsZero() {
			m["started_at"] = rfc3339(r.startedAt)
		}
	}
	return m
}

// answer carries a call out and sends its result.
func (a *Agent) answer(conn *websocket.Conn, m *fromRelay) {
	reply := message{"type": "result", "id": m.ID}
	result, err := a.call(m.Method, m.Params)
	if err != nil {
		reply["error"] = stream.AsRefusal(err)
	} else {
		reply["result"] = result
	}
	conn.Write(websocket.Text, reply.encode())
}

func rfc3339(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }
