package pushhttp

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
)

// FuzzPages asks for pages of accounts with any name and any query, and looks for anything that is not harmless text.
func FuzzPages(f *testing.F) {
	f.Add("account", "jid=juliet@example.com&only=no&from=2026-01-01T00:00&before=7", "juliet@example.com", "m1", "item-not-found")
	f.Add("story", "jid=<script>&stanza=<script>", "<script>", "<script>", `"><script>`)
	f.Add("story", "jid=a&event=18446744073709551615&publish=x", "a", "\xff", "\x00")
	f.Add("trace", "jid=a", "a", "]]>", "gone")
	f.Fuzz(func(t *testing.T, path, query, account, id, text string) {
		if strings.HasSuffix(path, "live") {
			return // it does not end
		}
		h := NewHistory(HistoryConfig{Lines: 64, PerAccount: 32})
		e, err := push.New(push.Config{Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
		require.NoError(t, err)
		p, err := New(Config{Engine: e, History: h, Authorize: anybody, Pseudonyms: len(id)%2 == 1})
		require.NoError(t, err)
		o, now, k := h.Observer(), time.Unix(1e9, 0), push.Key{Service: text, Node: id}
		st := push.Stanza{ID: id, From: text, To: account}
		for i, ev := range []push.Event{
			push.SessionOpen{Session: push.SessionID{Account: account, ID: id}, JID: text, Client: text}, push.ArchiveAdded{Account: account, Stanza: st},
			push.AckDelayed{Session: push.SessionID{Account: account, ID: text}, Stanzas: []push.Stanza{st, st}},
		} {
			o.Decided(uint64(i+1), now, ev, &push.Decision{
				Account: account, Verdicts: []push.Verdict{{Key: k, Notify: true, Detail: text, Stanzas: []string{id}}},
				Effects: push.Effects{Changes: []push.Change{{Key: k, Kind: push.ChangeKind(len(text)), Detail: text}}},
			}, 0)
		}
		n := &push.Notification{Account: account, Key: k, Events: []uint64{2, 3}}
		o.Sent(now, n)
		o.Replied(now, n, push.Reply{Type: text, Condition: text}, push.Result{Outcome: push.Outcome(len(text))}, time.Second)
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path, r.URL.RawQuery = "/push/"+path, query
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		require.NotEqual(t, http.StatusInternalServerError, w.Code, w.Body.String())
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
			require.LessOrEqual(t, strings.Count(strings.ToLower(w.Body.String()), "<script"), 1)
			for _, tag := range tags.FindAllString(w.Body.String(), -1) {
				require.NotRegexp(t, inline, quoted.ReplaceAllString(tag, `""`))
			}
		}
	})
}
