package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sockerless/agent/internal/process"
	"sockerless/agent/internal/stream"
)

// Run is one run of the container's process.
type Run struct {
	a      *Agent
	spec   *LaunchSpec
	output *output
	stdin  stdin
	master *os.File

	// Guarded by Agent.mu:
	pid       int
	startedAt time.Time
	overrun   string // why the agent ended the process: its run limit
	lingers   bool   // the run is over and the agent stays

	exit  atomic.Pointer[exitInfo]
	ready chan struct{} // closed when stdin can be written to, or never will be
	ended chan struct{} // closed when the process is over, however it ended
	pumps sync.WaitGroup
	oom   func() bool
}

type exitInfo struct {
	Code int    `json:"code"`
	OOM  bool   `json:"oom"`
	At   string `json:"at"`
}

func (r *Run) exited() *exitInfo { return r.exit.Load() }

// over: no attachment can join any more.
func (r *Run) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// join gives t the run. It is called with Agent.mu held.
func (r *Run) join(t *attachment) {
	r.output.add(t)
	t.run <- r
}

// start begins a run, unless that run (or a later one) was begun before.
func (a *Agent) start(spec *LaunchSpec, streams []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.run != nil && spec.Run <= a.run.spec.Run {
		return nil
	}
	select {
	case <-a.quit:
		return stream.Refuse(409, "the agent of container %s is ending", a.id)
	default:
	}
	if a.run != nil && a.run.exited() == nil {
		return stream.Refuse(409, "container %s is already running", a.id)
	}
	if len(spec.Argv) == 0 {
		return stream.Refuse(400, "no command specified")
	}
	if a.linger != nil {
		a.linger.Stop()
	}
	if a.size != [2]int{} {
		spec.Rows, spec.Cols = a.size[0], a.size[1]
	}
	r := &Run{a: a, spec: spec, output: newOutput(a, spec), ready: make(chan struct{}), ended: make(chan struct{})}
	a.spec, a.run = spec, r
	a.spool.Begin(spec.LogMaxBytes)
	for _, t := range a.pending {
		r.join(t)
	}
	a.pending = nil
	if a.holds != nil {
		a.holds.begun()
	}
	go r.live(streams)
	return nil
}

// live is the run from beginning to end.
func (r *Run) live(streams []string) {
	r.a.awaitOpened(streams)
	done, err := r.launch()
	close(r.ready)
	if err != nil {
		r.failed(err)
		return
	}
	r.a.mu.Lock()
	pid := r.pid
	r.a.mu.Unlock()
	r.a.events.add(message{"type": "started", "run": r.spec.Run, "pid": pid, "at": rfc3339(r.startedAt)})
	health := make(chan struct{})
	go r.a.watchHealth(r, health)
	code := <-done
	close(health)
	r.finished(code)
}

// launch prepares the container and starts the process.
func (r *Run) launch() (<-chan int, error) {
	if err := r.a.prepare(r.spec); err != nil {
		return nil, &process.StartError{Code: process.CodeRefused, Text: err.Error(), Bare: true}
	}
	c, err := r.command()
	if err != nil {
		return nil, err
	}
	if err := process.Shed(r.spec.CapAdd, c.Bounds.Caps); err != nil {
		return nil, &process.StartError{Code: process.CodeRefused, Text: err.Error(), Bare: true}
	}
	outputs, err := r.stdio(c)
	if err != nil {
		return nil, err
	}
	r.oom = watchOOM()
	pid, done, err := r.a.reaper.Start(c)
	process.CloseAll(c.Files[:]...)
	var late *process.StartError
	if errors.As(err, &late) && late.Late {
		pid, done, err = 0, codeOf(late.Code), nil
		defer r.output.flush(2)
		defer r.output.write(2, []byte(late.Text+"\n"))
	}
	if err != nil {
		process.CloseAll(append(outputs, r.stdin.f)...)
		return nil, err
	}
	r.a.mu.Lock()
	r.pid, r.startedAt = pid, time.Now()
	r.a.mu.Unlock()
	for i, f := range outputs {
		r.pumps.Add(1)
		go r.pump(byte(i+1), f)
	}
	return done, nil
}

func codeOf(code int) <-chan int {
	done := make(chan int, 1)
	done <- code
	return done
}

func (r *Run) command() (*process.Command, error) {
	user, err := process.LookupUser(r.spec.User, r.spec.Groups)
	if err != nil {
		return nil, &process.StartError{Code: process.CodeUnknown, Text: err.Error(), Bare: true}
	}
	bounds, err := r.spec.bounds()
	if err != nil {
		return nil, err
	}
	if err := process.CheckWorkdir(r.spec.workdir()); err != nil {
		return nil, err
	}
	env := process.Environment(r.spec.Hostname, r.spec.TTY, user.Home, r.spec.Env)
	return &process.Command{Argv: r.spec.Argv, Env: env, Workdir: r.spec.workdir(), User: user, Bounds: bounds, Limits: r.spec.Ulimits, OOMScoreAdj: r.spec.OOMScoreAdj,
		TTY: r.spec.TTY}, nil
}

