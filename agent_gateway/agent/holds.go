package main

import (
	"strconv"
	"sync"
	"syscall"
	"time"

	"sockerless/agent/internal/process"
)

const (
	limitGrace  = 10 * time.Second       // between TERM and KILL at the run limit
	limitRetry  = 100 * time.Millisecond // while the process is being started
	freshFor    = 60 * time.Second       // so long an invocation counts as that of the run that begins
	answersWait = 2 * time.Second        // for answers to be taken
)

// held is an invocation that waits for its answer.
type held struct {
	answer chan bool     // gets whether it is released
	sent   chan struct{} // closed when the client has taken it, or does not
}

// holds are the invocations that hold the platform's instance, and the run limit that they bring. Agent.mu is never taken under its mu.
type holds struct {
	a    *Agent
	mode string

	mu       sync.Mutex
	waiting  map[*held]struct{}
	arrived  time.Time // of the newest invocation
	seconds  float64   // its limit; 0: none
	deadline time.Time // when the limit is reached; zero: never
	timer    *time.Timer
	ended    bool // the agent has no use for invocations any more
}

func newHolds(a *Agent, mode string) *holds {
	return &holds{a: a, mode: mode, waiting: map[*held]struct{}{}}
}

// any tells whether an invocation is held.
func (h *holds) any() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waiting) > 0
}

// add takes an invocation's limit and, with hold, keeps it. An agent that has ended answers at once.
func (h *holds) add(i *invocation) *held {
	h.mu.Lock()
	defer h.mu.Unlock()
	one := &held{answer: make(chan bool, 1), sent: make(chan struct{})}
	if h.ended {
		one.answer <- false
		return one
	}
	h.arrived, h.seconds = time.Now(), i.Limit
	h.count()
	if i.Hold {
		h.waiting[one] = struct{}{}
	}
	return one
}

// count has the limit begin now.
func (h *holds) count() {
	if h.timer != nil {
		h.timer.Stop()
	}
	h.deadline = time.Time{}
	if h.seconds > 0 {
		limit := time.Duration(h.seconds * float64(time.Second))
		h.deadline = time.Now().Add(limit)
		h.timer = time.AfterFunc(limit, h.reached)
	}
}

// take removes all that is held.
func (h *holds) take() (list []*held) {
	for one := range h.waiting {
		list = append(list, one)
	}
	clear(h.waiting)
	return list
}

// tell answers what was taken, and waits for that.
func tell(list []*held, released bool) {
	for _, one := range list {
		one.answer <- released
	}
	patience := time.After(answersWait)
	for _, one := range list {
		select {
		case <-one.sent:
		case <-patience:
			return
		}
	}
}

// broken: the connection of an invocation is gone without an answer.
func (h *holds) broken(one *held) {
	h.mu.Lock()
	_, was := h.waiting[one]
	delete(h.waiting, one)
	last := was && len(h.waiting) == 0 && h.mode == modeFunction && !h.ended
	h.mu.Unlock()
	if last && !h.a.quitting() {
		h.a.tellReleased()
	}
}

// begun: a run begins, and Agent.mu is held. It has the limit of an invocation that has just come in, else a whole one.
func (h *holds) begun() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.arrived.IsZero() || time.Since(h.arrived) <= freshFor {
		return
	}
	h.count()
	if list := h.take(); len(list) > 0 {
		go h.a.release(list)
	}
}

// overdue tells whether the limit is reached, and what to say then.
func (h *holds) overdue() (text string, yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	yes = !h.ended && !h.deadline.IsZero() && !time.Now().Before(h.deadline)
	return "the run limit of " + strconv.FormatFloat(h.seconds, 'f', -1, 64) + " seconds was reached", yes
}

// reached ends the process that runs at its limit; an agent without one is released.
func (h *holds) reached() {
	text, overdue := h.overdue()
	if !overdue {
		return // a newer invocation has a limit of its own
	}
	a := h.a
	a.mu.Lock()
	run, idle := a.run, a.run == nil || a.run.lingers
	pid := 0
	if !idle && run.exited() == nil {
		pid = run.pid
	}
	if pid != 0 && run.overrun == "" {
		run.overrun = text
	} else if pid != 0 {
		pid = 0 // it is being ended
	}
	starting := !idle && run.pid == 0 && run.exited() == nil
	a.mu.Unlock()
	switch {
	case idle && !a.quitting():
		h.expire()
	case pid != 0:
		syscall.Kill(pid, syscall.SIGTERM)
		time.AfterFunc(limitGrace, func() {
			if run.exited() == nil {
				process.KillAll()
			}
		})
	case starting:
		time.AfterFunc(limitRetry, h.reached)
	}
}

// expire releases what is held: its limit is reached and nothing runs.
func (h *holds) expire() {
	h.mu.Lock()
	list := h.take()
	h.deadline = time.Time{}
	h.mu.Unlock()
	if len(list) > 0 {
		h.a.release(list)
	}
}

// end answers everything: the agent ends.
func (h *holds) end() {
	h.mu.Lock()
	h.ended = true
	list := h.take()
	h.mu.Unlock()
	tell(list, false)
}

// release answers invocations whose time is over, then says so: nothing holds the instance any more.
func (a *Agent) release(list []*held) {
	tell(list, true)
	a.tellReleased()
}

func (a *Agent) tellReleased() {
	a.events.add(message{"type": "released", "run": a.lastRun(), "at": rfc3339(time.Now())})
}
