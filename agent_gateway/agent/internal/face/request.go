package face

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Bounds of what a request may be.
const (
	headMost    = 32 << 10
	headersMost = 128
	// BodyMost is the longest body.
	BodyMost = 64 << 10
)

// Request is one request, read whole.
type Request struct {
	Method, Path string
	Body         []byte
	header       map[string]string // names in lower case
	gone         chan struct{}
}

// Header returns a header's value by its name in lower case.
func (r *Request) Header(name string) string { return r.header[name] }

// Gone is closed when the client has closed the connection, or it broke.
func (r *Request) Gone() <-chan struct{} { return r.gone }

// refusal is a request that is not served.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

func refuse(status int, text string) error { return &refusal{status, text} }

// reader reads one request. It takes nothing that two readers could understand in two ways.
type reader struct {
	br   *bufio.Reader
	left int // bytes that the lines may still have
}

// line reads one line, which ends with CRLF and has no control characters.
func (r *reader) line() (string, error) {
	var line []byte
	for {
		part, err := r.br.ReadSlice('\n')
		if r.left -= len(part); r.left < 0 {
			return "", refuse(431, "the request's head is too long")
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull {
			return "", err
		}
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	for i := 0; ok && i < len(text); i++ {
		ok = text[i] >= ' ' && text[i] != 0x7f || text[i] == '\t'
	}
	if !ok {
		return "", refuse(400, "a malformed line in the request's head")
	}
	return text, nil
}

// head reads the request line and the headers.
func (r *reader) head() (*Request, error) {
	line, err := r.line()
	if err != nil {
		return nil, err
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !isToken(parts[0]) || !strings.HasPrefix(parts[1], "/") {
		return nil, refuse(400, "a malformed request line")
	}
	if parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0" {
		return nil, refuse(505, "HTTP/1.1 is spoken here")
	}
	q := &Request{Method: parts[0], header: map[string]string{}, gone: make(chan struct{})}
	q.Path, _, _ = strings.Cut(parts[1], "?")
	for range headersMost {
		line, err := r.line()
		if err != nil {
			return nil, err
		}
		if line == "" {
			if _, ok := q.header["host"]; !ok && parts[2] == "HTTP/1.1" {
				return nil, refuse(400, "the Host header is missing")
			}
			return q, nil
		}
		if err := q.add(line); err != nil {
			return nil, err
		}
	}
	return nil, refuse(431, "too many headers")
}

// single are the headers that decide something here: there may be one of each.
var single = map[string]bool{"host": true, "content-length": true, "transfer-encoding": true, "expect": true, "x-sockerless-invoke": true}

func (q *Request) add(line string) error {
	name, value, ok := strings.Cut(line, ":")
	if !ok || !isToken(name) {
		return refuse(400, "a malformed header")
	}
	name = strings.ToLower(name)
	if _, twice := q.header[name]; twice && single[name] {
		return refuse(400, "the header "+name+" is there twice")
	}
	q.header[name] = strings.Trim(value, " \t")
	return nil
}

func isToken(text string) bool {
	for i := range len(text) {
		c := text[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return text != ""
}

// body reads the body that the headers announce.
func (r *reader) body(q *Request, goOn io.Writer) (err error) {
	length, sized := q.header["content-length"]
	coding, coded := q.header["transfer-encoding"]
	size := 0
	switch {
	case sized && coded:
		return refuse(400, "Content-Length and Transfer-Encoding exclude each other")
	case coded && !strings.EqualFold(coding, "chunked"):
		return refuse(501, "the transfer coding is not known")
	case sized:
		if size, err = number(length, 10); err != nil {
			return err
		}
	case !coded:
		return nil
	}
	if expect, ok := q.header["expect"]; ok {
		if !strings.EqualFold(expect, "100-continue") {
			return refuse(417, "the expectation is not known")
		}
		if _, err := io.WriteString(goOn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return err
		}
	}
	if coded {
		return r.chunks(q)
	}
	q.Body = make([]byte, size)
	_, err = io.ReadFull(r.br, q.Body)
	return err
}

// number reads a length, which has digits only.
func number(text string, base int) (int, error) {
	for i := range len(text) {
		if c := text[i] | 0x20; !(text[i] >= '0' && text[i] <= '9' || base == 16 && c >= 'a' && c <= 'f') {
			return 0, refuse(400, "a malformed length")
		}
	}
	n, err := strconv.ParseUint(text, base, 62)
	if text == "" || err != nil && len(strings.TrimLeft(text, "0")) <= 15 {
		return 0, refuse(400, "a malformed length")
	}
	if err != nil || n > BodyMost {
		return 0, refuse(413, fmt.Sprintf("the body is longer than %d bytes", BodyMost))
	}
	return int(n), nil
}

// chunks reads a chunked body, without extensions and trailers.
func (r *reader) chunks(q *Request) error {
	for {
		line, err := r.line()
		if err != nil {
			return err
		}
		n, err := number(line, 16)
		if err != nil {
			return err
		}
		if len(q.Body)+n > BodyMost {
			return refuse(413, fmt.Sprintf("the body is longer than %d bytes", BodyMost))
		}
		at := len(q.Body)
		q.Body = append(q.Body, make([]byte, n)...)
		if _, err := io.ReadFull(r.br, q.Body[at:]); err != nil {
			return err
		}
		if end, err := r.line(); err != nil {
			return err
		} else if end != "" {
			return refuse(400, "a malformed chunk")
		}
		if n == 0 {
			return nil
		}
	}
}
