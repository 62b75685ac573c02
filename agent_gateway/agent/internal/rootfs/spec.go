// Package rootfs prepares the container's file system before its first process: mounts, tmpfs, /etc files, sysctls.
package rootfs

import "errors"

// Mount is one entry of the launch spec's mounts.
type Mount struct {
	Type     string `json:"type"`
	Source   string `json:"source"`
	Subpath  string `json:"subpath"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
	CopyUp   bool   `json:"copy_up"`
	Create   bool   `json:"create"`
	Options  string `json:"options"`
}

// Spec is the part of the launch spec that this package carries out.
type Spec struct {
	Hostname     string            `json:"hostname"`
	Domainname   string            `json:"domainname"`
	ExtraHosts   []string          `json:"extra_hosts"`
	DNS          []string          `json:"dns"`
	DNSSearch    []string          `json:"dns_search"`
	DNSOptions   []string          `json:"dns_options"`
	Mounts       []Mount           `json:"mounts"`
	Sources      []string          `json:"sources"`
	ReadOnlyRoot bool              `json:"read_only_root"`
	Sysctls      map[string]string `json:"sysctls"`
	ShmSize      int64             `json:"shm_size"`
}

// Prepare carries the spec out, except for the read-only root, which ReadOnly does when everything else is in place. The sources are detached
// however it ends: files can still be copied out of a container whose start has failed.
func (s *Spec) Prepare() error {
	err := s.carryOut()
	return errors.Join(err, s.detachSources())
}

func (s *Spec) carryOut() error {
	steps := []func() error{s.marks, s.hostname, s.etcHosts, s.resolvConf, s.mounts, s.shm, s.sysctls}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
