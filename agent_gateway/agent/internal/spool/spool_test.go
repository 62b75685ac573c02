package spool

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
)

type piece struct {
	text    string
	partial bool
}

func split(chunks ...string) []piece {
	var s Splitter
	var got []piece
	emit := func(line []byte, partial bool) { got = append(got, piece{string(line), partial}) }
	for _, c := range chunks {
		s.Feed([]byte(c), emit)
	}
	s.Finish(emit)
	return got
}

func TestSplitterCutsLinesWhereverTheChunksEnd(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for name, c := range map[string]struct {
		chunks []string
		want   []piece
	}{
		"lines":             {[]string{"a\nb\n"}, []piece{{"a", false}, {"b", false}}},
		"across chunks":     {[]string{"a", "b", "\nc\n"}, []piece{{"ab", false}, {"c", false}}},
		"no newline at end": {[]string{"a\nb"}, []piece{{"a", false}, {"b", true}}},
		"empty lines":       {[]string{"\n\n"}, []piece{{"", false}, {"", false}}},
		"exactly the limit": {[]string{long, "\n"}, []piece{{long, true}, {"", false}}},
		"over the limit":    {[]string{long + "yz\n"}, []piece{{long, true}, {"yz", false}}},
		"limit in parts":    {[]string{long[:9], long[9:] + "y", "\n"}, []piece{{long, true}, {"y", false}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := split(c.chunks...)
			if len(got) != len(c.want) {
				t.Fatalf("%d pieces, want %d", len(got), len(c.want))
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("piece %d: %.20q %v", i, got[i].text, got[i].partial)
				}
			}
		})
	}
}

func readAll(s *Spool, c Cursor) (lines []string, times []int64) {
	buf := make([]byte, 64<<10)
	for s.Read(&c, s.Newest(), buf, func(e Entry) bool {
		lines, times = append(lines, string(e.Data)), append(times, e.At)
		return true
	}) {
	}
	return lines, times
}

func TestSpoolKeepsEntriesInFilesAndInMemory(t *testing.T) {
	for name, dir := range map[string]string{"file": t.TempDir(), "memory": "/proc/none"} {
		t.Run(name, func(t *testing.T) {
			s := New(dir)
			s.Begin(0)
			s.Add(1, 1, []byte("one"), false)
			s.Add(2, 2, []byte("two"), true)
			s.Flush()
			lines, times := readAll(s, s.Oldest())
			if strings.Join(lines, "|") != "one\n|two" || times[1] != 2 {
				t.Fatalf("%q %v", lines, times)
			}
			if lines, _ := readAll(s, s.Tail(1, make([]byte, 64<<10))); len(lines) != 1 || lines[0] != "two" {
				t.Fatalf("tail: %q", lines)
			}
		})
	}
}

func TestSpoolDropsTheOldestAndStaysInItsBounds(t *testing.T) {
	const max = 1 << 20
	for name, dir := range map[string]string{"file": t.TempDir(), "memory": "/proc/none"} {
		t.Run(name, func(t *testing.T) {
			s := New(dir)
			s.Begin(max)
			line := bytes.Repeat([]byte("x"), 1000)
			old := s.Oldest()
			for i := range 5000 {
				s.Add(int64(i), 1, line, false)
			}
			s.Flush()
			_, times := readAll(s, old) // a cursor into what was dropped goes on at the oldest
			if kept := len(times) * 1013; kept > max || kept < max/2 {
				t.Fatalf("%d bytes kept", kept)
			}
			if times[len(times)-1] != 4999 || times[0] != int64(5000-len(times)) {
				t.Fatalf("from %d to %d", times[0], times[len(times)-1])
			}
			_, tail := readAll(s, s.Tail(300, make([]byte, 64<<10)))
			if len(tail) != 300 || tail[0] != 4700 {
				t.Fatalf("tail of %d from %d", len(tail), tail[0])
			}
		})
	}
}

func TestMoreTellsOfEntriesAndOfTheEnd(t *testing.T) {
	s := New("/proc/none")
	s.Begin(0)
	c := s.Newest()
	more, ended := s.More(c)
	if ended {
		t.Fatal("ended")
	}
	s.Add(1, 1, []byte("x"), false)
	s.Flush()
	<-more
	readAll(s, c)
	c = s.Newest()
	more, _ = s.More(c)
	s.End()
	<-more
	if _, ended := s.More(c); !ended {
		t.Fatal("not ended")
	}
}

func TestStampIsNanosecondsInUTC(t *testing.T) {
	var s Stamp
	for _, ns := range []int64{0, 1, 1e9 - 1, 1e9, 1700000000123456789} {
		want := time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
		if got := string(s.Append(nil, ns)); got != want {
			t.Errorf("%d: %s, want %s", ns, got, want)
		}
	}
}

func TestPlatformLinesAreJSONThatGivesTheBytesBack(t *testing.T) {
	var out bytes.Buffer
	p := NewPlatform(&out)
	for _, line := range []string{"plain", `quo"te\`, "tab\t\x00\x1f\r", "ümläut €", "\xff\xfe", ""} {
		out.Reset()
		p.Add(1700000000123456789, 3, []byte(line), true)
		p.Drain(time.Second)
		var got struct {
			Message    *string
			Base64     string
			Time       time.Time
			Sockerless struct {
				Run     int
				Partial bool
			}
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%q: %v", out.String(), err)
		}
		raw, _ := base64.StdEncoding.DecodeString(got.Base64)
		if got.Message != nil {
			raw = []byte(*got.Message)
		}
		if string(raw) != line || got.Sockerless.Run != 3 || !got.Sockerless.Partial || got.Time.UnixNano() != 1700000000123456789 {
			t.Errorf("%q gave %s", line, out.String())
		}
	}
}

func TestAStuckPlatformDropsLinesInsteadOfHoldingTheProcess(t *testing.T) {
	r, w := io.Pipe() // nobody reads
	p := NewPlatform(w)
	line := bytes.Repeat([]byte("x"), 10_000)
	begin := time.Now()
	for range 2000 {
		p.Add(1, 1, line, false)
		p.Flush()
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Fatalf("held up for %v", took)
	}
	r.Close() // EPIPE: what is left is dropped, and the next lines too
	p.Drain(5 * time.Second)
	p.Add(1, 1, line, false)
	p.Drain(5 * time.Second)
}

func BenchmarkCapture(b *testing.B) {
	s, p, cut := New(b.TempDir()), NewPlatform(io.Discard), Splitter{Kind: 1}
	s.Begin(64 << 20)
	chunk := bytes.Repeat(append(bytes.Repeat([]byte("x"), 99), '\n'), 1300)
	b.SetBytes(int64(len(chunk)))
	at := int64(0)
	for b.Loop() {
		cut.Feed(chunk, func(line []byte, partial bool) {
			at++
			s.Add(at, 1, line, partial)
			p.Add(at, 1, line, partial)
		})
		s.Flush()
		p.Flush()
	}
}