// stdio makes the process' files and returns the ends that its output is read from: stdout and stderr, or the terminal.
func (r *Run) stdio(c *process.Command) ([]*os.File, error) {
	if r.spec.TTY {
		master, slave, err := process.OpenPTY(r.spec.Rows, r.spec.Cols)
		if err != nil {
			return nil, err
		}
		c.Files = [3]*os.File{slave, slave, slave}
		r.a.mu.Lock()
		r.master = master
		r.a.mu.Unlock()
		r.stdin.f, r.stdin.keep = master, true
		return []*os.File{master}, nil
	}
	in, feed, err := process.Input(r.spec.OpenStdin)
	if err != nil {
		return nil, err
	}
	r.stdin.f = feed
	c.Files[0] = in
	outputs := make([]*os.File, 2)
	for i := range outputs {
		if outputs[i], c.Files[i+1], err = process.Pipe(); err != nil {
			process.CloseAll(append(append(outputs, c.Files[:]...), feed)...)
			return nil, err
		}
	}
	return outputs, nil
}

const readSize = 128 << 10

func (r *Run) pump(kind byte, f *os.File) {
	defer r.pumps.Done()
	defer f.Close()
	defer r.output.flush(kind)
	rc, err := f.SyscallConn()
	buf, end := make([]byte, readSize), false
	for err == nil && !end {
		err = rc.Read(func(fd uintptr) bool {
			n, err := syscall.Read(int(fd), buf)
			switch {
			case n > 0:
				r.output.write(kind, buf[:n])
			case err == syscall.EAGAIN:
				r.output.flush(kind)
				return false // wait until there is something
			case err != syscall.EINTR:
				end = true // EOF, or EIO of a terminal that nobody holds any more
			}
			return true
		})
	}
}

// outputWait bounds how long the report of an exit waits for output that a slow client holds up.
const outputWait = 10 * time.Second

// finished ends the run: the rest of the container's processes, its output, then the report.
func (r *Run) finished(code int) {
	oom := code == 128+int(syscall.SIGKILL) && r.oom()
	process.KillAll()
	drained := make(chan struct{})
	go func() {
		r.pumps.Wait()
		r.output.finish()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(outputWait):
	}
	r.report(&exitInfo{Code: code, OOM: oom, At: rfc3339(time.Now())}, func(exit *exitInfo) message {
		m := message{"type": "exited", "run": r.spec.Run, "code": exit.Code, "oom": exit.OOM, "at": exit.At}
		if r.overrun != "" {
			m["error"] = r.overrun
		}
		return m
	})
	<-drained
	r.leave(code)
}

// failed reports that the process could not be started.
func (r *Run) failed(err error) {
	code, text := startFailure(err, "failed to create task for container: failed to create shim task: OCI runtime create failed: "+
		"runc create failed: unable to start container process: error during container init: ")
	r.output.finish()
	r.report(&exitInfo{Code: code, At: rfc3339(time.Now())}, func(exit *exitInfo) message {
		return message{"type": "failed", "run": r.spec.Run, "code": code, "message": text, "at": exit.At}
	})
	r.leave(code)
}

// startFailure is Docker's exit code and text of a failed start.
func startFailure(err error, prefix string) (int, string) {
	var start *process.StartError
	if !errors.As(err, &start) {
		return process.CodeUnknown, short(err.Error())
	}
	if start.Bare {
		return start.Code, short(start.Text)
	}
	return start.Code, prefix + short(start.Text) + ": unknown"
}

const textMax = 4096

// short cuts a text that names what the user gave: a command of megabytes would make a message that the relay refuses.
func short(text string) string {
	if len(text) <= textMax {
		return text
	}
	return strings.ToValidUTF8(text[:textMax], "") + "..."
}

// report makes the exit known here and to the control plane.
func (r *Run) report(exit *exitInfo, event func(*exitInfo) message) {
	r.a.mu.Lock()
	r.exit.Store(exit)
	r.a.events.add(event(exit))
	r.a.mu.Unlock()
}

// leave ends the attachments and lets the agent linger, or go.
func (r *Run) leave(code int) {
	r.a.mu.Lock()
	close(r.ended)
	r.master = nil
	r.a.mu.Unlock()
	r.stdin.close()
	for _, t := range r.output.attachments() {
		go t.exit(code)
	}
	r.a.startLinger(r)
	if r.a.holds != nil {
		r.a.holds.reached() // the limit may have been, while the process ended
	}
}

// startLinger keeps the agent for the time the spec says; negative: until `shutdown`.
func (a *Agent) startLinger(r *Run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	seconds := r.spec.LingerSeconds
	r.lingers = !a.ending && seconds != 0
	switch {
	case a.run != r: // the next run has begun
	case a.ending || seconds == 0:
		a.stop()
	case seconds > 0:
		a.linger = time.AfterFunc(time.Duration(seconds*float64(time.Second)), func() {
			if _, err := a.running(); err != nil {
				a.stop()
			}
		})
	}
}

// prepare makes the container's file system ready, once in the agent's life.
func (a *Agent) prepare(spec *LaunchSpec) error {
	a.mu.Lock()
	if a.prepared == nil {
		a.prepared = sync.OnceValue(func() error {
			if err := spec.Prepare(); err != nil {
				return err
			}
			if err := makeWorkdir(spec.workdir()); err != nil {
				return err
			}
			return spec.ReadOnly()
		})
	}
	prepared := a.prepared
	a.mu.Unlock()
	return prepared()
}

// makeWorkdir creates a missing working directory, as moby does when it creates the container.
func makeWorkdir(dir string) error {
	err := os.MkdirAll(dir, 0o755)
	if errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("Cannot mkdir: %s is not a directory", dir)
	}
	return err
}
