package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Docker's exit codes of processes that could not be started.
const (
	CodeRefused     = 125 // by the agent or the platform
	CodeNotInvoked  = 126
	CodeNotFound    = 127
	CodeUnknown     = 128 // moby's for everything else
	codeExecFailing = 255 // execve(2) itself failed, after the container was set up
)

// StartError says why a process could not be started: the end of Docker's text, and the exit code it makes.
type StartError struct {
	Code int
	Text string
	// Bare texts are moby's own; the others come from the OCI runtime and are given its prefix.
	Bare bool
	// Late failures happen in execve(2) itself. A container counts as started then: the text is its output, the code its exit code.
	Late bool
}

func (e *StartError) Error() string { return e.Text }

// DefaultPath is Docker's.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// FindCommand resolves name as runc does, along the container's PATH. Errors are those of runc.
func FindCommand(name, workdir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(workdir, path)
		}
		err := executable(path)
		var pe *fs.PathError
		switch {
		case err == nil:
			return path, nil
		case errors.As(err, &pe):
			code := CodeUnknown
			if errors.Is(err, fs.ErrNotExist) {
				code = CodeNotFound
			} else if errors.Is(err, syscall.EACCES) {
				code = CodeNotInvoked
			}
			return "", &StartError{Code: code, Text: fmt.Sprintf("exec: %q: stat %s: %v", name, name, pe.Err)}
		}
		return "", &StartError{Code: CodeNotInvoked, Text: fmt.Sprintf("exec: %q: %v", name, err)}
	}
	if name != "" {
		for _, dir := range filepath.SplitList(envValue(env, "PATH")) {
			if !filepath.IsAbs(dir) {
				dir = filepath.Join(workdir, dir)
			}
			if path := filepath.Join(dir, name); executable(path) == nil {
				return path, nil
			}
		}
	}
	return "", &StartError{Code: CodeNotFound, Text: fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return syscall.EISDIR
	case info.Mode()&0o111 == 0:
		return syscall.EACCES
	}
	return nil
}

// Environment is Docker's: its defaults, overridden in place by what the container gives, then HOME of the user.
func Environment(hostname string, tty bool, home string, given ...[]string) []string {
	env := []string{"PATH=" + DefaultPath, "HOSTNAME=" + hostname}
	if tty {
		env = append(env, "TERM=xterm")
	}
	for _, list := range given {
		for _, entry := range list {
			env = setEnv(env, entry)
		}
	}
	if envIndex(env, "HOME") < 0 {
		env = append(env, "HOME="+home)
	}
	return env
}

// setEnv sets `NAME=value`; `NAME` alone removes the variable.
func setEnv(env []string, entry string) []string {
	name, _, ok := strings.Cut(entry, "=")
	i := envIndex(env, name)
	switch {
	case strings.ContainsRune(entry, 0):
		return env
	case !ok && i >= 0:
		return append(env[:i], env[i+1:]...)
	case !ok:
		return env
	case i >= 0:
		env[i] = entry
		return env
	}
	return append(env, entry)
}

func envIndex(env []string, name string) int {
	for i, e := range env {
		if strings.HasPrefix(e, name) && len(e) > len(name) && e[len(name)] == '=' {
			return i
		}
	}
	return -1
}

func envValue(env []string, name string) string {
	if i := envIndex(env, name); i >= 0 {
		return env[i][len(name)+1:]
	}
	return ""
}
