package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const recording = "../../testdata/traces/prosody-0.12.3.jsonl"

const story = `{"type":"config","host":"example.com"}
{"at":0,"type":"session-open","session":"s1","jid":"juliet@example.com/phone"}
{"at":10,"type":"push-enable","session":"s1","service":"push.example.net","node":"n1","options":{"secret":"hush"}}
{"at":1000,"type":"ack-delayed","session":"s1","queue":[{"id":"m1","xml":"<message from='romeo@example.net/orchard' to='juliet@example.com'><body>wherefore</body></message>"}]}
{"at":5000,"type":"hibernation-start","session":"s1","queue":{}}
`

// command runs pushreplay and returns its output.
func command(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = run(args, strings.NewReader(stdin), &out, &err)
	return status, out.String(), err.String()
}

func TestJSON(t *testing.T) {
	status, out, stderr := command(t, story, "-format", "json")
	require.Zero(t, status, stderr)
	assert.Equal(t, `{"kind":"registration","at":10,"user":"juliet@example.com","session":"s1","service":"push.example.net","node":"n1","change":"added","reason":"enabled","text":"enabled"}
{"kind":"decision","at":1000,"event":3,"type":"ack-delayed","user":"juliet@example.com","service":"push.example.net","node":"n1","notify":true,"class":"important","rule":"ack-delayed","reason":"unacknowledged","text":"stanza not acknowledged in time","stanzas":["m1"]}
{"kind":"publish","at":1000,"user":"juliet@example.com","service":"push.example.net","node":"n1","class":"important","count":1,"events":[3]}
{"kind":"decision","at":5000,"event":4,"type":"hibernation-start","user":"juliet@example.com","service":"push.example.net","node":"n1","notify":false,"class":"plain","rule":"hibernation","reason":"no-stanza","text":"no stanza"}
{"kind":"resume-timeout","at":5000,"user":"juliet@example.com","session":"s1","seconds":259200,"reason":"asleep","text":"asleep, can be woken by push"}
`, out)
}

func TestText(t *testing.T) {
	status, out, stderr := command(t, story)
	require.Zero(t, status, stderr)
	for _, want := range []string{
		"#3 ack-delayed juliet@example.com session s1 important message from romeo@example.net/orchard m1",
		"✓  notify push.example.net/n1: stanza not acknowledged in time  rule ack-delayed",
		"→  publish juliet@example.com push.example.net/n1: important, 1 stanza  for #3",
		"✗  not    push.example.net/n1: no stanza",
		"Summary  4 events on 1 account in 5s",
		"→ 1 publish: 0 urgent, 1 important, 0 plain",
	} {
		assert.Contains(t, out, want)
	}
	assert.NotContains(t, out, "wherefore", "text of a message")
	assert.NotContains(t, out, "hush", "secret")
	assert.NotContains(t, out, "\x1b", "colour without a terminal")
	_, out, _ = command(t, story, "-color", "always")
	assert.Contains(t, out, "\x1b[32m✓")
}

func TestBadLines(t *testing.T) {
	for name, tt := range map[string]struct{ line, want string }{
		"not JSON":        {`{"at":6000,`, "line 6: not a JSON object"},
		"unknown type":    {`{"at":6000,"type":"teatime"}`, "line 6: teatime: not a type of the trace format"},
		"no time":         {`{"type":"offline"}`, "line 6: at is missing"},
		"time falls":      {`{"at":4999,"type":"session-close","session":"s1"}`, "line 6: at is 4999, earlier than the line before (5000)"},
		"no user":         {`{"at":6000,"type":"offline","stanza":{"id":"m1"}}`, "line 6: offline: user is missing"},
		"unknown stanza":  {`{"at":6000,"type":"stanza-queued","session":"s1","stanza":{"id":"m9"}}`, `line 6: stanza-queued: stanza: no xml, and the ID "m9" was not seen before`},
		"bad stanza":      {`{"at":6000,"type":"stanza-queued","session":"s1","stanza":{"id":"m9","xml":"<message>"}}`, "line 6: stanza-queued: stanza: push: unusable stanza"},
		"late config":     {`{"type":"config"}`, "line 6: config has to be the first line"},
		"bad user":        {`{"at":6000,"type":"ping","user":"@"}`, "line 6: ping: user"},
		"bad options":     {`{"at":6000,"type":"push-enable","session":"s1","service":"p.example","options":[1]}`, "line 6: push-enable: options: not an object"},
		"missing service": {`{"at":6000,"type":"push-enable","session":"s1"}`, "line 6: push-enable: service is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, stderr := command(t, story+tt.line+"\n", "-format", "json")
			assert.Equal(t, 2, status)
			assert.Contains(t, stderr, tt.want)
			assert.Contains(t, out, `"kind":"publish","at":1000`, "what was decided before is printed")
		})
	}
}

func TestFilters(t *testing.T) {
	data, err := os.ReadFile(recording)
	require.NoError(t, err)
	status, out, _ := command(t, string(data), "-format", "json", "-user", "bob-call@localhost", "-since", "70s")
	require.Zero(t, status)
	n := 0
	for line := range strings.Lines(out) {
		var l struct {
			User string
			At   int64
		}
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		assert.Equal(t, "bob-call@localhost", l.User)
		assert.GreaterOrEqual(t, l.At, int64(73136))
		n++
	}
	assert.Greater(t, n, 10)
	status, out, _ = command(t, string(data), "-since", "99999")
	require.Zero(t, status)
	assert.NotContains(t, out, "#1 ")
	status, _, stderr := command(t, "", "-since", "noon")
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, "neither a duration")
}

func TestHostileNamesDoNotReachTheTerminal(t *testing.T) {
	status, out, stderr := command(t, `{"at":0,"type":"session-open","session":"s\u001b[31m","jid":"juliet@example.com/phone"}
{"at":1,"type":"push-enable","session":"s\u001b[31m","service":"push.example.net","node":"\u001b]0;owned\u0007\u202e"}
{"at":2,"type":"offline","user":"juliet@example.com","stanza":{"id":"\u001b[2J","xml":"<message from='romeo@example.net/&#x9b;31m' to='juliet@example.com'><body>x</body></message>"}}
`)
	if status != 0 { // a JID with a control character may be refused as well
		assert.Contains(t, stderr, "not a JID")
	}
	assert.NotContains(t, out, "\x1b")
	assert.NotContains(t, out, "\u202e")
	assert.NotContains(t, stderr, "\x1b")
}

func TestFiles(t *testing.T) {
	status, out, _ := command(t, "", recording)
	require.Zero(t, status)
	assert.Contains(t, out, "The recorded server pushed 34 times")
	status, _, stderr := command(t, "", "no-such-file.jsonl")
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, "no-such-file.jsonl")
	status, _, stderr = command(t, "", "-format", "xml")
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, "text or json")
}
