package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"math"
	"strings"
	"time"

	"sockerless/agent/internal/face"
	"sockerless/agent/internal/stream"
)

// invokeHeader is the header that shows the key.
const invokeHeader = "X-Sockerless-Invoke"

// invocation is what a request wants of the agent: section 8 of the wire protocol.
type invocation struct {
	Container string  `json:"container"`
	Run       int     `json:"run"`
	Hold      bool    `json:"hold"`
	Limit     float64 `json:"limit_seconds"`
	Callback  string  `json:"callback"`
	Token     string  `json:"token"`
}

// functionsCall is an invocation as the Azure Functions host hands it to a custom handler.
type functionsCall struct {
	Data *struct {
		Req struct {
			Body    json.RawMessage            `json:"Body"`
			Headers map[string]json.RawMessage `json:"Headers"`
		} `json:"req"`
	} `json:"Data"`
	Metadata json.RawMessage `json:"Metadata"`
}

// invocationKey is what invocations must show. Its hash is kept, so that comparing takes the same time for every length.
type invocationKey [sha256.Size]byte

func (k *invocationKey) shown(text string) bool {
	sum := sha256.Sum256([]byte(text))
	return text != "" && subtle.ConstantTimeCompare(sum[:], k[:]) == 1
}

// readInvocation reads a request's invocation, when it shows the key. Custom handlers are answered in a form of their own.
func (k *invocationKey) readInvocation(q *face.Request) (i *invocation, custom bool, err error) {
	shown, text := k.shown(q.Header(strings.ToLower(invokeHeader))), q.Body
	var call functionsCall
	if json.Unmarshal(text, &call) == nil && call.Data != nil && call.Metadata != nil {
		custom, text = true, call.Data.Req.Body
		for name, value := range call.Data.Req.Headers {
			shown = shown || strings.EqualFold(name, invokeHeader) && k.shown(headerValue(value))
		}
		var inner string
		if json.Unmarshal(text, &inner) == nil {
			text = []byte(inner)
		}
	}
	if !shown {
		return nil, custom, stream.Refuse(403, "the header %s does not show the key of this instance", invokeHeader)
	}
	i = &invocation{}
	if err := json.Unmarshal(text, i); err != nil {
		return nil, custom, stream.Refuse(400, "the invocation is not understood: %s", short(err.Error()))
	}
	return i, custom, i.check()
}

// headerValue is a header of the Functions host's: a text, or a list of one.
func headerValue(value json.RawMessage) string {
	var text string
	var list []string
	if json.Unmarshal(value, &list) == nil && len(list) == 1 {
		return list[0]
	}
	json.Unmarshal(value, &text)
	return text
}

const (
	identityMost = 128
	tokenMost    = 8 << 10
	limitMost    = float64(math.MaxInt64 / int64(time.Second) / 2)
)

func (i *invocation) check() error {
	switch {
	case !isIdentity(i.Container):
		return stream.Refuse(400, "the invocation names no container")
	case i.Run < 0:
		return stream.Refuse(400, "the invocation's run is not a number from 0")
	case i.Limit < 0 || i.Limit > limitMost:
		return stream.Refuse(400, "the invocation's limit_seconds is out of range")
	case !isToken(i.Token):
		return stream.Refuse(400, "the invocation's token is none")
	}
	return nil
}

// isIdentity tells whether text can be a container's id.
func isIdentity(text string) bool {
	return text != "" && len(text) <= identityMost && !strings.ContainsFunc(text, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-')
	})
}

// customAnswer is an answer in the form that the Functions host wants of its custom handlers.
func customAnswer(a face.Answer) face.Answer {
	a.Body = message{"Outputs": message{"res": message{"statusCode": a.Status, "body": a.Body}}, "Logs": nil, "ReturnValue": nil}
	a.Status = 200
	return a
}
