package main

import (
	"strings"
	"testing"

	"sockerless/agent/internal/websocket"
)

func given(t *testing.T, callback string) []*websocket.Gateway {
	t.Helper()
	found, err := websocket.ParseGateways(callback, "")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// dials are the next n places, each dialled in vain, by the letter of their host.
func dials(t *testing.T, p *places, n int) string {
	t.Helper()
	order := []string{}
	for range n {
		g := p.next()
		p.dialled(g, false)
		for _, name := range []string{"a", "b", "c", "d"} {
			if g.Same(given(t, "http://" + name)[0]) {
				order = append(order, name)
			}
		}
	}
	return strings.Join(order, "")
}

func TestAnAgentThatWasNeverWelcomeTriesAllThatItWasGiven(t *testing.T) {
	p := &places{}
	p.give(given(t, "http://a http://b http://c http://b"), "t")
	if got := dials(t, p, 7); got != "abacaba" {
		t.Fatal(got)
	}
	alone := &places{}
	alone.give(given(t, "http://a"), "t")
	if got := dials(t, alone, 4); got != "aaaa" {
		t.Fatal(got)
	}
}

func TestTheGatewayThatHadTheLinkIsDialledTwiceAndWhatRelaysToldComesFirst(t *testing.T) {
	p := &places{}
	p.give(given(t, "http://a http://b"), "t")
	p.dialled(p.next(), true)
	p.welcome()
	p.tell([]string{"http://c", "http://a", "http://b"})
	if got := dials(t, p, 8); got != "aacabaca" {
		t.Fatal(got)
	}
}

func TestAnotherListWithTheSameFirstGatewayChangesNothingButTheRest(t *testing.T) {
	p := &places{}
	p.give(given(t, "http://a http://b"), "t")
	b := given(t, "http://b")[0]
	p.dialled(b, true)
	p.welcome()
	if g := p.give(given(t, "http://a http://c"), "u"); !g.Same(b) {
		t.Fatal("it left the gateway that has its link")
	}
	if got := dials(t, p, 6); got != "bbabcb" {
		t.Fatal(got)
	}
	p.give(given(t, "http://d http://c"), "u")
	if got := dials(t, p, 3); got != "dcd" {
		t.Fatal(got)
	}
}
