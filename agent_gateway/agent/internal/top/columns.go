package top

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"sockerless/agent/internal/process"
)

type column struct {
	title string
	value func(*proc) string
}

// proc is one process with what the columns show.
type proc struct {
	system
	pid, uid, gid int
	stat          []string // fields of /proc/PID/stat from the state on: stat[0] is field 3
	comm, cmd     string
	locked        bool
}

func (p *proc) field(n int) string { return p.stat[n-3] } // as numbered in proc_pid_stat(5)

func (p *proc) number(n int) int64 {
	v, _ := strconv.ParseInt(p.field(n), 10, 64)
	return v
}

func (p *proc) cpuSeconds() float64 { return float64(p.number(14)+p.number(15)) / ticks }
func (p *proc) elapsed() float64    { return max(p.uptime-float64(p.number(22))/ticks, 0) }
func (p *proc) started() time.Time {
	return p.now.Add(-time.Duration(p.elapsed() * float64(time.Second)))
}
func (p *proc) rss() int64 { return p.number(24) * int64(os.Getpagesize()) / 1024 }

func (p *proc) percentCPU() float64 {
	if e := p.elapsed(); e > 0 {
		return 100 * p.cpuSeconds() / e
	}
	return 0
}

func (p *proc) percentMemory() float64 {
	if p.memory == 0 {
		return 0
	}
	return 100 * float64(p.rss()) / float64(p.memory)
}

func readProc(pid int, now system) (*proc, bool) {
	base := fmt.Sprintf("/proc/%d", pid)
	stat, err := os.ReadFile(base + "/stat")
	if err != nil {
		return nil, false
	}
	text := string(stat)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return nil, false
	}
	p := &proc{system: now, pid: pid, comm: text[open+1 : end], stat: strings.Fields(text[end+1:])}
	if len(p.stat) < 22 {
		return nil, false
	}
	cmdline, _ := os.ReadFile(base + "/cmdline")
	p.cmd = strings.TrimRight(strings.ReplaceAll(string(cmdline), "\x00", " "), " ")
	if p.cmd == "" {
		p.cmd = "[" + p.comm + "]"
	}
	status, _ := os.ReadFile(base + "/status")
	for _, line := range strings.Split(string(status), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "Uid:" {
			p.uid, _ = strconv.Atoi(f[2])
		} else if len(f) > 2 && f[0] == "Gid:" {
			p.gid, _ = strconv.Atoi(f[2])
		} else if len(f) > 1 && f[0] == "VmLck:" {
			p.locked = f[1] != "0"
		}
	}
	return p, true
}

func (p *proc) tty() string {
	dev := p.number(7)
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8|minor)
	case major == 4:
		return fmt.Sprintf("tty%d", minor)
	}
	return "?"
}

func (p *proc) state() string {
	s := p.field(3)
	switch nice := p.number(19); {
	case nice < 0:
		s += "<"
	case nice > 0:
		s += "N"
	}
	if p.locked {
		s += "L"
	}
	if p.number(6) == int64(p.pid) {
		s += "s"
	}
	if p.number(20) > 1 {
		s += "l"
	}
	if p.number(8) == p.number(5) {
		s += "+"
	}
	return s
}

// clock is ps's start time: hours and minutes today, the day when longer ago.
func (p *proc) clock() string {
	if t := p.started(); p.now.Sub(t) < 24*time.Hour {
		return t.Format("15:04")
	} else {
		return t.Format("Jan02")
	}
}

func hours(seconds float64) string {
	s := int64(seconds)
	if days := s / 86400; days > 0 {
		return fmt.Sprintf("%d-%02d:%02d:%02d", days, s/3600%24, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// elapsedTime is [[dd-]hh:]mm:ss.
func elapsedTime(p *proc) string {
	s := int64(p.elapsed())
	if s < 3600 {
		return fmt.Sprintf("%02d:%02d", s/60, s%60)
	}
	return hours(p.elapsed())
}

func numbered(n int) func(*proc) string { return func(p *proc) string { return p.field(n) } }

var allColumns = map[string]column{
	"pid": {"PID", func(p *proc) string { return strconv.Itoa(p.pid) }}, "ppid": {"PPID", numbered(4)}, "pgid": {"PGID", numbered(5)},
	"sid": {"SID", numbered(6)}, "s": {"S", numbered(3)}, "f": {"F", numbered(9)}, "ni": {"NI", numbered(19)}, "nlwp": {"NLWP", numbered(20)},
	"uid":     {"UID", func(p *proc) string { return process.UserName(p.uid) }},
	"uidn":    {"UID", func(p *proc) string { return strconv.Itoa(p.uid) }},
	"user":    {"USER", func(p *proc) string { return process.UserName(p.uid) }},
	"gid":     {"GID", func(p *proc) string { return strconv.Itoa(p.gid) }},
	"c":       {"C", func(p *proc) string { return strconv.Itoa(int(min(p.percentCPU(), 99))) }},
	"%cpu":    {"%CPU", func(p *proc) string { return fmt.Sprintf("%.1f", p.percentCPU()) }},
	"%mem":    {"%MEM", func(p *proc) string { return fmt.Sprintf("%.1f", p.percentMemory()) }},
	"vsz":     {"VSZ", func(p *proc) string { return strconv.FormatInt(p.number(23)/1024, 10) }},
	"rss":     {"RSS", func(p *proc) string { return strconv.FormatInt(p.rss(), 10) }},
	"pri":     {"PRI", func(p *proc) string { return strconv.FormatInt(60+p.number(18), 10) }},
	"tty":     {"TTY", (*proc).tty},
	"stat":    {"STAT", (*proc).state},
	"stime":   {"STIME", (*proc).clock},
	"start":   {"START", (*proc).clock},
	"lstart":  {"STARTED", func(p *proc) string { return p.started().Format("Mon Jan _2 15:04:05 2006") }},
	"time":    {"TIME", func(p *proc) string { return hours(p.cpuSeconds()) }},
	"etime":   {"ELAPSED", elapsedTime},
	"comm":    {"COMMAND", func(p *proc) string { return p.comm }},
	"cmd":     {"CMD", func(p *proc) string { return p.cmd }},
	"args":    {"COMMAND", func(p *proc) string { return p.cmd }},
	"command": {"COMMAND", func(p *proc) string { return p.cmd }},
}

func init() {
	for alias, name := range map[string]string{"tt": "tty", "tname": "tty", "pcpu": "%cpu", "pmem": "%mem", "vsize": "vsz", "state": "s",
		"euser": "user", "ruser": "user", "euid": "uidn", "cputime": "time", "nice": "ni", "thcount": "nlwp", "rssize": "rss", "ucmd": "comm"} {
		allColumns[alias] = allColumns[name]
	}
}

func columnNames() []string {
	var names []string
	for name := range allColumns {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
