// Package process starts, reaps and ends the container's processes.
package process

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Reaper is what PID 1 must be: it waits for every child, its own and orphans alike.
type Reaper struct {
	mu      sync.Mutex
	waiting map[int]chan int
}

// NewReaper starts reaping. Where the agent is not PID 1, it asks to be given its descendants' orphans.
func NewReaper() *Reaper {
	r := &Reaper{waiting: map[int]chan int{}}
	if os.Getpid() != 1 {
		prctl(prSetSubreaper, 1)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			r.reap()
		}
	}()
	return r
}

func (r *Reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if pid <= 0 {
			return
		}
		if done, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			done <- exitCode(status)
		}
	}
}

// start runs fork, which starts a process, without a chance of its being reaped before it is known. The channel gives its exit code.
func (r *Reaper) start(fork func() (int, error)) (int, <-chan int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return 0, nil, err
	}
	done := make(chan int, 1)
	r.waiting[pid] = done
	return pid, done, nil
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
