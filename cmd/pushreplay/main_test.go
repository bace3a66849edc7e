package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/trace"
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

// recorded makes a recording of a small story: a message to a sleeping phone, a call that its push service refuses, nobody to tell.
func recorded(t *testing.T, compress bool) (dir string) {
	t.Helper()
	dir = t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := trace.RecorderConfig{Dir: dir, Compress: compress, MaxBytes: 900}
		rec, err := trace.NewRecorder(cfg)
		require.NoError(t, err)
		var fail atomic.Bool
		e, err := push.New(push.Config{Host: "example.com", Observer: rec.Observer(), Policy: push.Policy{Delay: 3 * time.Second}, Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error {
			time.Sleep(30 * time.Millisecond)
			if fail.Load() {
				return &push.ReplyError{Type: "cancel", Condition: "item-not-found"}
			}
			return nil
		})})
		require.NoError(t, err)
		s := push.SessionID{Account: "juliet@example.com", ID: "c2s-1"}
		st := func(id string, class push.Class) push.Stanza {
			return push.Stanza{ID: id, From: "romeo@example.net", To: s.Account, Class: class, Body: "hush"}
		}
		raise := func(evs ...push.Event) {
			for _, ev := range evs {
				_, err := e.Handle(t.Context(), ev)
				require.NoError(t, err)
				time.Sleep(time.Minute)
			}
		}
		raise(push.SessionOpen{Session: s, JID: s.Account + "/phone"}, push.PushEnable{Session: s, Key: push.Key{Service: "push.example.net", Node: "n1"}},
			push.HibernationStart{Session: s}, push.StanzaQueued{Session: s, Stanza: st("m1", push.ClassImportant)})
		fail.Store(true)
		raise(push.ArchiveAdded{Account: s.Account, Stanza: st("call", push.ClassUrgent)}, push.PushDisable{Session: s, Key: push.Key{Service: "push.example.net", Node: "n1"}},
			push.Offline{Account: s.Account, Stanza: st("m2", push.ClassImportant)})
		require.NoError(t, e.Close(t.Context()))
		require.NoError(t, rec.Close())
	})
	return dir
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	fs, err := filepath.Glob(filepath.Join(dir, "push-*"))
	require.NoError(t, err)
	require.Greater(t, len(fs), 1, "several files")
	slices.Reverse(fs) // their order is not to matter
	return fs
}

func TestRecording(t *testing.T) {
	for _, compress := range []bool{false, true} {
		fs := files(t, recorded(t, compress))
		status, out, stderr := command(t, "", fs...)
		require.Zero(t, status, stderr)
		assert.Contains(t, out, "Everything is decided and sent as it was recorded.")
		assert.Contains(t, out, "Summary  7 events on 1 account")

		_, out, _ = command(t, "", append([]string{"-why", "m1"}, fs...)...)
		assert.Contains(t, out, "message of juliet@example.com from romeo@example.net")
		assert.Contains(t, out, "alert accepted: The push service accepted the notification for phone at 00:03:")
		_, out, _ = command(t, "", append([]string{"-why", "call"}, fs...)...)
		assert.Contains(t, out, "failed: The push service says that phone is gone (cancel/item-not-found).")
		_, out, _ = command(t, "", append([]string{"-why", "m2"}, fs...)...)
		assert.Contains(t, out, "nobody to tell: Nobody was told: no device of juliet@example.com had notifications switched on at 00:06:00 UTC; phone switched them off at 00:05:00 UTC.")
		status, _, _ = command(t, "", append([]string{"-why", "m9"}, fs...)...)
		assert.Equal(t, 1, status)

		_, out, _ = command(t, "", append([]string{"-trouble"}, fs...)...)
		assert.Contains(t, out, "item-not-found")
		assert.Contains(t, out, "disabled juliet@example.com push.example.net/n1: errors", "the registration was given up")
		assert.NotContains(t, out, "session-open")
		_, out, _ = command(t, "", append([]string{"-since", "00:03", "-until", "00:04", "-format", "json"}, fs...)...)
		assert.Contains(t, out, `"stanzas":["m1"]`)
		assert.NotContains(t, out, `"call"`)
		_, out, _ = command(t, "", append([]string{"-since", "01:03", "-until", "01:04", "-zone", "Europe/Berlin", "-device", "push.example.net/n1"}, fs...)...)
		assert.Contains(t, out, "stanza-queued")
		assert.NotContains(t, out, "session-open")
	}
}

// That nobody is told of a message that somebody without notifications wrote is no trouble; that nobody is told of one to them is.
func TestTroubleIsNotOnesOwnMessage(t *testing.T) {
	in := `{"at":0,"type":"archive-added","user":"juliet@example.com","stanza":{"id":"own","xml":"<message from='juliet@example.com/a' to='romeo@example.net'><body>x</body></message>"}}
{"at":1000,"type":"archive-added","user":"juliet@example.com","stanza":{"id":"theirs","xml":"<message from='romeo@example.net' to='juliet@example.com'><body>x</body></message>"}}
{"at":2000,"type":"offline","user":"juliet@example.com","stanza":{"id":"own"}}
`
	status, out, stderr := command(t, in, "-trouble")
	require.Zero(t, status, stderr)
	assert.Equal(t, 2, strings.Count(out, "nobody: no registration"), out)
	assert.NotContains(t, out, "#1 ", out)
	_, out, _ = command(t, in)
	assert.Contains(t, out, "#1 ")
}

