package websocket

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

// pair is a client connection and the server's raw end.
func pair(t *testing.T) (*Conn, net.Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return newConn(a, bufio.NewReader(a)), b
}

func TestWritesAreMaskedWithZeros(t *testing.T) {
	for size, head := range map[int]string{5: "\x82\x85", 126: "\x82\xfe\x00\x7e", 70000: "\x82\xff\x00\x00\x00\x00\x00\x01\x11\x70"} {
		c, server := pair(t)
		payload := bytes.Repeat([]byte("x"), size)
		go c.Write(Binary, payload)
		got := make([]byte, len(head)+4+size)
		io.ReadFull(server, got)
		if want := append([]byte(head+"\x00\x00\x00\x00"), payload...); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %x", size, got[:14])
		}
	}
}

func TestReadsDataAndAnswersPings(t *testing.T) {
	c, server := pair(t)
	pong := make(chan []byte, 1)
	go func() {
		server.Write([]byte("\x89\x02hi\x81\x03abc\x82\x01\xff"))
		answer := make([]byte, 8)
		io.ReadFull(server, answer)
		pong <- answer
	}()
	if op, n, err := c.Next(); op != Text || n != 3 || err != nil {
		t.Fatal(op, n, err)
	}
	if op, n, err := c.Next(); op != Binary || n != 1 || err != nil { // the text was skipped
		t.Fatal(op, n, err)
	}
	if p, err := c.Message(); string(p) != "\xff" || err != nil {
		t.Fatal(p, err)
	}
	if got := <-pong; string(got) != "\x8a\x82\x00\x00\x00\x00hi" {
		t.Fatalf("%x", got)
	}
}

func TestFramesAgainstTheProtocolAreRefused(t *testing.T) {
	for name, frame := range map[string]string{
		"fragment":     "\x02\x01x",
		"continuation": "\x80\x01x",
		"masked":       "\x82\x81\x00\x00\x00\x00x",
		"reserved bit": "\xc2\x01x",
		"unknown":      "\x83\x01x",
		"too long":     "\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01",
		"negative":     "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
		"long ping":    "\x89\x7e\x00\x7e",
	} {
		t.Run(name, func(t *testing.T) {
			c, server := pair(t)
			closing := make(chan []byte, 1)
			go func() {
				server.Write([]byte(frame))
				b := make([]byte, 8)
				io.ReadFull(server, b)
				closing <- b
			}()
			if _, _, err := c.Next(); err == nil {
				t.Fatal("it was taken")
			}
			if b := <-closing; string(b) != "\x88\x82\x00\x00\x00\x00\x03\xea" {
				t.Fatalf("closed with %x", b)
			}
		})
	}
}

func TestTheCloseCodeIsToldAndAnswered(t *testing.T) {
	c, server := pair(t)
	go func() {
		server.Write([]byte("\x88\x02\x03\xe9"))
		io.Copy(io.Discard, server)
	}()
	_, _, err := c.Next()
	var closed *CloseError
	if !errors.As(err, &closed) || closed.Code != CloseGoing {
		t.Fatal(err)
	}
}

func TestGatewayAddresses(t *testing.T) {
	for callback, want := range map[string]Gateway{
		"http://h:1":       {network: "tcp", address: "h:1", host: "h:1"},
		"https://h/pre/":   {network: "tcp", address: "h:443", host: "h", prefix: "/pre", secure: true},
		"http://[::1]:8/":  {network: "tcp", address: "[::1]:8", host: "[::1]:8"},
		"unix:///run/sock": {network: "unix", address: "/run/sock", host: "localhost"},
	} {
		if got, err := ParseGateway(callback, ""); err != nil || *got != want {
			t.Errorf("%s: %+v %v", callback, got, err)
		}
	}
	for _, bad := range []string{"", "ftp://h", "http://", "unix://", "http://h:port"} {
		if _, err := ParseGateway(bad, ""); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSeveralGatewayAddresses(t *testing.T) {
	for callback, want := range map[string]string{
		"https://a https://b/pre":        "a:443 b:443",
		" http://a:1  https://b ":        "a:1 b:443",
		"https://a http://b https://c":   "a:443 c:443", // none is less protected than the first
		"unix:///run/sock http://b:2":    "/run/sock b:2",
		"http://a:1 http://a:1 http://b": "a:1 a:1 b:80",
	} {
		found, err := ParseGateways(callback, "secret")
		got := ""
		for _, g := range found {
			got += " " + g.address
			if g.token != "secret" {
				t.Errorf("%s: no token", callback)
			}
		}
		if err != nil || got != " "+want {
			t.Errorf("%s: %q %v", callback, got, err)
		}
	}
	for _, bad := range []string{"", "  ", "http://a ftp://b", "http://a,http://b", "http://a\nhttp://b", "http://a\thttp://b", "http://a b"} {
		if found, err := ParseGateways(bad, ""); err == nil {
			t.Errorf("%q was taken: %v", bad, found)
		}
	}
}

func TestRootsAreReadable(t *testing.T) {
	t.Setenv("SSL_CERT_FILE", "")
	if n := bytes.Count(rootsPEM, []byte("BEGIN CERTIFICATE")); n < 20 || bytes.Contains(rootsPEM, []byte("PRIVATE")) {
		t.Fatal(n)
	}
	if roots() == nil {
		t.Fatal("no roots")
	}
}
