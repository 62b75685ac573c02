package stream

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"testing"
)

const vectorsPath = "../../../../tests/contract/wire_vectors.json"

type vectors struct {
	Messages []struct {
		Name, Channel, Direction string
		Message                  json.RawMessage
	}
	Stdcopy []struct {
		Name, Stream string
		Payload      string `json:"payload_hex"`
		Frame        string `json:"frame_hex"`
	}
	Resume []struct {
		Name  string
		State struct {
			Waiting  string
			Received int64
			Held     [2]int64
			Sent     int64
			Marks    []struct {
				At      int64
				Control Control
			}
		}
		Receive  Control
		Answer   *Control
		Waiting  string
		SendFrom *int64 `json:"send_from"`
		Resend   []Control
		Close    int
	}
}

func load(t *testing.T) *vectors {
	text, err := os.ReadFile(vectorsPath)
	if err != nil {
		t.Fatal(err)
	}
	v := &vectors{}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
	return v
}

func plain(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestControlVectorsAreReadAndWrittenAsFrozen(t *testing.T) {
	checked := 0
	for _, m := range load(t).Messages {
		if m.Channel != "stream" {
			continue
		}
		checked++
		c, err := parseControl(m.Message)
		if err != nil {
			t.Errorf("%s: %v", m.Name, err)
		} else if got := plain(t, c.encode()); !reflect.DeepEqual(got, plain(t, m.Message)) {
			t.Errorf("%s: %v", m.Name, got)
		}
	}
	if checked == 0 {
		t.Fatal("no vectors")
	}
}

func TestControlsAgainstTheProtocolAreRefused(t *testing.T) {
	for _, text := range []string{`{}`, `[]`, `1`, `{"ack":1,"eof":true}`, `{"nonsense":1}`, `{"ack":"x"}`, `{"eof":false}`, ``} {
		if _, err := parseControl([]byte(text)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func TestStdcopyVectors(t *testing.T) {
	for _, v := range load(t).Stdcopy {
		payload, _ := hex.DecodeString(v.Payload)
		frame := append(make([]byte, HeaderSize), payload...)
		Header(frame, map[string]byte{"stdout": 1, "stderr": 2}[v.Stream], len(payload))
		if got := hex.EncodeToString(frame); got != v.Frame {
			t.Errorf("%s: %s", v.Name, got)
		}
	}
}

func TestResumeVectors(t *testing.T) {
	for _, v := range load(t).Resume {
		t.Run(v.Name, func(t *testing.T) {
			s := New("s", nil)
			s.waiting = v.State.Waiting
			s.in.base, s.in.end, s.acked = v.State.Received, v.State.Received, v.State.Received
			s.out.base, s.out.end = v.State.Held[0], v.State.Held[0]
			for s.out.end < v.State.Held[1] {
				s.out.room(1)[0] = byte(s.out.end)
				s.out.commit(1)
			}
			s.sent = v.State.Sent
			for _, m := range v.State.Marks {
				s.marks = append(s.marks, mark{at: m.At, text: m.Control.encode()})
			}
			s.nextMark = len(s.marks)
			err := s.resumed(v.Receive.Resume)
			if v.Close != 0 {
				if !errors.Is(err, errProtocol) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil || s.waiting != v.Waiting {
				t.Fatalf("error %v, waiting for %q", err, s.waiting)
			}
			if v.Answer != nil {
				if len(s.urgent) != 1 || !reflect.DeepEqual(plain(t, s.urgent[0]), plain(t, v.Answer.encode())) {
					t.Fatalf("answer %q", s.urgent)
				}
			} else if len(s.urgent) != 0 {
				t.Fatalf("answered %q", s.urgent)
			}
			from := v.State.Sent
			if v.SendFrom != nil {
				from = *v.SendFrom
			}
			if s.sent != from {
				t.Fatalf("sends from %d", s.sent)
			}
			if again := s.marks[s.nextMark:]; len(again) != len(v.Resend) {
				t.Fatalf("%d controls again", len(again))
			}
			if p := s.out.from(s.sent); s.sent < s.out.end && p[0] != byte(s.sent) {
				t.Fatalf("sends %d at %d", p[0], s.sent)
			}
		})
	}
}
