package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"sockerless/agent/internal/process"
	"sockerless/agent/internal/stream"
)

type execParams struct {
	Exec       string   `json:"exec"`
	Argv       []string `json:"argv"`
	Env        []string `json:"env"`
	Workdir    string   `json:"workdir"`
	User       string   `json:"user"`
	TTY        bool     `json:"tty"`
	Privileged bool     `json:"privileged"`
	Stdin      bool     `json:"stdin"`
	Stdout     bool     `json:"stdout"`
	Stderr     bool     `json:"stderr"`
	DetachKeys string   `json:"detach_keys"`
	Rows       int      `json:"rows"`
	Cols       int      `json:"cols"`
}

// execSession is one exec.
type execSession struct {
	a *Agent
	p *execParams
	s *stream.Stream // nil when detached

	pid    int // guarded by Agent.mu
	stdin  stdin
	mu     sync.Mutex
	master *os.File
	pumps  []*pump
}

// execAckWait bounds how long an exec's stream stays open for its exit to be recorded: clients ask for the exit code as soon as the
// stream ends, and take one that is not known yet for 0. It is the patience of a broken stream, for the same outage delays both.
const execAckWait = 60 * time.Second

// execGrace is how long output may go on after the process: from children that hold it open.
const execGrace = 2 * time.Second

// serve runs the exec with its stdio on its stream.
func (e *execSession) serve() {
	s, p := e.s, e.p
	keys, err := detachKeys(p.DetachKeys)
	if err != nil {
		s.Fail(err)
		return
	}
	done, err := e.start()
	if err != nil {
		seq := e.failed(err)
		e.recorded(seq)
		s.Fail(err)
		return
	}
	if p.Stdin {
		if !p.TTY {
			keys = nil
		}
		go e.carry(keys)
	} else {
		s.Discard()
	}
	seq, code := e.await(done)
	e.recorded(seq)
	s.Exit(code)
}

// recorded waits until the control plane knows of the exit, as long as somebody is there to ask for it.
func (e *execSession) recorded(seq int64) {
	e.a.events.wait(seq, func() time.Duration {
		select {
		case <-e.s.Gone():
			return 0
		default:
			return execAckWait
		}
	})
}

// carry feeds stdin; on a terminal, its end and the detach keys mean that the client leaves.
func (e *execSession) carry(keys []byte) {
	if e.stdin.carry(e.s, keys, !e.p.TTY) {
		e.s.Send(&stream.Control{EOF: true})
		e.s.End()
	}
}

// execDetached is the call `exec`.
func (a *Agent) execDetached(params json.RawMessage) (any, error) {
	p := &execParams{}
	if err := decode(params, p); err != nil {
		return nil, err
	}
	p.Stdin, p.Stdout, p.Stderr = false, false, false
	e := &execSession{a: a, p: p}
	done, err := e.start()
	if err != nil {
		e.failed(err)
		return nil, err
	}
	go e.await(done)
	return map[string]int{"pid": e.pid}, nil
}

// start starts the process; errors are Docker's.
func (e *execSession) start() (<-chan int, error) {
	if len(e.p.Argv) == 0 {
		return nil, stream.Refuse(400, "No exec command specified")
	}
	run, err := e.a.running()
	if err != nil {
		return nil, err
	}
	e.a.mu.Lock()
	e.a.execs[e.p.Exec] = e
	e.a.mu.Unlock()
	done, err := e.launch(run)
	var start *process.StartError
	if errors.As(err, &start) {
		code, text := startFailure(err, "OCI runtime exec failed: exec failed: unable to start container process: ")
		return nil, &execFailure{code: code, Refusal: &stream.Refusal{Status: 400, Message: text}}
	}
	if err == nil {
		e.a.events.add(message{"type": "exec_started", "exec": e.p.Exec, "pid": e.pid, "at": rfc3339(time.Now())})
	}
	return done, err
}

// execFailure is Docker's error of an exec that did not start, and its exit code.
type execFailure struct {
	*stream.Refusal
	code int
}

func (f *execFailure) Unwrap() error { return f.Refusal }

