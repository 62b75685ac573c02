package main

import (
	"os"
	"strconv"
	"strings"
)

// oomFiles count the container's kills for want of memory: cgroup v2, v1, as mounted in containers.
var oomFiles = []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}

// watchOOM returns a function that tells whether the kernel killed for memory since now. Where it cannot be read the answer is no.
func watchOOM() func() bool {
	before := oomKills()
	return func() bool { return oomKills() > before }
}

func oomKills() int64 {
	var kills int64
	for _, path := range oomFiles {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
				n, _ := strconv.ParseInt(value, 10, 64)
				kills += n
			}
		}
	}
	return kills
}
