package websocket

import (
	"io"
	"net"
	"syscall"
)

// gatherMost bounds how much of a message the kernel is asked to gather before it wakes us.
const gatherMost = 256 << 10

// gatherer reads a TCP connection. In the middle of a message it wakes when the rest is there, and not for each packet.
type gatherer struct {
	*net.TCPConn
	rc     syscall.RawConn
	want   int // bytes that will come without anything being sent by us first; 0: not known
	marked int // SO_RCVLOWAT as it was set
}

func newGatherer(nc net.Conn) net.Conn {
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		return nc
	}
	rc, err := tc.SyscallConn()
	if err != nil {
		return nc
	}
	return &gatherer{TCPConn: tc, rc: rc, marked: 1}
}

func (g *gatherer) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	failed := g.rc.Read(func(fd uintptr) bool {
		for {
			n, err = syscall.Read(int(fd), p)
			switch err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				g.mark(int(fd), max(1, min(len(p), g.want, gatherMost)))
				return false
			}
			return true
		}
	})
	switch {
	case failed != nil:
		return 0, failed
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (g *gatherer) mark(fd, bytes int) {
	if bytes != g.marked && syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, bytes) == nil {
		g.marked = bytes
	}
}
