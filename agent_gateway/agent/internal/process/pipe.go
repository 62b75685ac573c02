package process

import (
	"os"
	"syscall"
)

const pipeSize = 1 << 20

// Pipe makes a pipe of 1 MiB where the system allows it, so that a fast writer and the agent do not wait for each other at every 64 KiB.
func Pipe() (r, w *os.File, err error) {
	const setPipeSize = 1031 // F_SETPIPE_SZ
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	if rc, err := r.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) { syscall.Syscall(syscall.SYS_FCNTL, fd, setPipeSize, pipeSize) })
	}
	return r, w, nil
}

// CloseAll closes the files that are there.
func CloseAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// Input makes a process' stdin: a pipe and its writing end, or /dev/null when there is to be none.
func Input(open bool) (in, feed *os.File, err error) {
	if !open {
		if in, err = os.Open("/dev/null"); err == nil {
			return in, nil, nil
		}
		// An image without /dev/null: a pipe that is at its end does the same.
		if in, feed, err = os.Pipe(); err == nil {
			feed.Close()
		}
		return in, nil, err
	}
	return Pipe()
}
