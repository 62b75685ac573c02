// Package backoff spaces out redials: at once, then 50 ms doubling to 5 s, with jitter.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	first   = 50 * time.Millisecond
	longest = 5 * time.Second
)

// Backoff is the state of one series of attempts. The zero value is ready.
type Backoff struct{ next time.Duration }

// Sleep waits for the next delay, or until ctx ends.
func (b *Backoff) Sleep(ctx context.Context) {
	b.next = min(max(first, 2*b.next), longest)
	t := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
