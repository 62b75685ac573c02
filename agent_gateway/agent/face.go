package main

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"sockerless/agent/internal/face"
	"sockerless/agent/internal/spool"
	"sockerless/agent/internal/stream"
)

// Modes of the agent where the platform runs containers to answer requests.
const (
	modeFunction = "function"
	modeApp      = "app"
)

// openPort listens on the port that the platform names; Go gives none of its files to the processes that it forks.
func openPort() (net.Listener, error) {
	for _, name := range []string{"PORT", "FUNCTIONS_CUSTOMHANDLER_PORT", "WEBSITES_PORT"} {
		if port := os.Getenv(name); port != "" {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return nil, fmt.Errorf("%s must be a port, not %q", name, port)
			}
			return net.Listen("tcp", ":"+port)
		}
	}
	return nil, fmt.Errorf("PORT (or FUNCTIONS_CUSTOMHANDLER_PORT, or WEBSITES_PORT) must be set")
}

// answerHTTP serves the platform's pings and the invocations.
func (a *Agent) answerHTTP(q *face.Request) face.Answer {
	switch {
	case q.Path == "/admin/host/status" && q.Method != "HEAD" && (q.Method == "GET" || q.Method == "POST"):
		return face.Answer{Status: 200, Body: message{"state": "Running", "version": "4.0.0.0", "versionDetails": version,
			"processUptime": time.Since(a.began).Milliseconds()}}
	case q.Method == "GET", q.Method == "HEAD", q.Method == "POST" && strings.HasPrefix(q.Path, "/admin/host/"):
		return face.Answer{Status: 200}
	case q.Method != "POST":
		return face.Answer{Status: 405, Allow: "GET, HEAD, POST", Body: message{"message": "method not allowed"}}
	case q.Path != "/" && q.Path != "/run" && q.Path != "/api/run":
		return face.Answer{Status: 404, Body: message{"message": "page not found"}}
	}
	i, custom, err := a.key.readInvocation(q)
	answer := face.Answer{}
	if err == nil {
		answer, err = a.invoked(q, i)
	}
	if err != nil {
		refusal := stream.AsRefusal(err)
		answer = face.Answer{Status: refusal.Status, Body: message{"message": refusal.Message}}
	}
	if custom {
		return customAnswer(answer)
	}
	return answer
}

// invoked carries an invocation out; with hold it returns when the agent has no use for it any more.
func (a *Agent) invoked(q *face.Request, i *invocation) (face.Answer, error) {
	if err := a.identify(i); err != nil {
		return face.Answer{}, err
	}
	if a.quitting() && (!i.Hold || i.Run > a.lastRun()) {
		return face.Answer{}, stream.Refuse(409, "ended")
	}
	one := a.holds.add(i)
	a.dial()
	if !i.Hold {
		return face.Answer{Status: 202, Body: message{"container": i.Container, "boot": a.boot}}, nil
	}
	released := false
	select {
	case released = <-one.answer:
	case <-q.Gone():
		a.holds.broken(one)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	run, exit := 0, (*exitInfo)(nil)
	if a.run != nil {
		run, exit = a.run.spec.Run, a.run.exited()
	}
	return face.Answer{Status: 200, Body: message{"container": a.id, "run": run, "exit": exit, "released": released},
		Sent: func() { close(one.sent) }}, nil
}

// identify makes the agent that of the invocation's container, or refuses another one. Where to dial, and with what, may be renewed.
func (a *Agent) identify(i *invocation) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.id != "" && i.Container != a.id {
		return stream.Refuse(409, "this is the instance of another container")
	}
	callback, token := a.callback, a.token
	if i.Callback != "" {
		callback = i.Callback
	}
	if i.Token != "" {
		token = i.Token
	}
	if callback == "" || token == "" {
		return stream.Refuse(400, "the invocation lacks callback or token, and so does the environment")
	}
	if err := a.become(i.Container, callback, token); err != nil {
		return stream.Refuse(400, "%v", err)
	}
	return nil
}

// quitting: the agent was told to end, or has no more to do.
func (a *Agent) quitting() bool {
	select {
	case <-a.quit:
		return true
	default:
		return false
	}
}

// lastRun is the number of the run that goes on or was the last one; 0: none.
func (a *Agent) lastRun() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.run == nil {
		return 0
	}
	return a.run.spec.Run
}

// listen opens the agent's HTTP face.
func (a *Agent) listen(mode, key string) error {
	l, err := openPort()
	if err != nil {
		return err
	}
	a.key, a.holds = sha256.Sum256([]byte(key)), newHolds(a, mode)
	a.mark()
	a.listener = l
	return nil
}

// mark has the lines of the platform's log say whose they are, as the mode wants it.
func (a *Agent) mark() {
	if a.holds == nil || a.id == "" {
		return
	}
	if a.holds.mode == modeFunction {
		spool.Label(a.id, a.platform[1], a.platform[2])
	} else {
		spool.Number(a.id, a.platform[1], a.platform[2])
	}
}
