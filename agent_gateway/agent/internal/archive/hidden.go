package archive

import (
	"path/filepath"
	"strings"
)

// hiddenDirs are no part of the container's file system: the kernel's, the platform's and the agent's own. moby shows them empty.
var hiddenDirs = []string{"/proc", "/sys", "/dev"}

// ownDir is the agent's: moby has none.
const ownDir = "/.sockerless"

// hidden tells whether the resolved path is inside of what is no part of the container's file system.
func hidden(path string) bool {
	path = filepath.Clean(path)
	if path == ownDir || strings.HasPrefix(path, ownDir+"/") {
		return true
	}
	for _, dir := range hiddenDirs {
		if strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}
