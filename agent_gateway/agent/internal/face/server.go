// Package face is a small and strict HTTP/1.1 server: one request for each connection, read whole and bounded in size and time. net/http would make
// the agent's binary, which each image gets, a sixth longer.
package face

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	connections  = 256
	requestTime  = 10 * time.Second // for a request to come in
	answerTime   = 10 * time.Second
	farewellTime = time.Second // for the client to close after its answer
)

// Answer is what a request is answered with: Body as JSON, or nothing.
type Answer struct {
	Status int
	Body   any
	Allow  string // the methods, with 405
	Sent   func() // called when the client has taken the answer, or does not
}

// Server answers requests with Handle, which may take its time: it should look at Request.Gone then.
type Server struct {
	Handle func(*Request) Answer
	slots  chan struct{}
}

// Serve takes connections for ever.
func (s *Server) Serve(l net.Listener) {
	s.slots = make(chan struct{}, connections)
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of files or memory
			time.Sleep(50 * time.Millisecond)
			continue
		}
		select {
		case s.slots <- struct{}{}:
			go func() {
				s.serve(nc)
				<-s.slots
			}()
		default:
			nc.Close()
		}
	}
}

func (s *Server) serve(nc net.Conn) {
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(requestTime))
	br := bufio.NewReader(nc)
	q, err := read(br, nc)
	var refused *refusal
	if errors.As(err, &refused) {
		s.send(nc, q, Answer{Status: refused.status, Body: map[string]string{"message": refused.text}})
		farewell(nc, br)
		return
	}
	if err != nil {
		return
	}
	nc.SetDeadline(time.Time{})
	go func() {
		io.Copy(io.Discard, br) // what comes after the request means nothing here
		close(q.gone)
	}()
	answer := s.Handle(q)
	s.send(nc, q, answer)
	if tc, ok := nc.(*net.TCPConn); ok {
		tc.CloseWrite()
	}
	select {
	case <-q.gone:
	case <-time.After(farewellTime):
	}
	if answer.Sent != nil {
		answer.Sent()
	}
}

func read(br *bufio.Reader, nc net.Conn) (*Request, error) {
	r := &reader{br: br, left: headMost}
	q, err := r.head()
	if err != nil {
		return nil, err
	}
	return q, r.body(q, nc)
}

// farewell lets a client that still sends see the answer, which a closed connection would take from it.
func farewell(nc net.Conn, br *bufio.Reader) {
	if tc, ok := nc.(*net.TCPConn); ok {
		tc.CloseWrite()
	}
	nc.SetReadDeadline(time.Now().Add(farewellTime))
	io.Copy(io.Discard, br)
}

var reasons = map[int]string{200: "OK", 202: "Accepted", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	409: "Conflict", 413: "Content Too Large", 417: "Expectation Failed", 431: "Request Header Fields Too Large", 501: "Not Implemented",
	505: "HTTP Version Not Supported"}

func (s *Server) send(nc net.Conn, q *Request, a Answer) {
	var body []byte
	if a.Body != nil {
		body, _ = json.Marshal(a.Body) // of strings, numbers and maps
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Length: %d\r\nConnection: close\r\n", a.Status, reasons[a.Status],
		time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), len(body))
	if body != nil {
		head += "Content-Type: application/json\r\n"
	}
	if a.Allow != "" {
		head += "Allow: " + a.Allow + "\r\n"
	}
	if q != nil && q.Method == "HEAD" {
		body = nil
	}
	nc.SetWriteDeadline(time.Now().Add(answerTime))
	nc.Write(append([]byte(head+"\r\n"), body...))
}
