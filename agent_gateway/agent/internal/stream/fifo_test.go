package stream

import (
	"math/rand/v2"
	"testing"
)

// TestFifoGivesBackWhatWasPutIn over many blocks, with drops at random places.
func TestFifoGivesBackWhatWasPutIn(t *testing.T) {
	var f fifo
	rng := rand.New(rand.NewPCG(1, 2))
	at := func(pos int64) byte { return byte(pos * 31 >> 3) }
	for f.end < 5<<20 {
		space := f.room(1 + rng.IntN(4<<10))
		n := rng.IntN(len(space) + 1)
		for i := range n {
			space[i] = at(f.end + int64(i))
		}
		f.commit(n)
		for pos := f.base; pos < f.end; {
			p := f.from(pos)
			if len(p) == 0 || p[0] != at(pos) || p[len(p)-1] != at(pos+int64(len(p))-1) {
				t.Fatalf("wrong bytes at %d", pos)
			}
			pos += int64(len(p))
		}
		f.drop(f.base+rng.Int64N(f.end-f.base+1), rng.IntN(2) == 0)
	}
	if f.from(f.end) != nil || f.from(f.base-1) != nil && f.base == 0 {
		t.Fatal("bytes outside")
	}
	f.drop(f.end, false)
	if len(f.spans) != 0 {
		t.Fatal("blocks are kept when all is dropped")
	}
}
