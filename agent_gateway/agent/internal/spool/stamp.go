package spool

import "time"

// Stamp formats times as RFC 3339 with nine digits of nanoseconds, in UTC: what `docker logs -t` prints. It remembers the second.
type Stamp struct {
	second int64
	text   []byte
}

// StampLen is the length of a formatted time.
const StampLen = len("2006-01-02T15:04:05.000000000Z")

// Append appends the time ns (nanoseconds since 1970) to b.
func (s *Stamp) Append(b []byte, ns int64) []byte {
	second, rest := ns/1e9, ns%1e9
	if s.text == nil || second != s.second {
		s.second = second
		s.text = time.Unix(second, 0).UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05.")
	}
	b = append(b, s.text...)
	b = append(b, "000000000Z"...)
	for i := len(b) - 2; rest > 0; i-- {
		b[i] = byte('0' + rest%10)
		rest /= 10
	}
	return b
}
