package stream

import "testing"

// An end that took the peer's question as its answer gets the answer to its own question late: the peer has then gone back
// a second time, to the offset named in that question.
func TestLateAnswerMakesKnownBytesSkipped(t *testing.T) {
	s := New("s", nil)
	s.in.base, s.in.end, s.acked = 100, 100, 100
	s.mu.Lock()
	s.waiting = "mine"
	s.ask()
	s.mu.Unlock()
	if err := s.resumed(&Resume{Received: 0, ID: "theirs"}); err != nil {
		t.Fatal(err)
	}
	s.in.base, s.in.end = 150, 150 // the peer's bytes since
	if err := s.resumed(&Resume{Received: 0, Answer: "mine"}); err != nil {
		t.Fatal(err)
	}
	if s.skip != 50 {
		t.Fatalf("skips %d bytes, not the 50 that come again", s.skip)
	}
	if err := s.resumed(&Resume{Received: 0, ID: "another"}); err != nil {
		t.Fatal(err)
	}
	if s.skip != 0 {
		t.Fatalf("still skips %d bytes after another resume", s.skip)
	}
}

func TestAnswerToAnUnknownQuestionIsIgnored(t *testing.T) {
	s := New("s", nil)
	s.in.base, s.in.end = 100, 100
	if err := s.resumed(&Resume{Received: 7, Answer: "never asked"}); err != nil || s.skip != 0 || len(s.urgent) != 0 {
		t.Fatalf("error %v, skips %d, said %q", err, s.skip, s.urgent)
	}
}
