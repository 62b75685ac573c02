// Package top is `docker top`: the columns of ps, made from /proc.
package top

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"sockerless/agent/internal/process"
	"sockerless/agent/internal/stream"
)

// Table is the API's answer.
type Table struct {
	Titles    []string
	Processes [][]string
}

// List answers `docker top` with ps arguments: -ef (the default), aux, -o column,….
func List(args string) (*Table, error) {
	columns, err := parse(args)
	if err != nil {
		return nil, err
	}
	t := &Table{Processes: [][]string{}}
	for _, c := range columns {
		t.Titles = append(t.Titles, c.title)
	}
	now := readSystem()
	list := process.List()
	sort.Slice(list, func(i, j int) bool { return list[i].PID < list[j].PID })
	for _, p := range list {
		info, ok := readProc(p.PID, now)
		if !ok {
			continue
		}
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = c.value(info)
		}
		t.Processes = append(t.Processes, row)
	}
	return t, nil
}

func parse(args string) ([]column, error) {
	fields := strings.Fields(args)
	switch strings.Join(fields, " ") {
	case "", "-ef", "ef", "-e -f", "-Af", "-f", "-eF":
		return pick("uid,pid,ppid,c,stime,tty,time,cmd")
	case "aux", "-aux", "axu", "auxw", "auxww", "au", "u", "-auxww":
		return pick("user,pid,%cpu,%mem,vsz,rss,tty,stat,start,time,command")
	case "-e", "-A", "e", "ax", "-ax", "x", "a":
		return pick("pid,tty,time,comm")
	case "-l", "-el", "l":
		return pick("f,s,uidn,pid,ppid,c,pri,ni,vsz,tty,time,cmd")
	}
	var names []string
	for i := 0; i < len(fields); i++ {
		f := fields[i]
		switch {
		case (f == "-o" || f == "o" || f == "-eo" || f == "-Ao" || f == "axo") && i+1 < len(fields):
			i++
			names = append(names, fields[i])
		case strings.HasPrefix(f, "-o") && len(f) > 2:
			names = append(names, f[2:])
		case f == "-e" || f == "-A" || f == "ax" || f == "-ax":
		default:
			return nil, unsupported(args)
		}
	}
	if len(names) == 0 {
		return nil, unsupported(args)
	}
	return pick(strings.Join(names, ","))
}

func unsupported(args string) error {
	return stream.Refuse(400, "ps arguments %q are not supported: use -ef, aux, -e, -l or -o with columns of %s", args, strings.Join(columnNames(), ","))
}

func pick(list string) ([]column, error) {
	var picked []column
	for _, name := range strings.Split(list, ",") {
		name, title, renamed := strings.Cut(strings.TrimSpace(name), "=")
		c, ok := allColumns[name]
		if !ok {
			return nil, stream.Refuse(400, "ps column %q is not supported; supported are %s", name, strings.Join(columnNames(), ","))
		}
		if renamed {
			c.title = title
		}
		picked = append(picked, c)
	}
	return picked, nil
}

const ticks = 100 // USER_HZ, the same on every Linux

// system is what the process table is seen against.
type system struct {
	now    time.Time
	uptime float64
	memory int64 // KiB
}

func readSystem() system {
	s := system{now: time.Now()}
	if text, err := os.ReadFile("/proc/uptime"); err == nil {
		s.uptime, _ = strconv.ParseFloat(strings.Fields(string(text) + " 0")[0], 64)
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		fmt.Sscanf(string(text), "MemTotal: %d kB", &s.memory)
	}
	return s
}
