package main

import (
	"slices"
	"sync"

	"sockerless/agent/internal/websocket"
)

// triesBeforeMoving is how often the gateway that had the link is dialled in vain before another one is.
const triesBeforeMoving = 2

// placesMost bounds what a relay may tell of other gateways.
const placesMost = 16

// places are the gateways that the link may be dialled at: the one that the agent was given, and what relays have told.
type places struct {
	mu       sync.Mutex
	token    string
	home     *websocket.Gateway // given by the environment or an invocation
	given    []*websocket.Gateway // with it
	known    bool                 // one of them has welcomed the agent
	current  *websocket.Gateway // that had the link last
	wanted   *websocket.Gateway // named by a gateway that goes away
	others   []*websocket.Gateway
	failures int // dials without a welcome, since the last one
}

// give sets what the platform says: another first address begins anew, another token is used from the next dial on.
func (p *places) give(given []*websocket.Gateway, token string) *websocket.Gateway {
	home := given[0]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token, p.given = token, given[:min(len(given), placesMost)]
	if p.home == nil || !p.home.Same(home) {
		p.home, p.current, p.wanted, p.others, p.failures, p.known = home, home, nil, nil, 0, false
	}
	return p.current.With(token)
}

// next is where the link is dialled now.
func (p *places) next() *websocket.Gateway {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, tries := p.current, triesBeforeMoving
	if !p.known {
		tries = 1 // nothing of the agent is anywhere yet
	}
	if p.wanted != nil {
		g, p.wanted = p.wanted, nil
	} else if n := p.failures - tries; n >= 0 && n%2 == 0 {
		// The others in turn, between them the current one.
		if elsewhere := p.elsewhere(); len(elsewhere) > 0 {
			g = elsewhere[n/2%len(elsewhere)]
		}
	}
	return g.With(p.token)
}

// elsewhere are the places but the current one, each once: what relays have told, then what was given. p.mu is held.
func (p *places) elsewhere() []*websocket.Gateway {
	found := []*websocket.Gateway{}
	for _, list := range [][]*websocket.Gateway{p.others, p.given} {
		for _, g := range list {
			if !g.Same(p.current) && !slices.ContainsFunc(found, g.Same) {
				found = append(found, g)
			}
		}
	}
	return found
}

// dialled counts a dial; it becomes the current place when it has brought a connection.
func (p *places) dialled(g *websocket.Gateway, connected bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures++
	if connected {
		p.current = g
	}
}

// welcome: the current place is a good one.
func (p *places) welcome() {
	p.mu.Lock()
	p.failures, p.known = 0, true
	p.mu.Unlock()
}

// tell takes over the addresses of other gateways, prefer the one to dial next. What is not as well protected as the
// place that the agent was given is left out.
func (p *places) tell(urls []string) {
	others := []*websocket.Gateway{}
	for _, url := range urls[:min(len(urls), placesMost)] {
		if g := p.trusted(url); g != nil {
			others = append(others, g)
		}
	}
	p.mu.Lock()
	p.others = others
	p.mu.Unlock()
}

func (p *places) prefer(url string) {
	if g := p.trusted(url); g != nil {
		p.mu.Lock()
		p.wanted = g
		p.mu.Unlock()
	}
}

func (p *places) trusted(url string) *websocket.Gateway {
	g, err := websocket.ParseGateway(url, "")
	p.mu.Lock()
	defer p.mu.Unlock()
	if url == "" || err != nil || p.home == nil || (p.home.Secure() && !g.Secure()) {
		return nil
	}
	return g
}

// isToken tells whether text can be a token.
func isToken(text string) bool {
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(text) <= tokenMost
}

// renew takes over a token that came over the link.
func (a *Agent) renew(token string) {
	if token == "" || !isToken(token) {
		return
	}
	a.mu.Lock()
	a.token = token
	a.mu.Unlock()
	a.places.mu.Lock()
	a.places.token = token
	a.places.mu.Unlock()
	if g := a.gateway.Load(); g != nil {
		a.gateway.CompareAndSwap(g, g.With(token))
	}
}

// arrived: the link is welcome at a gateway. Streams and the spare socket of another one follow it, for there the peer's halves come.
func (a *Agent) arrived() {
	a.places.welcome()
	g := a.gateway.Load()
	a.linkMu.Lock()
	before := a.settled
	a.settled = g
	moved := before != nil && !before.Same(g)
	if moved && a.spare != nil {
		a.spare.Drop()
	}
	a.linkMu.Unlock()
	if !moved {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.streams {
		s.Move()
	}
}
