package main

import (
	"sockerless/agent/internal/archive"
	"sockerless/agent/internal/process"
	"sockerless/agent/internal/stream"
)

type archiveParams struct {
	Path                 string `json:"path"`
	NoOverwriteDirNonDir bool   `json:"no_overwrite_dir_non_dir"`
	CopyUIDGID           bool   `json:"copy_uid_gid"`
}

// archiveGet sends the path's stat and its tar.
func (a *Agent) archiveGet(s *stream.Stream, p *archiveParams) {
	s.Discard()
	g, err := a.container.Open(p.Path)
	if err != nil {
		s.Fail(err)
		return
	}
	s.Result(g.Stat)
	if err := g.Copy(tarSink{s}); err != nil {
		s.Fail(err)
		return
	}
	s.Send(&stream.Control{EOF: true})
	s.End()
}

// tarSink is a stream that gathers small pieces.
type tarSink struct{ *stream.Stream }

func (t tarSink) Write(p []byte) (int, error) { return len(p), t.WriteFrame(0, p) }

// archivePut extracts the client's tar.
func (a *Agent) archivePut(s *stream.Stream, p *archiveParams) {
	putter := &archive.Putter{NoOverwriteDirNonDir: p.NoOverwriteDirNonDir}
	if p.CopyUIDGID {
		putter.Owner = a.owner()
	}
	if err := a.container.Put(p.Path, putter, s); err != nil {
		s.Fail(err)
		return
	}
	for { // the padding behind the archive's end
		in, err := s.Next()
		if err != nil {
			break
		}
		s.Done(len(in))
	}
	s.Result(struct{}{})
	s.Send(&stream.Control{EOF: true})
	s.End()
}

// owner is the container's user, whom `cp -a` gives the files; nil for root, and before the launch spec is known: then they keep theirs.
func (a *Agent) owner() *[2]int {
	a.mu.Lock()
	spec := a.spec
	a.mu.Unlock()
	if spec == nil || spec.User == "" {
		return nil
	}
	user, err := process.LookupUser(spec.User, nil)
	if err != nil {
		return nil
	}
	return &[2]int{user.UID, user.GID}
}
