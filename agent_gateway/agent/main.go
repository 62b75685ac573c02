// The agent is the first process of every container. It dials the gateway, runs the user's process and serves streams.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"sockerless/agent/internal/process"
)

// version is set by the build.
var version = "0.1.0"

const defaultConnectTimeout = 300 * time.Second

func main() {
	if len(os.Args) == 1 && os.Args[0] == process.StageName {
		process.Stage()
	}
	process.Hide()
	// Streams keep their bytes in pooled blocks, so garbage is small. One thread at a time moves more bytes than the gateway takes;
	// with more, waking each other is what they do most.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(96 << 20)
	runtime.GOMAXPROCS(1)
	a, err := fromEnvironment()
	if err != nil {
		diagnose("the agent cannot start: " + err.Error())
		os.Exit(process.CodeRefused)
	}
	a.main()
}

func fromEnvironment() (*Agent, error) {
	mode, key := os.Getenv("SOCKERLESS_AGENT_MODE"), os.Getenv("SOCKERLESS_INVOKE_KEY")
	if mode != "" && mode != modeFunction && mode != modeApp {
		return nil, fmt.Errorf("SOCKERLESS_AGENT_MODE must be empty, %s or %s, not %q", modeFunction, modeApp, mode)
	}
	if mode != "" && key == "" {
		return nil, fmt.Errorf("SOCKERLESS_INVOKE_KEY must be set in mode %s", mode)
	}
	timeout := defaultConnectTimeout
	if text := os.Getenv("SOCKERLESS_CONNECT_TIMEOUT"); text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || seconds <= 0 {
			return nil, fmt.Errorf("SOCKERLESS_CONNECT_TIMEOUT must be a number of seconds, not %q", text)
		}
		timeout = time.Duration(seconds * float64(time.Second))
	}
	a := newAgent(timeout)
	if err := a.identifyFromEnvironment(mode); err != nil {
		return nil, err
	}
	if mode != "" {
		if err := a.listen(mode, key); err != nil {
			return nil, err
		}
	}
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "SOCKERLESS_") {
			os.Unsetenv(name)
		}
	}
	return a, nil
}

// identifyFromEnvironment makes the agent that of its container. In mode function the first invocation may bring what is missing.
func (a *Agent) identifyFromEnvironment(mode string) error {
	callback, container, token := os.Getenv("SOCKERLESS_CALLBACK_URL"), os.Getenv("SOCKERLESS_CONTAINER_ID"), os.Getenv("SOCKERLESS_AGENT_TOKEN")
	if callback == "" {
		callback = os.Getenv("SOCKERLESS_AGENT_CALLBACK_URL")
	}
	switch {
	case mode == modeFunction:
		a.id, a.callback, a.token = container, callback, token
		return nil
	case callback == "" || container == "" || token == "":
		return fmt.Errorf("SOCKERLESS_CALLBACK_URL, SOCKERLESS_CONTAINER_ID and SOCKERLESS_AGENT_TOKEN must be set")
	}
	return a.become(container, callback, token)
}

// diagnose writes a line of the agent's own to the platform's log.
func diagnose(text string) {
	line := message{"message": text, "severity": "WARNING", "time": rfc3339(time.Now()), "sockerless": map[string]bool{"agent": true}}
	os.Stderr.Write(append(line.encode(), '\n'))
}
