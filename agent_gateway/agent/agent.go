package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"sync"
	"syscall"
	"time"

	"sockerless/agent/internal/archive"
	"sockerless/agent/internal/process"
	"sockerless/agent/internal/spool"
	"sockerless/agent/internal/stream"
	"sockerless/agent/internal/websocket"
)

// Agent is the whole of it: one container.
type Agent struct {
	id, boot       string
	gateway        *websocket.Gateway
	connectTimeout time.Duration
	began          time.Time

	reaper    *process.Reaper
	events    *events
	spool     *spool.Spool
	platform  [3]*spool.Platform // by stream number
	container archive.Container
	ctx       context.Context

	mu       sync.Mutex
	spec     *LaunchSpec // of the last run
	run      *Run        // the last one, running or not
	streams  map[string]*stream.Stream
	opened   map[string]chan struct{} // closed when the stream of that id takes part
	pending  []*attachment            // attached before a run
	execs    map[string]*execSession
	size     [2]int // terminal size told before the run
	prepared func() error
	linger   *time.Timer
	ending   bool // the platform, or `shutdown`, ends this container: no lingering

	quit     chan struct{}
	quitOnce sync.Once
	fallback int // exit code without a run

	linkMu   sync.Mutex
	linkUp   *sync.Cond
	link     *websocket.Conn
	linkDown time.Time
	welcomed bool
}

func newAgent(id string, gateway *websocket.Gateway, timeout time.Duration) *Agent {
	var boot [8]byte
	rand.Read(boot[:])
	a := &Agent{id: id, boot: hex.EncodeToString(boot[:]), gateway: gateway, connectTimeout: timeout, began: time.Now(), linkDown: time.Now(),
		spool: spool.New("/.sockerless"), container: archive.Container{ID: id}, ctx: context.Background(),
		streams: map[string]*stream.Stream{}, opened: map[string]chan struct{}{}, execs: map[string]*execSession{}, quit: make(chan struct{})}
	a.platform[1], a.platform[2] = spool.NewPlatform(os.Stdout), spool.NewPlatform(os.Stderr)
	a.events = newEvents()
	a.linkUp = sync.NewCond(&a.linkMu)
	return a
}

func (a *Agent) main() {
	a.reaper = process.NewReaper()
	go a.forwardSignals()
	go a.keepLink()
	go a.keepSpare()
	<-a.quit
	os.Exit(a.finish())
}

// stop ends the agent once the run's output, exit and streams are delivered.
func (a *Agent) stop() { a.quitOnce.Do(func() { close(a.quit) }) }

// Bounds of the agent's own end: what is not delivered by then is lost with it.
const (
	finishStreams  = 10 * time.Second
	finishEvents   = 10 * time.Second
	finishDrifting = 60 * time.Second // with the link down
	finishPlatform = 5 * time.Second
)

// finish delivers what is left and returns the exit code: the run's.
func (a *Agent) finish() int {
	a.events.wait(a.events.last(), func() time.Duration {
		if a.linked() {
			return finishEvents
		}
		return finishDrifting
	})
	a.mu.Lock()
	for _, t := range a.pending {
		t.s.End()
	}
	a.mu.Unlock()
	a.awaitStreams(finishStreams)
	a.platform[1].Drain(finishPlatform)
	a.platform[2].Drain(finishPlatform)
	a.linkMu.Lock()
	if a.link != nil {
		a.link.Close(websocket.CloseNormal)
	}
	a.linkMu.Unlock()
	return a.exitCode()
}

func (a *Agent) exitCode() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.run == nil {
		return a.fallback
	}
	if exit := a.run.exited(); exit != nil {
		return exit.Code
	}
	return 128 + int(syscall.SIGKILL)
}

// awaitStreams lets the streams end by themselves, for limit at most.
func (a *Agent) awaitStreams(limit time.Duration) {
	deadline := time.After(limit)
	for {
		var s *stream.Stream
		a.mu.Lock()
		for _, s = range a.streams {
			break
		}
		a.mu.Unlock()
		if s == nil {
			return
		}
		select {
		case <-s.Gone():
			a.forget(s)
		case <-deadline:
			return
		}
	}
}

func (a *Agent) forget(s *stream.Stream) {
	a.mu.Lock()
	if a.streams[s.ID] == s {
		delete(a.streams, s.ID)
		delete(a.opened, s.ID)
	}
	a.mu.Unlock()
}

// running returns the run that goes on, or Docker's refusal.
func (a *Agent) running() (*Run, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.run == nil || a.run.pid == 0 || a.run.exited() != nil {
		return nil, stream.Refuse(409, "container %s is not running", a.id)
	}
	return a.run, nil
}
