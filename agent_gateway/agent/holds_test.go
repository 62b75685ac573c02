package main

import (
	"encoding/json"
	"testing"
	"time"
)

// function is an agent of mode function that holds one invocation.
func function(limit float64) (*Agent, *held) {
	a := newAgent(time.Second)
	a.holds = newHolds(a, modeFunction)
	return a, a.holds.add(&invocation{Container: "c0ffee", Hold: true, Limit: limit})
}

// answered has the held invocation written, as its handler does, and returns whether it was released.
func answered(t *testing.T, one *held) bool {
	t.Helper()
	select {
	case released := <-one.answer:
		close(one.sent)
		return released
	case <-time.After(5 * time.Second):
		t.Fatal("not answered")
		return false
	}
}

func lastEvent(t *testing.T, a *Agent, seq int64) (m map[string]any) {
	t.Helper()
	for range 500 {
		if a.events.last() >= seq {
			a.events.mu.Lock()
			defer a.events.mu.Unlock()
			json.Unmarshal(a.events.queue[seq-1], &m)
			return m
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no event")
	return nil
}

func begin(a *Agent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holds.begun()
}

func TestARunInAnOldInvocationGetsAWholeLimit(t *testing.T) {
	a, one := function(3600)
	a.holds.arrived = time.Now().Add(-freshFor - time.Second)
	a.holds.deadline = time.Now().Add(time.Second)
	begin(a)
	if !answered(t, one) || a.holds.any() {
		t.Fatal("not released")
	}
	if m := lastEvent(t, a, 1); m["type"] != "released" || m["run"] != 0. {
		t.Fatal(m)
	}
	if left := time.Until(a.holds.deadline); left < 3500*time.Second {
		t.Fatal(left)
	}
}

func TestARunKeepsTheInvocationThatBroughtIt(t *testing.T) {
	a, _ := function(3600)
	deadline := a.holds.deadline
	begin(a)
	if !a.holds.any() || a.holds.deadline != deadline {
		t.Fatal("released")
	}
}

func TestTheAnswerGoesOutBeforeTheEvent(t *testing.T) {
	a, one := function(0)
	go a.holds.expire()
	released := <-one.answer
	time.Sleep(20 * time.Millisecond)
	if !released || a.events.last() != 0 {
		t.Fatal("the platform still holds the instance")
	}
	close(one.sent)
	lastEvent(t, a, 1)
}

func TestAnAgentThatHasEndedAnswersAtOnce(t *testing.T) {
	a, one := function(0)
	go a.holds.end()
	if answered(t, one) || answered(t, a.holds.add(&invocation{Hold: true})) {
		t.Fatal("released")
	}
	a.holds.broken(one) // too late to matter
	if a.events.last() != 0 {
		t.Fatal("an event")
	}
}

func TestLimitsCountFromTheNewestInvocation(t *testing.T) {
	a, _ := function(0.01)
	a.holds.add(&invocation{Limit: 3600})
	time.Sleep(30 * time.Millisecond)
	if text, yes := a.holds.overdue(); yes || text != "the run limit of 3600 seconds was reached" || !a.holds.any() {
		t.Fatal(text, yes)
	}
	a.holds.add(&invocation{})
	if !a.holds.deadline.IsZero() {
		t.Fatal("an invocation without a limit has one")
	}
}
