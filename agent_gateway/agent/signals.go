package main

import (
	"os"
	"os/signal"
	"syscall"
)

// forwardSignals hands the platform's signals to the process: that is how a platform cancels. SIGTERM becomes the image's stop signal.
// The container is not kept after that.
func (a *Agent) forwardSignals() {
	forward := make(chan os.Signal, 16)
	signal.Notify(forward, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	// Caught, so that they do not stop or end the agent; not ignored, since the user's process would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	for s := range forward {
		sig := s.(syscall.Signal)
		cancel := sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
		if cancel {
			a.cancelOnce.Do(func() { close(a.cancelled) })
		}
		run, err := a.running()
		a.mu.Lock()
		a.ending = a.ending || cancel
		if err != nil && a.run == nil {
			a.fallback = 128 + int(sig)
		}
		if err == nil && sig == syscall.SIGTERM && run.spec.StopSignal > 0 {
			sig = syscall.Signal(run.spec.StopSignal)
		}
		a.mu.Unlock()
		switch {
		case err == nil:
			syscall.Kill(run.pid, sig)
		case cancel && !a.starting():
			a.stop()
		}
	}
}

// starting: a run was begun and its process is not there yet.
func (a *Agent) starting() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.run != nil && a.run.pid == 0 && a.run.exited() == nil
}
