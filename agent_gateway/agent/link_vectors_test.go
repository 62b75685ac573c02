package main

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"sort"
	"testing"
	"time"

	"sockerless/agent/internal/stream"
)

type linkVector struct {
	Name, Channel, Direction string
	Message                  json.RawMessage
}

func linkVectors(t *testing.T, direction string) (list []linkVector) {
	text, err := os.ReadFile("../../tests/contract/wire_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Messages []linkVector }
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, m := range all.Messages {
		if m.Channel == "link" && m.Direction == direction {
			list = append(list, m)
		}
	}
	if len(list) == 0 {
		t.Fatal("no vectors")
	}
	return list
}

// TestMessagesOfTheRelayAreUnderstood: every type is known, every key of a spec and of parameters has its place.
func TestMessagesOfTheRelayAreUnderstood(t *testing.T) {
	known := map[string]bool{"welcome": true, "open": true, "call": true, "ack": true, "drain": true, "pong": true, "gateways": true, "token": true}
	kinds := map[string]any{"attach": &attachParams{}, "exec": &execParams{}, "logs": &logsParams{}, "archive_get": &archiveParams{},
		"archive_put": &archiveParams{}, "dial": &dialParams{}}
	for _, v := range linkVectors(t, "relay_to_agent") {
		var m fromRelay
		if err := json.Unmarshal(v.Message, &m); err != nil || !known[m.Type] {
			t.Errorf("%s: %v", v.Name, err)
		}
		if m.Kind != "" {
			strictly(t, v.Name, m.Params, kinds[m.Kind])
		}
		var whole struct{ Spec json.RawMessage }
		json.Unmarshal(v.Message, &whole)
		if whole.Spec != nil {
			strictly(t, v.Name, whole.Spec, &LaunchSpec{})
		}
	}
}

// strictly decodes text into v and wants every key of text back.
func strictly(t *testing.T, name string, text json.RawMessage, v any) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	back, _ := json.Marshal(v)
	var want, got map[string]any
	json.Unmarshal(text, &want)
	json.Unmarshal(back, &got)
	for key, value := range want {
		if list, ok := value.([]any); ok && len(list) > 0 {
			if _, isObject := list[0].(map[string]any); isObject {
				continue
			}
		}
		if !reflect.DeepEqual(got[key], value) {
			t.Errorf("%s: %s came back as %v, not %v", name, key, got[key], value)
		}
	}
}

// TestMessagesOfTheAgentHaveTheFrozenKeys builds each message as the agent does.
func TestMessagesOfTheAgentHaveTheFrozenKeys(t *testing.T) {
	a := newAgent(time.Second)
	f := newAgent(time.Second)
	f.holds = newHolds(f, modeFunction)
	made := map[string]message{
		"hello":        a.hello(),
		"started":      {"type": "started", "run": 1, "pid": 7, "at": ""},
		"failed":       {"type": "failed", "run": 1, "code": 127, "message": "", "at": ""},
		"exited":       {"type": "exited", "run": 1, "code": 0, "oom": false, "at": ""},
		"released":     {"type": "released", "run": 1, "at": ""},
		"exec_started": {"type": "exec_started", "exec": "", "pid": 1, "at": ""},
		"exec_exited":  {"type": "exec_exited", "exec": "", "code": 0, "at": ""},
		"health":       {"type": "health", "run": 1, "status": "", "failing_streak": 0, "log": nil},
		"ping":         {"type": "ping"},
	}
	for name, m := range made {
		if name != "hello" && name != "ping" {
			a.events.add(m)
		}
	}
	for _, v := range linkVectors(t, "agent_to_relay") {
		var want map[string]any
		json.Unmarshal(v.Message, &want)
		m, ok := made[want["type"].(string)]
		if want["type"] == "result" {
			continue // it has one of two shapes, which the contract tests see
		}
		if want["held"] != nil {
			m = f.hello()
		}
		if want["error"] != nil {
			m = maps.Clone(m)
			m["error"] = ""
		}
		if !ok || !reflect.DeepEqual(keys(m), keys(want)) {
			t.Errorf("%s: %v, want %v", v.Name, keys(m), keys(want))
		}
	}
}

func keys(m map[string]any) (list []string) {
	for k := range m {
		list = append(list, k)
	}
	sort.Strings(list)
	return list
}

func TestEventsAreKeptUntilAcknowledged(t *testing.T) {
	e := newEvents()
	for range 3 {
		e.add(message{"type": "x"})
	}
	e.ack(2)
	e.ack(1)  // late and repeated ones change nothing
	e.ack(99) // more than there are
	if len(e.queue) != 0 || e.acked != 3 {
		t.Fatalf("%d kept, %d acknowledged", len(e.queue), e.acked)
	}
	begin := time.Now()
	e.wait(3, func() time.Duration { return time.Minute })
	if time.Since(begin) > time.Second {
		t.Fatal("waited for what was acknowledged")
	}
}

func TestDetachKeys(t *testing.T) {
	for text, want := range map[string]string{"": "\x10\x11", "ctrl-a,a": "\x01a", "ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_": "\x00\x1b\x1c\x1d\x1e\x1f", "DEL": "\x7f"} {
		if got, err := detachKeys(text); err != nil || string(got) != want {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
	for _, text := range []string{"ctrl-", "ctrl-A", "abc", "a,,b"} {
		if _, err := detachKeys(text); stream.AsRefusal(err).Status != 400 {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestEscapeHoldsKeysBackUntilTheyAreCertain(t *testing.T) {
	for _, c := range []struct {
		in      []string
		out     string
		escaped bool
	}{
		{[]string{"abc"}, "abc", false},
		{[]string{"a\x10", "\x11b"}, "a", true},
		{[]string{"\x10x"}, "\x10x", false},
		{[]string{"\x10", "\x10", "\x11"}, "\x10", true},
	} {
		e, out, escaped := escape{keys: []byte("\x10\x11")}, "", false
		for _, p := range c.in {
			var o []byte
			o, escaped = e.pass([]byte(p))
			out += string(o)
		}
		if out != c.out || escaped != c.escaped {
			t.Errorf("%q: %q %v", c.in, out, escaped)
		}
	}
}
