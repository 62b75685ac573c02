package stream

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Refusal is Docker's error: the HTTP status and the message that clients see.
type Refusal struct {
	Status  int    `json:"status"`
	Message string `json:"message"`
}

func (e *Refusal) Error() string { return e.Message }

// Refuse builds a Refusal.
func Refuse(status int, format string, args ...any) error {
	return &Refusal{Status: status, Message: fmt.Sprintf(format, args...)}
}

// AsRefusal turns any error into a Refusal; those without a status are 500.
func AsRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Status: 500, Message: err.Error()}
}

// Resume is what an end says after a redial (with an id), or in answer to that.
type Resume struct {
	Received int64  `json:"received"`
	ID       string `json:"id,omitempty"`
	Answer   string `json:"answer,omitempty"`
}

// Control is a text message: an object with exactly one key.
type Control struct {
	EOF    bool            `json:"eof,omitempty"`
	Ack    *int64          `json:"ack,omitempty"`
	Resize *[2]int         `json:"resize,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Exit   *Exit           `json:"exit,omitempty"`
	Error  *Refusal        `json:"error,omitempty"`
	Resume *Resume         `json:"resume,omitempty"`
}

// Exit tells how a process ended.
type Exit struct {
	Code int `json:"code"`
}

func (c *Control) encode() []byte {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // nothing in Control can fail to encode
	}
	return text
}

func parseControl(text []byte) (*Control, error) {
	var keys map[string]json.RawMessage
	var c Control
	if err := json.Unmarshal(text, &keys); err != nil || len(keys) != 1 {
		return nil, errors.New("control message is not an object with one key")
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, err
	}
	if !c.EOF && c.Ack == nil && c.Resize == nil && c.Result == nil && c.Exit == nil && c.Error == nil && c.Resume == nil {
		return nil, errors.New("unknown control message")
	}
	return &c, nil
}
