package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
)

// hostname sets the UTS name where the platform gives the container its own; programs find it in /etc/hostname and HOSTNAME as well.
func (s *Spec) hostname() error {
	if s.Hostname == "" {
		return nil
	}
	if os.Getpid() == 1 {
		syscall.Sethostname([]byte(s.Hostname))
		if s.Domainname != "" {
			syscall.Setdomainname([]byte(s.Domainname))
		}
	}
	path, err := s.etcFile("hostname")
	if err == nil {
		err = os.WriteFile(path, []byte(s.Hostname+"\n"), 0o644)
	}
	if errors.Is(err, errIntoSource) {
		return err
	}
	return nil // a read-only image keeps its own
}

const localHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// etcHosts adds the container's own name and --add-host entries to what the platform has written.
func (s *Spec) etcHosts() error {
	path, err := s.etcFile("hosts")
	if err != nil {
		return s.unwritten("extra hosts", len(s.ExtraHosts) > 0, err)
	}
	old, _ := os.ReadFile(path)
	text := append([]byte(localHosts), besidesLocal(old)...)
	for _, entry := range s.ExtraHosts {
		name, ip, _ := strings.Cut(entry, ":")
		text = fmt.Appendf(text, "%s\t%s\n", strings.Trim(ip, "[]"), name)
	}
	if s.Hostname != "" && !slices.Contains(strings.Fields(string(text)), s.Hostname) {
		names := s.Hostname
		if s.Domainname != "" {
			names = s.Hostname + "." + s.Domainname + " " + s.Hostname
		}
		text = fmt.Appendf(text, "%s\t%s\n", ownAddress(), names)
	}
	if bytes.Equal(text, old) {
		return nil
	}
	return s.unwritten("extra hosts", len(s.ExtraHosts) > 0, os.WriteFile(path, text, 0o644))
}

// besidesLocal is a hosts file without the lines that only name the machine itself.
func besidesLocal(hosts []byte) (kept []byte) {
	local := strings.Fields(localHosts)
	for line := range strings.Lines(string(hosts)) {
		fields := strings.Fields(line)
		foreign := func(name string) bool { return !slices.Contains(local, name) }
		if len(fields) > 0 && slices.ContainsFunc(fields[1:], foreign) {
			kept = append(append(kept, strings.TrimRight(line, "\n")...), '\n')
		}
	}
	return kept
}

// unwritten is err of a file of /etc, where it matters: to what the user asked for, and when the image lays a trap.
func (s *Spec) unwritten(what string, asked bool, err error) error {
	if err == nil || !asked && !errors.Is(err, errIntoSource) {
		return nil
	}
	return fmt.Errorf("%s cannot be written: %w", what, err)
}

func ownAddress() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

// resolvConf replaces in /etc/resolv.conf what --dns, --dns-search and --dns-option give.
func (s *Spec) resolvConf() error {
	const what = "dns settings"
	if len(s.DNS)+len(s.DNSSearch)+len(s.DNSOptions) == 0 {
		return nil
	}
	path, err := s.etcFile("resolv.conf")
	if err != nil {
		return s.unwritten(what, true, err)
	}
	var out bytes.Buffer
	old, _ := os.ReadFile(path)
	for _, line := range strings.Split(string(old), "\n") {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		given := word == "nameserver" && len(s.DNS) > 0 || (word == "search" || word == "domain") && len(s.DNSSearch) > 0 ||
			word == "options" && len(s.DNSOptions) > 0
		if !given && line != "" {
			out.WriteString(line + "\n")
		}
	}
	for _, server := range s.DNS {
		out.WriteString("nameserver " + server + "\n")
	}
	if search := strings.Join(s.DNSSearch, " "); search != "" && search != "." {
		out.WriteString("search " + search + "\n")
	}
	if len(s.DNSOptions) > 0 {
		out.WriteString("options " + strings.Join(s.DNSOptions, " ") + "\n")
	}
	return s.unwritten(what, true, os.WriteFile(path, out.Bytes(), 0o644)) // in place: it may be a bind mount of the platform's
}

func (s *Spec) sysctls() error {
	if len(s.Sysctls) == 0 {
		return nil
	}
	if writable("/proc/sys") == nil {
		defer remountReadOnly("/proc/sys")
	}
	for name, value := range s.Sysctls {
		path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("sysctl %s cannot be set: %w", name, err)
		}
	}
	return nil
}
