package process

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// User is whom a process runs as.
type User struct {
	UID, GID int
	Groups   []int
	Name     string // empty for a number without an entry
	Home     string
}

const maxID = 1<<31 - 1

// LookupUser resolves Docker's `user[:group]` (names or numbers) and additional groups against the container's own passwd and group
// files, with moby's rules and texts. Either file may be missing.
func LookupUser(text string, additional []string) (User, error) {
	name, group, hasGroup := strings.Cut(text, ":")
	u := User{Home: "/"}
	if err := u.fromPasswd(name); err != nil {
		return u, err
	}
	groups := readTable("/etc/group")
	if hasGroup && group != "" {
		gid, err := groupID(groups, group)
		if err != nil {
			return u, err
		}
		u.GID = gid
	} else if u.Name != "" {
		for _, g := range groups {
			if len(g) >= 4 && slices.Contains(strings.Split(g[3], ","), u.Name) {
				if gid, err := strconv.Atoi(g[2]); err == nil {
					u.Groups = append(u.Groups, gid)
				}
			}
		}
	}
	for _, g := range additional {
		gid, err := groupID(groups, g)
		if err != nil {
			return u, err
		}
		u.Groups = append(u.Groups, gid)
	}
	// The primary group is a supplementary one too (CVE-2022-36109).
	if u.Groups = append(u.Groups, u.GID); len(u.Groups) > 1 {
		slices.Sort(u.Groups)
		u.Groups = slices.Compact(u.Groups)
	}
	return u, nil
}

func (u *User) fromPasswd(name string) error {
	number, err := strconv.Atoi(name)
	numeric := err == nil
	if name == "" {
		number, numeric = 0, true
	}
	if numeric && (number < 0 || number > maxID) {
		return fmt.Errorf("uids and gids must be in range 0-%d", maxID)
	}
	for _, p := range readTable("/etc/passwd") {
		if len(p) < 6 {
			continue
		}
		uid, err1 := strconv.Atoi(p[2])
		gid, err2 := strconv.Atoi(p[3])
		if err1 != nil || err2 != nil || !(p[0] == name && name != "" || numeric && uid == number) {
			continue
		}
		u.UID, u.GID, u.Name, u.Home = uid, gid, p[0], p[5]
		if u.Home == "" {
			u.Home = "/"
		}
		return nil
	}
	if !numeric {
		return fmt.Errorf("unable to find user %s: no matching entries in passwd file", name)
	}
	u.UID = number
	return nil
}

func groupID(groups [][]string, name string) (int, error) {
	number, err := strconv.Atoi(name)
	for _, g := range groups {
		if len(g) >= 3 && (g[0] == name || err == nil && g[2] == name) {
			return strconv.Atoi(g[2])
		}
	}
	if err != nil {
		return 0, fmt.Errorf("unable to find group %s: no matching entries in group file", name)
	}
	if number < 0 || number > maxID {
		return 0, fmt.Errorf("uids and gids must be in range 0-%d", maxID)
	}
	return number, nil
}

// UserName returns the name of uid in the container's passwd file, else the number.
func UserName(uid int) string {
	text := strconv.Itoa(uid)
	for _, p := range readTable("/etc/passwd") {
		if len(p) >= 3 && p[2] == text {
			return p[0]
		}
	}
	return text
}

// readTable reads a file of lines with colons between fields; a missing file is an empty table.
func readTable(path string) [][]string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var rows [][]string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
			rows = append(rows, strings.Split(line, ":"))
		}
	}
	return rows
}
