package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sockerless/agent/internal/archive"
	"sockerless/agent/internal/face"
	"sockerless/agent/internal/process"
	"sockerless/agent/internal/spool"
	"sockerless/agent/internal/stream"
	"sockerless/agent/internal/websocket"
)

// Agent is the whole of it: one container.
type Agent struct {
	boot           string
	id             string // known before anything is dialled
	callback       string // guarded by mu, as the token
	token          string
	gateway        atomic.Pointer[websocket.Gateway] // that has the link, or had it last
	places         places
	connectTimeout time.Duration
	began          time.Time

	reaper    *process.Reaper
	events    *events
	spool     *spool.Spool
	platform  [3]*spool.Platform // by stream number
	container archive.Container
	ctx       context.Context // ends when nothing is dialled any more
	cancel    context.CancelFunc
	key       invocationKey
	holds     *holds // nil without an HTTP face
	listener  net.Listener
	dialOnce  sync.Once
	dialled   atomic.Int64 // connections of published ports that stand

	mu       sync.Mutex
	spec     *LaunchSpec // of the last run
	run      *Run        // the last one, running or not
	links    int         // hellos so far
	ended    endedStreams
	streams  map[string]*stream.Stream
	opened   map[string]chan struct{} // closed when the stream of that id takes part
	pending  []*attachment            // attached before a run
	execs    map[string]*execSession
	size     [2]int // terminal size told before the run
	prepared func() error
	linger   *time.Timer
	ending   bool // the platform, or `shutdown`, ends this container: no lingering

	quit       chan struct{}
	quitOnce   sync.Once
	cancelled  chan struct{} // closed when the platform ends the container
	cancelOnce sync.Once
	fallback   int // exit code without a run

	linkMu   sync.Mutex
	linkUp   *sync.Cond
	link     *websocket.Conn
	spare    *websocket.Conn
	settled  *websocket.Gateway // that welcomed the agent last
	linkDown time.Time
	welcomed bool
}

func newAgent(timeout time.Duration) *Agent {
	var boot [8]byte
	rand.Read(boot[:])
	a := &Agent{boot: hex.EncodeToString(boot[:]), connectTimeout: timeout, began: time.Now(), linkDown: time.Now(), spool: spool.New("/.sockerless"),
		streams: map[string]*stream.Stream{}, opened: map[string]chan struct{}{}, execs: map[string]*execSession{}, quit: make(chan struct{}),
		cancelled: make(chan struct{})}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.platform[1], a.platform[2] = spool.NewPlatform(os.Stdout), spool.NewPlatform(os.Stderr)
	a.events = newEvents()
	a.linkUp = sync.NewCond(&a.linkMu)
	return a
}

func (a *Agent) main() {
	a.reaper = process.NewReaper()
	go a.forwardSignals()
	if a.holds != nil {
		go (&face.Server{Handle: a.answerHTTP}).Serve(a.listener)
	}
	if a.gateway.Load() != nil {
		a.dial()
	}
	<-a.quit
	os.Exit(a.finish())
}

// become makes the agent that of a container; later it may be given another address or token.
func (a *Agent) become(id, callback, token string) error {
	gateways, err := websocket.ParseGateways(callback, token)
	if err != nil {
		return err
	}
	a.callback, a.token = callback, token
	if a.gateway.Swap(a.places.give(gateways, token)) == nil {
		a.id, a.container = id, archive.Container{ID: id}
		a.mark()
	}
	return nil
}

// dial begins to keep the link, once.
func (a *Agent) dial() {
	a.dialOnce.Do(func() {
		a.linkMu.Lock()
		a.linkDown = time.Now()
		a.linkMu.Unlock()
		go a.keepLink()
		go a.keepSpare()
	})
}

// stop ends the agent once the run's output, exit and streams are delivered.
func (a *Agent) stop() { a.quitOnce.Do(func() { close(a.quit) }) }

// Bounds of the agent's own end: what is not delivered by then is lost with it.
const (
	finishStreams   = 10 * time.Second
	finishEvents    = 10 * time.Second
	finishDrifting  = 60 * time.Second // with the link down
	finishPlatform  = 5 * time.Second
	finishCancelled = 3 * time.Second // when the platform ends the container, invocations are to be answered first
)

// finish delivers what is left and returns the exit code: the run's.
func (a *Agent) finish() int {
	a.events.wait(a.events.last(), func() time.Duration {
		switch {
		case a.holds != nil && a.isCancelled():
			return finishCancelled
		case a.linked():
			return finishEvents
		}
		return finishDrifting
	})
	if a.isCancelled() {
		a.answerHeld()
	}
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
	a.answerHeld()
	if a.holds != nil && a.holds.mode == modeApp {
		a.rest()
		<-a.cancelled
	}
	return a.exitCode()
}

func (a *Agent) answerHeld() {
	if a.holds != nil {
		a.holds.end()
	}
}

// rest gives up every connection but the listener: the platform would restart an agent that exits.
func (a *Agent) rest() {
	a.cancel()
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	if a.spare != nil {
		a.spare.Drop()
	}
}

func (a *Agent) isCancelled() bool {
	select {
	case <-a.cancelled:
		return true
	default:
		return false
	}
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
		a.ended.add(s.ID)
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
