package main

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"sockerless/agent/internal/process"
)

// Docker's defaults of a health check.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
	healthOutput        = 4096
)

func orDefault(ns int64, def time.Duration) time.Duration {
	if ns <= 0 {
		return def
	}
	return time.Duration(ns)
}

// watchHealth probes the run until stop, and reports each probe.
func (a *Agent) watchHealth(r *Run, stop <-chan struct{}) {
	h := r.spec.Healthcheck
	argv := healthCommand(h)
	if argv == nil {
		return
	}
	retries := h.Retries
	if retries <= 0 {
		retries = healthRetries
	}
	status, streak := "starting", 0
	for {
		startPhase := status == "starting" && time.Since(r.startedAt) < time.Duration(h.StartPeriod)
		wait := orDefault(h.Interval, healthInterval)
		if startPhase {
			wait = orDefault(h.StartInterval, healthStartInterval)
		}
		select {
		case <-stop:
			return
		case <-time.After(wait):
		}
		begin := time.Now()
		code, output := a.probe(r, argv, orDefault(h.Timeout, healthTimeout))
		select {
		case <-stop:
			return // the container ended under the probe
		default:
		}
		switch {
		case code == 0:
			status, streak = "healthy", 0
		case status == "starting" && begin.Sub(r.startedAt) < time.Duration(h.StartPeriod):
		default:
			if streak++; streak >= retries {
				status = "unhealthy"
			}
		}
		a.events.add(message{"type": "health", "run": r.spec.Run, "status": status, "failing_streak": streak,
			"log": message{"start": rfc3339(begin), "end": rfc3339(time.Now()), "exit_code": code, "output": output}})
	}
}

func healthCommand(h *Healthcheck) []string {
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	switch h.Test[0] {
	case "CMD":
		return h.Test[1:]
	case "CMD-SHELL":
		return []string{"/bin/sh", "-c", h.Test[1]}
	}
	return nil // NONE
}

// probe runs the check as an exec of the container's user and returns its exit code and the begin of its output.
func (a *Agent) probe(r *Run, argv []string, timeout time.Duration) (int, string) {
	e := &execSession{a: a, p: &execParams{Argv: argv}}
	c, err := e.command(r)
	if err != nil {
		return -1, short(err.Error())
	}
	out, w, err := os.Pipe()
	if err != nil {
		return -1, short(err.Error())
	}
	in, _, err := process.Input(false)
	if err != nil {
		process.CloseAll(out, w)
		return -1, short(err.Error())
	}
	c.Files = [3]*os.File{in, w, w}
	pid, done, err := a.reaper.Start(c)
	process.CloseAll(in, w)
	if err != nil {
		out.Close()
		_, text := startFailure(err, "OCI runtime exec failed: exec failed: unable to start container process: ")
		return -1, text
	}
	var capture capped
	read := make(chan struct{})
	go func() {
		defer close(read)
		capture.readFrom(out)
	}()
	select {
	case code := <-done:
		select {
		case <-read:
		case <-time.After(execGrace):
		}
		out.Close()
		return code, capture.text()
	case <-time.After(timeout):
		syscall.Kill(-pid, syscall.SIGKILL) // it leads a session of its own
		out.Close()
		return -1, fmt.Sprintf("Health check exceeded timeout (%v)", timeout)
	}
}

// capped keeps the first bytes of an output and drops the rest.
type capped struct {
	mu   sync.Mutex
	kept []byte
	more bool
}

func (c *capped) readFrom(f *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		c.mu.Lock()
		take := min(n, healthOutput-len(c.kept))
		c.kept = append(c.kept, buf[:take]...)
		c.more = c.more || take < n
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (c *capped) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more {
		return string(c.kept) + "..."
	}
	return string(c.kept)
}