func (e *execSession) launch(run *Run) (<-chan int, error) {
	c, err := e.command(run)
	if err != nil {
		return nil, err
	}
	if err := e.stdio(c); err != nil {
		return nil, err
	}
	pid, done, err := e.a.reaper.Start(c)
	process.CloseAll(c.Files[:]...)
	var late *process.StartError
	if errors.As(err, &late) && late.Late {
		if e.s != nil && (e.p.Stderr || e.p.TTY) {
			e.s.WriteFrame(e.frameKind(2), []byte(late.Text+"\n"))
			e.s.Flush()
		}
		done, err = codeOf(late.Code), nil
	}
	if err != nil {
		for _, p := range e.pumps {
			p.f.Close()
		}
		e.stdin.close()
		return nil, err
	}
	e.a.mu.Lock()
	e.pid = pid
	e.a.mu.Unlock()
	if e.s != nil {
		e.s.Result(map[string]int{"pid": pid}) // before any output: the front door answers the client's request on it
	}
	for _, p := range e.pumps {
		go p.run()
	}
	return done, nil
}

func (e *execSession) frameKind(kind byte) byte {
	if e.p.TTY {
		return 0
	}
	return kind
}

func (e *execSession) command(run *Run) (*process.Command, error) {
	name := e.p.User
	groups := run.spec.Groups
	if name == "" {
		name = run.spec.User
	}
	user, err := process.LookupUser(name, groups)
	if err != nil {
		return nil, &process.StartError{Code: process.CodeNotInvoked, Text: err.Error(), Bare: true}
	}
	bounds, err := run.spec.bounds()
	if err != nil {
		return nil, err
	}
	if e.p.Privileged {
		bounds.Caps = process.AllCaps
	}
	workdir := e.p.Workdir
	if workdir == "" {
		workdir = run.spec.workdir()
	}
	if err := process.CheckWorkdir(workdir); err != nil {
		return nil, err
	}
	env := process.Environment(run.spec.Hostname, e.p.TTY, user.Home, run.spec.Env, e.p.Env)
	return &process.Command{Argv: e.p.Argv, Env: env, Workdir: workdir, User: user, Bounds: bounds, Limits: run.spec.Ulimits,
		OOMScoreAdj: run.spec.OOMScoreAdj, TTY: e.p.TTY}, nil
}

func (e *execSession) stdio(c *process.Command) error {
	if e.p.TTY {
		e.mu.Lock()
		defer e.mu.Unlock()
		master, slave, err := process.OpenPTY(e.p.Rows, e.p.Cols)
		if err != nil {
			return err
		}
		c.Files = [3]*os.File{slave, slave, slave}
		e.master = master
		e.stdin = stdin{f: master, keep: true}
		e.pumps = []*pump{newPump(master, e.s, 0, e.s != nil && (e.p.Stdout || e.p.Stderr))}
		return nil
	}
	var err error
	if c.Files[0], e.stdin.f, err = process.Input(e.p.Stdin); err != nil {
		return err
	}
	for kind := byte(1); kind <= 2; kind++ {
		r, w, err := process.Pipe()
		if err != nil {
			return err
		}
		c.Files[kind] = w
		e.pumps = append(e.pumps, newPump(r, e.s, kind, kind == 1 && e.p.Stdout || kind == 2 && e.p.Stderr))
	}
	return nil
}

// failed reports an exec that could not be started, as the relay's order of events wants it: the event, then the error.
func (e *execSession) failed(err error) int64 {
	code := process.CodeNotInvoked // moby's, unless it knows better
	var failure *execFailure
	if errors.As(err, &failure) {
		code = failure.code
	}
	e.a.mu.Lock()
	delete(e.a.execs, e.p.Exec)
	e.a.mu.Unlock()
	return e.a.events.add(message{"type": "exec_exited", "exec": e.p.Exec, "code": code, "at": rfc3339(time.Now())})
}

// await waits for the process and its output, and reports the exit.
func (e *execSession) await(done <-chan int) (seq int64, code int) {
	code = <-done
	deadline := time.Now().Add(execGrace)
	for _, p := range e.pumps {
		p.settle(deadline)
	}
	e.stdin.close()
	e.a.mu.Lock()
	delete(e.a.execs, e.p.Exec)
	e.a.mu.Unlock()
	e.mu.Lock()
	e.master = nil
	e.mu.Unlock()
	return e.a.events.add(message{"type": "exec_exited", "exec": e.p.Exec, "code": code, "at": rfc3339(time.Now())}), code
}

func (e *execSession) resize(rows, cols int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if rows <= 0 || cols <= 0 || rows > 65535 || cols > 65535 {
		return
	}
	e.p.Rows, e.p.Cols = rows, cols
	if e.master != nil {
		process.Resize(e.master, rows, cols)
	}
}

// discard reads f to its end.
func discard(f *os.File) { io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, 32<<10)) }
