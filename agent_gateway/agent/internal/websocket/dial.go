package websocket

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Gateway is where websockets are dialled: the parsed SOCKERLESS_CALLBACK_URL.
type Gateway struct {
	network, address string
	host, prefix     string
	secure           bool
	token            string
}

// With is the same gateway, dialled with another token.
func (g *Gateway) With(token string) *Gateway {
	other := *g
	other.token = token
	return &other
}

// Same tells whether two gateways have one address.
func (g *Gateway) Same(other *Gateway) bool {
	return g.network == other.network && g.address == other.address && g.prefix == other.prefix && g.secure == other.secure
}

// Secure tells whether the gateway is dialled with TLS.
func (g *Gateway) Secure() bool { return g.secure }

// StatusError is an answer to the handshake other than 101.
type StatusError struct {
	Status int
	Reason string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("gateway answered %d %s", e.Status, e.Reason)
}

// ParseGateways reads callback URLs with spaces between them. The first is the container's own; one that is less protected than that is left out.
func ParseGateways(callback, token string) ([]*Gateway, error) {
	found := []*Gateway{}
	for _, text := range strings.Split(callback, " ") {
		if text == "" {
			continue
		}
		g, err := ParseGateway(text, token)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 || g.secure || !found[0].secure {
			found = append(found, g)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("the callback URL is empty")
	}
	return found, nil
}

// ParseGateway reads a callback URL: http, https (ws, wss) or unix:///path.
func ParseGateway(callback, token string) (*Gateway, error) {
	u, err := url.Parse(callback)
	if err != nil {
		return nil, errors.New("the callback URL cannot be parsed")
	}
	g := &Gateway{network: "tcp", host: u.Host, prefix: strings.TrimRight(u.EscapedPath(), "/"), token: token}
	port := "80"
	switch u.Scheme {
	case "http", "ws":
	case "https", "wss":
		g.secure, port = true, "443"
	case "unix":
		if u.Path == "" {
			return nil, errors.New("the callback URL names no socket")
		}
		return &Gateway{network: "unix", address: u.Path, host: "localhost", token: token}, nil
	default:
		return nil, fmt.Errorf("callback URL scheme %q is none of http, https, unix", u.Scheme)
	}
	if strings.Contains(u.Host, ",") {
		return nil, errors.New("between callback URLs there are spaces, not commas")
	}
	if u.Hostname() == "" {
		return nil, errors.New("the callback URL has no host")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	g.address = net.JoinHostPort(u.Hostname(), port)
	return g, nil
}

const (
	handshakeTimeout = 20 * time.Second
	// A machine that is gone does not even refuse: there may be another gateway to dial.
	connectTimeout = 8 * time.Second
)

// Dial opens a websocket to path below the gateway's prefix.
func (g *Gateway) Dial(ctx context.Context, path string) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	d := net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second, Control: userTimeout}
	nc, err := d.DialContext(ctx, g.network, g.address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	c, err := g.handshake(ctx, nc, path)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	withoutPacing(nc)
	return c, nil
}

// userTimeout makes the kernel give a connection up when sent bytes stay unacknowledged for 30 s, instead of a quarter of an hour.
func userTimeout(network, _ string, rc syscall.RawConn) error {
	const tcpUserTimeout = 18
	if strings.HasPrefix(network, "tcp") {
		rc.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, 30000) })
	}
	return nil
}

func (g *Gateway) handshake(ctx context.Context, nc net.Conn, path string) (*Conn, error) {
	if g.secure {
		host, _, _ := net.SplitHostPort(g.address)
		tc := tls.Client(nc, &tls.Config{ServerName: host, RootCAs: roots(), NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		nc = tc
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	request := "GET " + g.prefix + path + " HTTP/1.1\r\nHost: " + g.host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\nAuthorization: Bearer " + g.token + "\r\n\r\n"
	if _, err := io.WriteString(nc, request); err != nil {
		return nil, err
	}
	nc = newGatherer(nc)
	br := bufio.NewReaderSize(nc, 8<<10)
	if err := upgraded(br, key); err != nil {
		return nil, err
	}
	return newConn(nc, br), nil
}

func upgraded(br *bufio.Reader, key string) error {
	line, err := headerLine(br)
	if err != nil {
		return err
	}
	fields := strings.SplitN(line, " ", 3)
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "HTTP/1.") {
		return errors.New("the gateway does not speak HTTP/1.1")
	}
	status, _ := strconv.Atoi(fields[1])
	accept := ""
	for {
		line, err := headerLine(br)
		if err != nil {
			return err
		}
		if line == "" {
			break
		}
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Sec-WebSocket-Accept") {
			accept = strings.TrimSpace(value)
		}
	}
	if status != 101 {
		return &StatusError{Status: status, Reason: strings.Join(fields[2:], " ")}
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if accept != base64.StdEncoding.EncodeToString(sum[:]) {
		return errors.New("the gateway's websocket handshake is wrong")
	}
	return nil
}

// headerLine reads one line of the response's head; lines longer than the buffer are refused.
func headerLine(br *bufio.Reader) (string, error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}
