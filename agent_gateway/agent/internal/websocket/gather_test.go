package websocket

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// gathering is a connection over TCP, read as agents read, and the server's raw end.
func gathering(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	nc := newGatherer(client)
	if _, ok := nc.(*gatherer); !ok {
		t.Fatal("not gathering")
	}
	return newConn(nc, bufio.NewReaderSize(nc, 8<<10)), server.(*net.TCPConn)
}

func binaryHead(n int) []byte { return binary.BigEndian.AppendUint64([]byte{0x82, 127}, uint64(n)) }

// within fails a test whose f does not return.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("it hangs")
	}
}

func TestMessagesInPiecesAreReadWhole(t *testing.T) {
	for _, piece := range []int{1 << 20, 60000, 1447} {
		c, server := gathering(t)
		want := bytes.Repeat([]byte("0123456789abcdef"), MaxMessage/16)
		go func() {
			stream := append(binaryHead(len(want)), want...)
			stream = append(stream, "\x81\x02ok"...)
			for at := 0; at < len(stream); at += piece {
				server.Write(stream[at:min(at+piece, len(stream))])
				if at%(piece*8) == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		}()
		within(t, func() {
			c.Next()
			if got, err := c.Message(); err != nil || !bytes.Equal(got, want) {
				t.Error(len(got), err)
			}
			// A short message after a long one wakes the reader as well.
			if _, n, err := c.Next(); n != 2 || err != nil {
				t.Error(n, err)
			}
			if got, err := c.Message(); err != nil || string(got) != "ok" {
				t.Errorf("%q %v", got, err)
			}
		})
	}
}

// half starts a read in the middle of a message, which waits for much more than has come.
func half(t *testing.T) (*Conn, *net.TCPConn, chan error) {
	t.Helper()
	c, server := gathering(t)
	server.Write(append(binaryHead(MaxMessage), make([]byte, 20000)...))
	c.Next()
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond)
	return c, server, ended
}

func TestAHalfMessageEndsWithItsConnection(t *testing.T) {
	for name, end := range map[string]func(c *Conn, server *net.TCPConn){
		"the peer closes":      func(_ *Conn, server *net.TCPConn) { server.Close() },
		"the peer half-closes": func(_ *Conn, server *net.TCPConn) { server.CloseWrite() },
		"the peer resets":      func(_ *Conn, server *net.TCPConn) { server.SetLinger(0); server.Close() },
		"we drop it":           func(c *Conn, _ *net.TCPConn) { c.Drop() },
		"the deadline passes":  func(c *Conn, _ *net.TCPConn) { c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) },
	} {
		t.Run(name, func(t *testing.T) {
			c, server, ended := half(t)
			server.Write([]byte("less than is waited for"))
			end(c, server)
			within(t, func() {
				err := <-ended
				want := map[string]error{"the peer closes": io.ErrUnexpectedEOF, "the peer half-closes": io.ErrUnexpectedEOF, "we drop it": net.ErrClosed,
					"the deadline passes": os.ErrDeadlineExceeded}[name]
				if err == nil || want != nil && !errors.Is(err, want) {
					t.Error(err)
				}
			})
		})
	}
}
