package push_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/trace"
	"github.com/xmpp-push/push/wishes"
)

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) Close() error { return nil }

// TestSecrets keeps an Engine busy and searches whatever it says for what it must not: the secrets of registrations, and the text of messages.
func TestSecrets(t *testing.T) {
	const secret, text = "tiger-lily-42", "parting is such sweet sorrow"
	keys := newWebKeys(t)
	encrypting := &wishes.Wishes{Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret(secret + "!!!")}}
	carrying := &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("https://push.example.net/" + secret), Matches: []wishes.Match{{Send: &wishes.WebPush{
		Public: keys.public, Auth: wishes.NewSecret(secret + "!!!"), TokenKey: wishes.NewSecret(string(keys.signer)),
	}}}}}
	var said, recorded, full lockedBuffer
	published, sealed, archived := 0, 0, 0
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex
		publisher := PublisherFunc(func(ctx context.Context, n *Notification) error {
			mu.Lock()
			defer mu.Unlock()
			iq := string(n.AppendStanza(nil, "example.com", "i"))
			if len(n.Carried) > 0 {
				sealed++
				if n.Carried[len(n.Carried)-1].Archive != "" {
					archived++
				}
				if strings.Contains(iq, text) || strings.Contains(iq, "thread-of-gold") {
					t.Errorf("published in the clear: %s", iq)
				}
			}
			if strings.Contains(iq, secret) && (strings.Contains(iq, text) || n.Class == ClassPlain) {
				published++
			}
			switch rand.IntN(8) {
			case 0:
				return errors.New("no route")
			case 1:
				return &ReplyError{"wait", "resource-constraint"}
			case 2:
				return &ReplyError{"cancel", "internal-server-error"}
			case 3:
				return &ReplyError{"modify", "payload-too-big"}
			case 4:
				return &ReplyError{strings.Repeat("x", 100), "hostile\n" + strings.Repeat("y", 1000)}
			case 5:
				if rand.IntN(4) == 0 {
					return &ReplyError{"cancel", "item-not-found"}
				}
			}
			return nil
		})
		observer := &Observer{ // all but the events and notifications, which are what the host itself said, and the registrations
			Decided: func(_ uint64, _ time.Time, ev Event, d *Decision, _ time.Duration) {
				fmt.Fprintf(&said, "%s %+v\n", ev.Name(), *d)
				if ev, ok := ev.(PushEnable); ok {
					fmt.Fprintf(&said, "%+v %#v\n", ev.Wishes, ev.Wishes)
				}
			},
			Affected: func(account string, _ time.Time, e *Effects) { fmt.Fprintf(&said, "%s %+v\n", account, *e) },
			Sent:     func(_ time.Time, n *Notification) { fmt.Fprintln(&said, n.Account, n.Key, n.Class, n.Count, n.Events) },
			Replied: func(_ time.Time, n *Notification, reply Reply, res Result, _ time.Duration) {
				fmt.Fprintf(&said, "%+v %+v\n", reply, res)
			},
		}
		policy := Policy{IncludeBody: true, IncludeSender: true, RetryDisabled: time.Hour}
		config := trace.RecorderConfig{Create: func(string) (io.WriteCloser, error) { return &recorded, nil }}
		careful, err := trace.NewRecorder(config)
		require.NoError(t, err)
		config.Bodies, config.Options, config.Create = true, true, func(string) (io.WriteCloser, error) { return &full, nil }
		open, err := trace.NewRecorder(config)
		require.NoError(t, err)
		e := newEngine(t, Config{
			Publisher: publisher, Policy: policy, Store: faultyStore{NewMemoryStore(), 0.02}, Observer: Observers(observer, careful.Observer(), open.Observer()),
			Logger:     slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true})),
			Resumption: resumption(func(s SessionID, d time.Duration, r Reason) { fmt.Fprintln(&said, s, d, r) }),
		})
		for i := range 3000 {
			account := fmt.Sprintf("user%d@example.com", r.IntN(10))
			s := SessionID{account, fmt.Sprintf("s%d", r.IntN(2))}
			k := Key{Service: fmt.Sprintf("push%d.example.net", r.IntN(2)), Node: fmt.Sprint("n", r.IntN(4))}
			st, err := ParseStanza(fmt.Sprint("m", i), fmt.Appendf(nil, `<message from="romeo@example.net/orchard" to="%s" type="chat"><body>%s</body><thread>thread-of-gold</thread></message>`, account, text))
			require.NoError(t, err)
			st.XML = fmt.Sprintf(`<message from="romeo@example.net/orchard" to="%s" type="chat"><body>%s</body><thread>thread-of-gold</thread></message>`, account, text)
			st.Archived = r.IntN(2) == 0 // then its text may go along, encrypted, and another one is kept of it
			correction, call := st, st
			correction.Content, correction.Class, correction.Details = ContentCorrection, ClassPlain, &Details{Target: fmt.Sprint("m", i-1)}
			call.Content, call.Class, call.Details = ContentCall, ClassUrgent, &Details{Call: &Call{ID: "c", Media: []string{"audio"}}}
			evs := []Event{
				SessionOpen{Session: s, JID: account + "/r", Client: "c"}, SessionClose{s}, PushDisable{s, k}, HibernationStart{s, []Stanza{st}}, HibernationEnd{s}, StanzaQueued{s, st},
				AckDelayed{s, []Stanza{st}}, ArchiveAdded{account, st}, Offline{account, st}, Groupchat{account, st}, Ping{Account: account},
				PushEnable{Session: s, Key: k, Options: []Field{{Var: "FORM_TYPE", Values: []string{"x"}}, {Var: "secret", Values: []string{secret}}}},
				PushEnable{Session: SessionID{Account: account}, Options: []Field{{Var: "secret", Values: []string{secret}}}},
				PushEnable{Session: s, Key: Key{Service: "push2.example.net", Node: "sealed"}, Wishes: encrypting},
				PushEnable{Session: s, Key: Key{Service: "push2.example.net", Node: Push2Node}, Wishes: carrying},
				SessionRestored{Session: s, JID: account + "/r", Bound: k, IsBound: true, Hibernated: true}, Acknowledged{s, []string{fmt.Sprint("m", i-1)}},
				SessionActive{s}, SessionPresence{s, i%2 == 0}, Displayed{Account: account, Chat: "romeo@example.net"}, ChatChanged{account, ""},
				ArchiveAdded{account, correction}, Offline{account, call},
			}
			if i%4 == 0 {
				evs = evs[11:12]
			}
			d, err := e.Handle(t.Context(), evs[r.IntN(len(evs))])
			fmt.Fprintf(&said, "%+v %v %#v\n", d, err, err)
			if i%20 == 0 {
				time.Sleep(time.Minute)
				fmt.Fprintf(&said, "%+v\n", e.Services())
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = e.Close(ctx)
		fmt.Fprintf(&said, "%+v %#v\n", err, err)
		require.NoError(t, careful.Close())
		require.NoError(t, open.Close())
	})
	require.Greater(t, published, 100, "they were there")
	require.Greater(t, sealed, 100)
	require.Greater(t, archived, 50)
	require.Contains(t, full.String(), secret)
	require.Contains(t, full.String(), text)
	for what, s := range map[string]string{"log": said.String(), "recording": recorded.String(), "replay": replayed(t, full.Bytes())} {
		require.Greater(t, len(s), 10000, what)
		for _, bad := range []string{secret, text, "sweet", "tiger", "thread-of-gold", "dGlnZXItbGlseS", string(keys.signer), b64(keys.signer)} {
			if i := strings.Index(s, bad); i >= 0 {
				t.Errorf("%s: %q in …%s…", what, bad, s[max(i-500, 0):min(i+100, len(s))])
			}
		}
	}
}

// replayed is what pushreplay prints of a trace that has everything.
func replayed(t *testing.T, recording []byte) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "pushreplay")
	out, err := exec.Command("go", "build", "-o", bin, "./cmd/pushreplay").CombinedOutput()
	require.NoError(t, err, "%s", out)
	var all []byte
	for _, format := range []string{"text", "json"} {
		cmd := exec.Command(bin, "-format", format)
		cmd.Stdin = bytes.NewReader(recording)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 { // a replay knows nothing of a store that fails
			require.NoError(t, err)
		}
		all = append(all, out...)
	}
	return string(all)
}
