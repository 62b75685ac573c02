// Package websocket is the client side of RFC 6455 as the wire protocol uses it: no extensions, no fragments.
package websocket

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Opcodes of frames.
const (
	Text   = 1
	Binary = 2
	opEnd  = 8
	opPing = 9
	opPong = 10
)

// MaxMessage is the longest payload either side may send.
const MaxMessage = 1 << 20

// Close codes the protocol uses.
const (
	CloseNormal   = 1000
	CloseGoing    = 1001
	CloseProtocol = 1002
	ClosePolicy   = 1008
)

// CloseError says that the peer closed the socket, and with what code.
type CloseError struct{ Code int }

func (e *CloseError) Error() string { return fmt.Sprintf("websocket closed with %d", e.Code) }

// Conn is one websocket. One goroutine may read; writes may come from any.
type Conn struct {
	nc net.Conn
	br *bufio.Reader

	left int64 // payload bytes of the current frame not yet read

	mu     sync.Mutex // guards everything below
	header [14]byte
	vector [2][]byte
	bufs   net.Buffers
	joined []byte // TLS only: header and payload of a small frame, so that they share a record
	closed bool   // a close frame was sent
}

func newConn(nc net.Conn, br *bufio.Reader) *Conn { return &Conn{nc: nc, br: br} }

// Next reads up to the next data frame and returns its opcode and length. Its payload must be read before Next is called again.
func (c *Conn) Next() (op byte, length int64, err error) {
	if c.left > 0 {
		if _, err := io.CopyN(io.Discard, payload{c}, c.left); err != nil {
			return 0, 0, err
		}
	}
	for {
		op, length, err := c.frameHeader()
		if err != nil {
			return 0, 0, err
		}
		if op == Text || op == Binary {
			c.left = length
			return op, length, nil
		}
		if err := c.control(op, length); err != nil {
			return 0, 0, err
		}
	}
}

func (c *Conn) frameHeader() (op byte, length int64, err error) {
	var b [8]byte
	if _, err := io.ReadFull(c.br, b[:2]); err != nil {
		return 0, 0, err
	}
	op, length = b[0]&0x0f, int64(b[1]&0x7f)
	known := op == Text || op == Binary || op == opEnd || op == opPing || op == opPong
	// Fragments, reserved bits and masked frames are not spoken by our peers.
	if b[0]&0xf0 != 0x80 || b[1]&0x80 != 0 || !known || (op >= opEnd && length > 125) {
		c.Close(CloseProtocol)
		return 0, 0, errors.New("websocket: frame against the protocol")
	}
	switch length {
	case 126:
		_, err = io.ReadFull(c.br, b[:2])
		length = int64(binary.BigEndian.Uint16(b[:2]))
	case 127:
		_, err = io.ReadFull(c.br, b[:8])
		length = int64(binary.BigEndian.Uint64(b[:8]))
	}
	if err == nil && (length < 0 || length > MaxMessage) {
		c.Close(CloseProtocol)
		err = errors.New("websocket: message longer than 1 MiB")
	}
	return op, length, err
}

func (c *Conn) control(op byte, length int64) error {
	body := make([]byte, length)
	if _, err := io.ReadFull(c.br, body); err != nil {
		return err
	}
	switch op {
	case opPing:
		return c.Write(opPong, body)
	case opEnd:
		code := 1005
		if len(body) >= 2 {
			code = int(binary.BigEndian.Uint16(body))
		}
		c.Close(CloseNormal)
		return &CloseError{Code: code}
	}
	return nil
}

// Read reads payload of the current frame; io.EOF at its end.
func (c *Conn) Read(p []byte) (int, error) { return payload{c}.Read(p) }

// Message reads the rest of the current frame as one slice.
func (c *Conn) Message() ([]byte, error) {
	p := make([]byte, c.left)
	_, err := io.ReadFull(payload{c}, p)
	return p, err
}

type payload struct{ c *Conn }

func (r payload) Read(p []byte) (int, error) {
	if r.c.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > r.c.left {
		p = p[:r.c.left]
	}
	if g, ok := r.c.nc.(*gatherer); ok {
		g.want = len(p)
	}
	// A read longer than what the bufio.Reader holds goes past it, straight from the socket into p.
	n, err := r.c.br.Read(p)
	if g, ok := r.c.nc.(*gatherer); ok {
		g.want = 0
	}
	r.c.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Write sends one frame.
//
// RFC 6455 wants clients to mask what they send, with a key of their choice: masking with zeros leaves the payload as it is,
// so it goes from the caller's buffer to the kernel by one writev, neither copied nor XORed. Masking protects naive
// proxies from bytes that a browser's script has chosen; there is no browser here.
func (c *Conn) Write(op byte, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return c.write(op, p)
}

func (c *Conn) write(op byte, p []byte) error {
	h := append(c.header[:0], 0x80|op)
	switch {
	case len(p) < 126:
		h = append(h, 0x80|byte(len(p)))
	case len(p) < 1<<16:
		h = binary.BigEndian.AppendUint16(append(h, 0x80|126), uint16(len(p)))
	default:
		h = binary.BigEndian.AppendUint64(append(h, 0x80|127), uint64(len(p)))
	}
	h = append(h, 0, 0, 0, 0)
	if _, ok := c.nc.(*tls.Conn); ok && len(p) < 8<<10 {
		c.joined = append(append(c.joined[:0], h...), p...)
		_, err := c.nc.Write(c.joined)
		return err
	}
	c.vector = [2][]byte{h, p}
	c.bufs = c.vector[:]
	_, err := c.bufs.WriteTo(c.nc)
	return err
}

// Close sends a close frame (once). Reading goes on until the peer's own close frame arrives.
func (c *Conn) Close(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	c.nc.SetWriteDeadline(time.Now().Add(5 * time.Second))
	c.write(opEnd, binary.BigEndian.AppendUint16(nil, uint16(code)))
}

// Drop closes the connection without a word.
func (c *Conn) Drop() { c.nc.Close() }

// SetReadDeadline bounds the wait for the next byte.
func (c *Conn) SetReadDeadline(t time.Time) { c.nc.SetReadDeadline(t) }
