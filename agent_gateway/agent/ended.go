package main

// endedMost is how many ids of ended streams are remembered.
const endedMost = 2048

// endedStreams are the ids of streams that are over: a ticket that is shown again, to whichever relay, opens none of them
// a second time. Guarded by Agent.mu.
type endedStreams struct {
	known map[string]bool
	order []string
}

func (e *endedStreams) add(id string) {
	if e.known == nil {
		e.known = map[string]bool{}
	}
	if e.known[id] {
		return
	}
	if len(e.order) == endedMost {
		delete(e.known, e.order[0])
		e.order = e.order[1:]
	}
	e.known[id] = true
	e.order = append(e.order, id)
}