// A file that was torn off in the middle, compressed or not, alone or before others, is read as far as it goes.
func TestTornFiles(t *testing.T) {
	for _, compress := range []bool{false, true} {
		fs := files(t, recorded(t, compress))
		slices.Sort(fs)
		for i, f := range fs[:2] {
			data, err := os.ReadFile(f)
			require.NoError(t, err)
			torn := filepath.Join(t.TempDir(), "torn")
			require.NoError(t, os.WriteFile(torn, data[:len(data)-40], 0o600))
			names := slices.Clone(fs)
			names[i] = torn
			status, out, stderr := command(t, "", names...)
			assert.Less(t, status, 2, stderr)
			assert.Contains(t, out, "offline juliet@example.com", "what comes after it is read")
			status, _, stderr = command(t, "", torn)
			assert.Less(t, status, 2, stderr)
			if !compress {
				all, err := exec.Command("cat", append([]string{torn}, fs[i+1:]...)...).Output()
				require.NoError(t, err)
				status, out, stderr = command(t, string(all))
				assert.Less(t, status, 2, stderr)
				assert.Contains(t, out, "offline juliet@example.com")
				assert.Contains(t, stderr, "1 line ends in the middle and was left out")
			}
		}
	}
}

// A recording of a server that decides otherwise is told apart.
func TestDifference(t *testing.T) {
	fs := files(t, recorded(t, false))
	for _, f := range fs {
		data, err := os.ReadFile(f)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(f, bytes.ReplaceAll(data, []byte(`"notify":true,"class":"urgent","rule":"urgent","reason":"call"`), []byte(`"class":"urgent","rule":"csi","reason":"held-back"`)), 0o600))
	}
	status, out, _ := command(t, "", append([]string{"-trouble"}, fs...)...)
	assert.Equal(t, 1, status)
	assert.Contains(t, out, "differs from the recorded decision: push.example.net/n1 notify urgent of 1: call (urgent), recorded was push.example.net/n1 no: held-back (csi)")
}

func TestPolicyThatIsNotKnown(t *testing.T) {
	status, _, stderr := command(t, `{"type":"config","policy":{"delay_ms":10,"dely_ms":10}}`+"\n")
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, `policy has no "dely_ms"`)
}

// The pages over a recording are those that the server showed.
func TestServe(t *testing.T) {
	fs := files(t, recorded(t, true))
	in, _, err := openAll(fs, nil)
	require.NoError(t, err)
	defer in.Close()
	var stderr bytes.Buffer
	w, err := readAll(in, &stderr)
	require.NoError(t, err)
	assert.Empty(t, stderr.String())
	pages, err := w.pages()
	require.NoError(t, err)
	get := func(path string) string {
		r := httptest.NewRequest("GET", "http://localhost/"+path, nil)
		r.RemoteAddr = "127.0.0.1:1"
		rec := httptest.NewRecorder()
		pages.ServeHTTP(rec, r)
		return rec.Body.String()
	}
	assert.Contains(t, get(""), "push.example.net")
	for _, path := range []string{"service?name=push.example.net", "services", "accounts", "devices", "session?jid=juliet@example.com&id=c2s-1"} {
		assert.Contains(t, get(path), "</html>")
	}
	page := get("account?jid=juliet@example.com")
	assert.Contains(t, page, "alert accepted")
	assert.Contains(t, page, "nobody to tell")
	assert.NotContains(t, page, "Switch off", "nothing can be done to a recording")
	assert.NotContains(t, page, "hush")
}

// A recording may begin at any time: the real Prosody's begins at 0, and others before it.
func TestServeAnyTime(t *testing.T) {
	data, err := os.ReadFile(recording)
	require.NoError(t, err)
	before := `{"at":-9000000,"type":"session-open","session":"s1","jid":"juliet@example.com/phone"}
{"at":-8999000,"type":"push-enable","session":"s1","service":"push.example.net","node":"n1"}
{"at":-8000000,"type":"offline","user":"juliet@example.com","stanza":{"id":"m1","xml":"<message from='romeo@example.net' to='juliet@example.com'><body>x</body></message>"}}
`
	for account, text := range map[string]string{"bob-call@localhost": string(data), "juliet@example.com": before} {
		w, err := readAll(strings.NewReader(text), &bytes.Buffer{})
		require.NoError(t, err)
		pages, err := w.pages()
		require.NoError(t, err)
		for _, path := range []string{"", "account?jid=" + account, "services", "accounts", "service?name=push.example.net", "service?name=push.localhost"} {
			r := httptest.NewRequest("GET", "http://localhost/"+path, nil)
			r.RemoteAddr = "127.0.0.1:1"
			rec := httptest.NewRecorder()
			pages.ServeHTTP(rec, r)
			assert.Contains(t, rec.Body.String(), "</html>", path)
			if strings.HasPrefix(path, "account?") {
				assert.Contains(t, rec.Body.String(), "accepted", path)
			}
		}
	}
}
