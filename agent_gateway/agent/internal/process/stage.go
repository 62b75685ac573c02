package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

// Limit is one of `--ulimit`, by its name.
type Limit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

var limitNumbers = map[string]int{"cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8,
	"as": 9, "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15}

// StageName is the argv[0] that makes the agent's binary the stage between fork and the user's command.
const StageName = "sockerless-stage"

// order is what the stage is told over file descriptor 3; it answers a failure over 4, which its exec closes.
type order struct {
	Path    string   `json:"path"`
	Argv    []string `json:"argv"`
	Workdir string   `json:"workdir"`
	Change  bool     `json:"change"`
	UID     int      `json:"uid"`
	GID     int      `json:"gid"`
	Groups  []int    `json:"groups"`
	Keep    bool     `json:"keep_groups"`
	Limits  []Limit  `json:"limits"`
	OOM     int      `json:"oom_score_adj"`
	Bounds  Bounds   `json:"bounds"`
}

type failure struct {
	Step  string        `json:"step"`
	Errno syscall.Errno `json:"errno"`
}

// forkStage starts the user's command by way of the stage, which sets the limits while it is still allowed to.
func (c *Command) forkStage(path string) (int, error) {
	text, _ := json.Marshal(order{Path: path, Argv: c.Argv, Workdir: c.Workdir, Change: c.changesUser(), UID: c.User.UID, GID: c.User.GID,
		Groups: c.User.Groups, Keep: groupsDenied(), Limits: c.Limits, OOM: c.OOMScoreAdj, Bounds: c.Bounds})
	orders, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	answer, report, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{Env: c.Env, Sys: c.sysAttr()}
	for _, f := range []*os.File{c.Files[0], c.Files[1], c.Files[2], orders, report} {
		attr.Files = append(attr.Files, f.Fd())
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{StageName}, attr)
	orders.Close()
	report.Close()
	if err == nil {
		_, err = write.Write(text)
	}
	write.Close()
	reply, _ := io.ReadAll(answer)
	answer.Close()
	if err != nil {
		return 0, &StartError{Code: CodeRefused, Bare: true, Text: fmt.Sprintf("ulimits cannot be set: the agent's own program cannot be run again: %v", err)}
	}
	if len(reply) == 0 {
		return pid, nil
	}
	syscall.Wait4(pid, nil, 0, nil)
	var f failure
	json.Unmarshal(reply, &f)
	switch f.Step {
	case "exec", "chdir", "user":
		return 0, c.explain(path, f.Errno)
	}
	return 0, &StartError{Code: CodeUnknown, Text: fmt.Sprintf("error setting %s: %v", f.Step, f.Errno)}
}

// Stage is the main function of the stage. It returns only by exiting.
func Stage() {
	runtime.LockOSThread()
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	var o order
	if err := json.NewDecoder(os.NewFile(3, "orders")).Decode(&o); err != nil {
		os.Exit(CodeRefused)
	}
	step, err := o.run()
	f := failure{Step: step}
	errors.As(err, &f.Errno)
	json.NewEncoder(os.NewFile(4, "report")).Encode(f)
	os.Exit(CodeRefused)
}

func (o *order) run() (string, error) {
	for _, l := range o.Limits {
		number, ok := limitNumbers[l.Name]
		limit := [2]uint64{uint64(l.Soft), uint64(l.Hard)}
		if !ok {
			return "rlimit " + l.Name, syscall.EINVAL
		}
		// The raw call: syscall.Setrlimit would have the Go runtime put NOFILE back at the exec.
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, uintptr(number), uintptr(unsafe.Pointer(&limit)), 0, 0, 0); errno != 0 {
			return "rlimit " + l.Name, errno
		}
	}
	if o.OOM != 0 {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(o.OOM)), 0); err != nil {
			return "oom_score_adj", err
		}
	}
	if err := o.Bounds.apply(); err != nil {
		return "bounds", err
	}
	if o.Change {
		if err := o.become(); err != nil {
			return "user", err
		}
	}
	if err := syscall.Chdir(o.Workdir); err != nil {
		return "chdir", err
	}
	return "exec", rawExec(o.Path, o.Argv, os.Environ())
}

// become changes the calling thread's identity; the exec that follows makes it the process'.
func (o *order) become() error {
	groups := make([]uint32, len(o.Groups)+1)
	for i, g := range o.Groups {
		groups[i] = uint32(g)
	}
	if !o.Keep {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(o.Groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
			return errno
		}
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, uintptr(o.GID), uintptr(o.GID), uintptr(o.GID)); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(o.UID), uintptr(o.UID), uintptr(o.UID)); errno != 0 {
		return errno
	}
	return nil
}

// rawExec is execve(2) without what syscall.Exec does to RLIMIT_NOFILE.
func rawExec(path string, argv, env []string) error {
	p, err := syscall.BytePtrFromString(path)
	if err != nil {
		return err
	}
	a, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	e, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&e[0])))
	return errno
}
