package main

import (
	"sockerless/agent/internal/process"
	"sockerless/agent/internal/rootfs"
)

// LaunchSpec is section 4 of the wire protocol.
type LaunchSpec struct {
	Run             int             `json:"run"`
	Argv            []string        `json:"argv"`
	Env             []string        `json:"env"`
	Workdir         string          `json:"workdir"`
	User            string          `json:"user"`
	Groups          []string        `json:"groups"`
	TTY             bool            `json:"tty"`
	OpenStdin       bool            `json:"open_stdin"`
	StdinOnce       bool            `json:"stdin_once"`
	Rows            int             `json:"rows"`
	Cols            int             `json:"cols"`
	StopSignal      int             `json:"stop_signal"`
	Init            bool            `json:"init"` // the agent is an init in any case
	CapAdd          []string        `json:"cap_add"`
	CapDrop         []string        `json:"cap_drop"`
	Ulimits         []process.Limit `json:"ulimits"`
	NoNewPrivileges bool            `json:"no_new_privileges"`
	Umask           *int            `json:"umask"`
	OOMScoreAdj     int             `json:"oom_score_adj"`
	Healthcheck     *Healthcheck    `json:"healthcheck"`
	LogMaxBytes     int64           `json:"log_max_bytes"`
	LingerSeconds   float64         `json:"linger_seconds"`
	rootfs.Spec
}

// Healthcheck is Docker's, with durations in nanoseconds.
type Healthcheck struct {
	Test          []string `json:"test"`
	Interval      int64    `json:"interval_ns"`
	Timeout       int64    `json:"timeout_ns"`
	Retries       int      `json:"retries"`
	StartPeriod   int64    `json:"start_period_ns"`
	StartInterval int64    `json:"start_interval_ns"`
}

const defaultUmask = 0o022

func (s *LaunchSpec) bounds() (process.Bounds, error) {
	caps, err := process.CapSet(s.CapAdd, s.CapDrop)
	b := process.Bounds{Caps: caps, NoNewPrivs: s.NoNewPrivileges, Umask: defaultUmask}
	if s.Umask != nil {
		b.Umask = *s.Umask
	}
	return b, err
}

func (s *LaunchSpec) workdir() string {
	if s.Workdir == "" {
		return "/"
	}
	return s.Workdir
}
