package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
)

// Command is a process to start.
type Command struct {
	Argv    []string
	Env     []string
	Workdir string
	User    User
	Bounds  Bounds
	Limits  []Limit
	// OOMScoreAdj is how likely the kernel is to end the process when memory runs out, from -1000 to 1000.
	OOMScoreAdj int
	TTY         bool // Files[0] is a terminal to be controlled
	Files   [3]*os.File
}

// Bounds are what a thread passes on to the processes it forks.
type Bounds struct {
	Caps       uint64 `json:"caps"` // the capability bounding set
	NoNewPrivs bool   `json:"no_new_privs"`
	Umask      int    `json:"umask"`
}

// Start starts c. Its exit code comes over the channel. Errors are *StartError.
//
// Capabilities, no_new_privs and umask (after CLONE_FS is unshared) belong to a thread in Linux, and a new process inherits those of the thread
// that forks. So they are set on an operating system thread that is used for this fork only and dies with its goroutine: that costs some 50 µs, where
// going through a second exec of the agent costs 2 ms. Only limits need that (see stage.go): they belong to a whole process.
func (r *Reaper) Start(c *Command) (pid int, done <-chan int, err error) {
	path, err := FindCommand(c.Argv[0], c.Workdir, c.Env)
	if err != nil {
		return 0, nil, err
	}
	c.giveFiles()
	started := make(chan struct{})
	go func() {
		defer close(started)
		runtime.LockOSThread() // never unlocked
		if !c.staged() {
			if err = c.Bounds.apply(); err != nil {
				err = &StartError{Code: CodeUnknown, Text: err.Error()}
				return
			}
		}
		pid, done, err = r.start(func() (int, error) {
			if c.staged() {
				return c.forkStage(path)
			}
			return c.fork(path)
		})
	}()
	<-started
	return pid, done, err
}

func (c *Command) fork(path string) (int, error) {
	attr := &syscall.ProcAttr{Dir: c.Workdir, Env: c.Env, Sys: c.sysAttr()}
	if c.changesUser() {
		attr.Sys.Credential = c.credential()
	}
	for _, f := range c.Files {
		attr.Files = append(attr.Files, f.Fd())
	}
	pid, err := syscall.ForkExec(path, c.Argv, attr)
	if err != nil {
		return 0, c.explain(path, err)
	}
	return pid, nil
}

// staged tells whether something must be set that belongs to the new process and not to the thread that forks it.
func (c *Command) staged() bool { return len(c.Limits) > 0 || c.OOMScoreAdj != 0 }

func (c *Command) sysAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Setctty: c.TTY, Ctty: 0}
}

// giveFiles lets the user open /dev/stdin, /dev/stdout and /dev/stderr again, as runc does.
func (c *Command) giveFiles() {
	if c.User.UID == os.Geteuid() {
		return
	}
	for _, f := range c.Files {
		if info, err := f.Stat(); err == nil && (c.TTY || info.Mode()&os.ModeNamedPipe != 0) { // never /dev/null
			f.Chown(c.User.UID, -1)
		}
	}
}

// changesUser tells whether the process gets another identity than the agent's.
func (c *Command) changesUser() bool {
	if os.Geteuid() != c.User.UID || os.Getegid() != c.User.GID {
		return true
	}
	groups, _ := os.Getgroups()
	groups = append(groups, c.User.GID)
	slices.Sort(groups)
	return os.Geteuid() == 0 && !slices.Equal(slices.Compact(groups), c.User.Groups)
}

func (c *Command) credential() *syscall.Credential {
	cred := &syscall.Credential{Uid: uint32(c.User.UID), Gid: uint32(c.User.GID), NoSetGroups: groupsDenied()}
	for _, g := range c.User.Groups {
		cred.Groups = append(cred.Groups, uint32(g))
	}
	return cred
}

// groupsDenied: in a user namespace made without privileges, setgroups(2) is forbidden to all.
func groupsDenied() bool {
	text, err := os.ReadFile("/proc/self/setgroups")
	return err == nil && string(text) == "deny\n"
}

// apply gives the calling thread the bounds.
func (b *Bounds) apply() error {
	if err := syscall.Unshare(cloneFS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	syscall.Umask(b.Umask)
	if err := limitCaps(b.Caps); err != nil {
		return err
	}
	if b.NoNewPrivs {
		if errno := prctl(prSetNoNewPrivs, 1); errno != 0 {
			return fmt.Errorf("set no_new_privs: %w", errno)
		}
	}
	return nil
}

// explain finds the step that failed behind the bare errno of a fork and exec.
func (c *Command) explain(path string, err error) error {
	if err := CheckWorkdir(c.Workdir); err != nil {
		return err
	}
	switch {
	case c.changesUser() && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)):
		return &StartError{Code: CodeRefused, Bare: true, Text: fmt.Sprintf(
			"the platform runs this container as uid %d: it cannot become uid %d, gid %d", os.Geteuid(), c.User.UID, c.User.GID)}
	case errors.Is(err, syscall.EACCES):
		return &StartError{Code: CodeNotInvoked, Text: fmt.Sprintf("exec: %q: permission denied", c.Argv[0])}
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return &StartError{Code: CodeUnknown, Text: fmt.Sprintf("fork: %v", err)}
	}
	return &StartError{Code: codeExecFailing, Late: true, Text: fmt.Sprintf("exec %s: %v", path, err)}
}

// CheckWorkdir reports, as runc does, why a process cannot start in dir.
func CheckWorkdir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err == nil {
		return nil
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	code := CodeNotInvoked
	if errors.Is(err, syscall.ENOENT) {
		code = CodeNotFound
	}
	return &StartError{Code: code, Text: fmt.Sprintf("chdir to cwd (%q) set in config.json failed: %v", dir, err)}
}
