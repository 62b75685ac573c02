package process

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Proc is a line of the process table.
type Proc struct {
	PID, PPID int
	Comm      string
	State     byte
}

// List returns the container's processes, the agent's own left out: all when the agent is PID 1 of its namespace, else its descendants.
func List() []Proc {
	self := os.Getpid()
	all := table()
	if self == 1 {
		list := all[:0]
		for _, p := range all {
			if p.PID != 1 && p.PPID >= 0 {
				list = append(list, p)
			}
		}
		return list
	}
	parents := make(map[int]int, len(all))
	for _, p := range all {
		parents[p.PID] = p.PPID
	}
	var list []Proc
	for _, p := range all {
		for pid, depth := p.PPID, 0; pid > 0 && depth < 1000; pid, depth = parents[pid], depth+1 {
			if pid == self {
				list = append(list, p)
				break
			}
		}
	}
	return list
}

func table() []Proc {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var list []Proc
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		open, end := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
		if open < 0 || end < open {
			continue
		}
		fields := strings.Fields(string(stat[end+1:]))
		if len(fields) < 2 {
			continue
		}
		ppid, _ := strconv.Atoi(fields[1])
		list = append(list, Proc{PID: pid, PPID: ppid, Comm: string(stat[open+1 : end]), State: fields[0][0]})
	}
	return list
}

// SignalAll sends sig to every process of the container but the agent.
func SignalAll(sig syscall.Signal) {
	if os.Getpid() == 1 {
		syscall.Kill(-1, sig) // the kernel leaves the caller out
		return
	}
	for _, p := range List() {
		if p.State != 'Z' {
			syscall.Kill(p.PID, sig)
		}
	}
}

// KillAll ends every process of the container, as the end of its first process does in a PID namespace.
func KillAll() {
	SignalAll(syscall.SIGKILL)
	if os.Getpid() == 1 {
		return
	}
	for range 50 { // a process may have forked while its siblings were killed
		alive := false
		for _, p := range List() {
			if p.State != 'Z' {
				alive = true
				syscall.Kill(p.PID, syscall.SIGKILL)
			}
		}
		if !alive {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}
