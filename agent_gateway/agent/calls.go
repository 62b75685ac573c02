package main

import (
	"encoding/json"
	"syscall"

	"sockerless/agent/internal/process"
	"sockerless/agent/internal/stream"
	"sockerless/agent/internal/top"
)

// call carries out one call of the wire protocol's section 5.
func (a *Agent) call(method string, params json.RawMessage) (any, error) {
	var p struct {
		Spec    *LaunchSpec `json:"spec"`
		Streams []string    `json:"streams"`
		Signal  int         `json:"signal"`
		Rows    int         `json:"rows"`
		Cols    int         `json:"cols"`
		Exec    string      `json:"exec"`
		Path    string      `json:"path"`
		PsArgs  string      `json:"ps_args"`
		Kill    bool        `json:"kill"`
	}
	if err := decode(params, &p); err != nil {
		return nil, err
	}
	done := struct{}{}
	switch method {
	case "start":
		if p.Spec == nil {
			return nil, stream.Refuse(400, "start without a spec")
		}
		return done, a.start(p.Spec, p.Streams)
	case "prepare":
		if p.Spec == nil {
			return nil, stream.Refuse(400, "prepare without a spec")
		}
		return done, a.prepare(p.Spec)
	case "signal":
		return done, a.signal(syscall.Signal(p.Signal))
	case "pause":
		return done, a.signalAll(syscall.SIGSTOP)
	case "unpause":
		return done, a.signalAll(syscall.SIGCONT)
	case "resize":
		return done, a.resize(p.Exec, p.Rows, p.Cols)
	case "exec":
		return a.execDetached(params)
	case "archive_stat":
		return a.container.Stat(p.Path)
	case "top":
		if _, err := a.running(); err != nil {
			return nil, err
		}
		return top.List(p.PsArgs)
	case "shutdown":
		a.shutdown(p.Kill)
		return done, nil
	}
	return nil, stream.Refuse(501, "call %q is not known to this agent", method)
}

func (a *Agent) signal(sig syscall.Signal) error {
	run, err := a.running()
	if err != nil {
		return err
	}
	if sig <= 0 || sig > 64 {
		return stream.Refuse(400, "Invalid signal: %d", int(sig))
	}
	if err := syscall.Kill(run.pid, sig); err == syscall.ESRCH {
		return stream.Refuse(409, "container %s is not running", a.id)
	} else if err != nil {
		return err
	}
	return nil
}

func (a *Agent) signalAll(sig syscall.Signal) error {
	if _, err := a.running(); err != nil {
		return err
	}
	process.SignalAll(sig)
	return nil
}

// shutdown ends what runs (with kill) and then the agent.
func (a *Agent) shutdown(kill bool) {
	a.mu.Lock()
	a.ending = true
	a.mu.Unlock()
	switch _, err := a.running(); {
	case err == nil && kill:
		process.KillAll()
	case err != nil && !a.starting():
		a.stop()
	}
}

// resize sets the terminal size of the main process, or of an exec session.
func (a *Agent) resize(exec string, rows, cols int) error {
	if exec == "" {
		if _, err := a.running(); err != nil {
			return err
		}
		return a.resizeMain(rows, cols)
	}
	a.mu.Lock()
	e := a.execs[exec]
	a.mu.Unlock()
	if e == nil {
		return stream.Refuse(404, "No such exec instance: %s", exec)
	}
	e.resize(rows, cols)
	return nil
}

// resizeMain also remembers the size for a run that has not begun.
func (a *Agent) resizeMain(rows, cols int) error {
	if rows <= 0 || cols <= 0 || rows > 65535 || cols > 65535 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.run == nil || a.run.master == nil {
		a.size = [2]int{rows, cols}
		if a.run != nil && a.run.exited() == nil {
			a.run.spec.Rows, a.run.spec.Cols = rows, cols
		}
		return nil
	}
	return process.Resize(a.run.master, rows, cols)
}
