package face

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// exchange sends text to a server that echoes method, path and body, and returns all it answers.
func exchange(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &Server{Handle: func(q *Request) Answer {
		return Answer{Status: 200, Body: []string{q.Method, q.Path, string(q.Body), q.Header("x-sockerless-invoke")}}
	}}
	go s.Serve(l)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	go io.WriteString(c, text)
	answer, _ := io.ReadAll(c)
	return string(answer)
}

func TestRequestsAreRead(t *testing.T) {
	for text, want := range map[string]string{
		"GET /a/b?c=d HTTP/1.1\r\nHost: h\r\n\r\n": `["GET","/a/b","",""]`,
		"GET / HTTP/1.0\r\n\r\n":                   `["GET","/","",""]`,
		"POST / HTTP/1.1\r\nhost:h\r\nX-SOCKERLESS-Invoke: \t k \r\ncontent-length:2\r\n\r\nab":                        `["POST","/","ab","k"]`,
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n00A\r\n0123456789\r\n0\r\n\r\n":    `["POST","/","ab0123456789",""]`,
		"POST / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx":         `["POST","/","x",""]`,
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n" + strings.Repeat("x", 65536):                     strings.Repeat("x", 65536),
		"GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 20000) + "\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n": `["GET","/","",""]`,
	} {
		answer := exchange(t, text)
		if !strings.Contains(answer, "HTTP/1.1 200 OK\r\n") || !strings.Contains(answer, want) || strings.Count(answer, "200 OK") != 1 {
			t.Errorf("%.60q: %.200q", text, answer)
		}
		if strings.Contains(text, "Expect") != strings.HasPrefix(answer, "HTTP/1.1 100 Continue\r\n\r\n") {
			t.Errorf("%.60q: %.200q", text, answer)
		}
	}
}

func TestHeadHasNoBody(t *testing.T) {
	answer := exchange(t, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
	if !strings.HasSuffix(answer, "\r\n\r\n") || !strings.Contains(answer, "Content-Length: 18\r\n") {
		t.Fatal(answer)
	}
}

func TestWhatCouldBeUnderstoodInTwoWaysIsRefused(t *testing.T) {
	post := "POST / HTTP/1.1\r\nHost: h\r\n"
	for text, status := range map[string]string{
		"GET / HTTP/1.1\nHost: h\n\n":                                                "400",
		"GET  / HTTP/1.1\r\nHost: h\r\n\r\n":                                         "400",
		"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n":                                  "400",
		"GET / HTTP/2.0\r\nHost: h\r\n\r\n":                                          "505",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                                           "400",
		"GET / HTTP/1.1\r\n\r\n":                                                     "400",
		"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n":                               "400",
		"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n":                               "400",
		"GET / HTTP/1.1\r\nHost : h\r\n\r\n":                                         "400",
		"GET / HTTP/1.1\r\nHost: h\x00\r\n\r\n":                                      "400",
		"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n":                               "400",
		"\x16\x03\x01\x02\x00\x01\x00\n":                                             "400",
		post + "Content-Length: +1\r\n\r\nx":                                         "400",
		post + "Content-Length: 1, 1\r\n\r\nx":                                       "400",
		post + "Content-Length:\r\n\r\nx":                                            "400",
		post + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx":                     "400",
		post + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":    "400",
		post + "Content-Length: 65537\r\n\r\n":                                       "413",
		post + "Content-Length: 99999999999999999999999999\r\n\r\n":                  "413",
		post + "Transfer-Encoding: gzip, chunked\r\n\r\n":                            "501",
		post + "Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n":           "400",
		post + "Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n":              "400",
		post + "Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n":           "400",
		post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n":                        "400",
		post + "Transfer-Encoding: chunked\r\n\r\n10001\r\n":                         "413",
		post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffffff\r\n":        "413",
		post + "Content-Length: 1\r\nExpect: something\r\n\r\nx":                     "417",
		"GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 40000) + "\r\n\r\n": "431",
		"GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", 200) + "\r\n":   "431",
	} {
		if answer := exchange(t, text); !strings.HasPrefix(answer, "HTTP/1.1 "+status+" ") {
			t.Errorf("%.80q: %.80q", text, answer)
		}
	}
}

func TestAClientThatLeavesIsNoticed(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	defer l.Close()
	left := make(chan struct{})
	s := &Server{Handle: func(q *Request) Answer {
		<-q.Gone()
		close(left)
		return Answer{Status: 200}
	}}
	go s.Serve(l)
	c, _ := net.Dial("tcp", l.Addr().String())
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.Close()
	select {
	case <-left:
	case <-time.After(5 * time.Second):
		t.Fatal("not noticed")
	}
}

func FuzzReading(f *testing.F) {
	f.Add("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
	f.Add("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab")
	f.Fuzz(func(t *testing.T, text string) {
		r := &reader{br: bufio.NewReader(strings.NewReader(text)), left: headMost}
		q, err := r.head()
		if err == nil {
			err = r.body(q, io.Discard)
		}
		if err == nil && len(q.Body) > min(BodyMost, len(text)) {
			t.Fatal("more than there was")
		}
	})
}
