package main

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"sockerless/agent/internal/stream"
)

type dialParams struct {
	Port    int    `json:"port"`
	Network string `json:"network"`
}

const (
	dialWait = 5 * time.Second
	mostDial = 1024 // connections at once; each is two sockets
)

// dialPort carries one TCP connection to a port of the container.
func (a *Agent) dialPort(s *stream.Stream, p *dialParams) {
	defer a.dialled.Add(-1)
	if a.dialled.Add(1) > mostDial {
		s.Fail(stream.Refuse(503, "the container has %d connections to published ports already", mostDial))
		return
	}
	conn, err := a.reach(p)
	if err != nil {
		s.Fail(err)
		return
	}
	s.Result(struct{}{})
	go func() {
		<-s.Gone()
		reset(conn)
	}()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		deliver(s, conn)
	}()
	err = receive(s, conn)
	if err == nil {
		s.Send(&stream.Control{EOF: true})
		<-sent
		s.End()
		conn.Close()
		return
	}
	reset(conn)
	s.Fail(stream.Refuse(502, "the connection to port %d of the container broke: %v", p.Port, err))
}

// reach connects to the port where the container's process listens: on every address, on loopback, or on another of the container's own.
func (a *Agent) reach(p *dialParams) (*net.TCPConn, error) {
	if p.Network != "" && p.Network != "tcp" {
		return nil, stream.Refuse(501, "network %q is not served: tcp is", p.Network)
	}
	if p.Port < 1 || p.Port > 65535 {
		return nil, stream.Refuse(400, "%d is no port", p.Port)
	}
	if a.listener != nil && p.Port == a.listener.Addr().(*net.TCPAddr).Port {
		return nil, stream.Refuse(403, "port %d is the agent's own: the platform's requests come in there", p.Port)
	}
	ctx, cancel := context.WithTimeout(a.ctx, dialWait)
	defer cancel()
	var dialer net.Dialer
	var first error
	for _, address := range ownAddresses() {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(p.Port)))
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, stream.Refuse(502, "nothing listens on port %d of the container: %v", p.Port, cause(first))
}

// ownAddresses begins with loopback: mostly it is 127.0.0.1, and the other addresses need not be asked for.
func ownAddresses() []string {
	found := []string{"127.0.0.1", "::1"}
	others, _ := net.InterfaceAddrs()
	for _, other := range others {
		if n, ok := other.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			found = append(found, n.IP.String())
		}
	}
	return found
}

// deliver writes the client's bytes into the connection, and its half-close.
func deliver(s *stream.Stream, conn *net.TCPConn) {
	for {
		p, err := s.Next()
		if errors.Is(err, io.EOF) {
			conn.CloseWrite()
			return
		}
		if err != nil {
			return
		}
		n, err := conn.Write(p)
		s.Done(n)
		if err != nil {
			s.Discard() // the process reads no more; what it still says counts
			return
		}
	}
}

// receive sends what the process says; nil after its half-close, or when the client is gone.
func receive(s *stream.Stream, conn *net.TCPConn) error {
	rc, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var idle atomic.Bool
	_, err = carry(rc, s, 0, &idle)
	return err
}

// reset closes the connection so that the process sees it broken, not ended.
func reset(conn *net.TCPConn) {
	conn.SetLinger(0)
	conn.Close()
}

// cause is the innermost error: the system's own words.
func cause(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}
