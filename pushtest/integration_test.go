package pushtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/xmpp-push/push"
)

// server is about the smallest server that there can be: no streams, no roster, one map.
type server struct {
	testing.TB
	// mistake is what it does wrong.
	mistake string
	engine  *push.Engine
	router  *push.Router

	accounts map[string][]*device // by bare JID, which has them from its first session on
	ids      int
}

type device struct {
	*server
	session    push.SessionID
	resource   string
	cut, stall bool
	unacked    []push.Stanza
}

func newServer(t testing.TB, service func([]byte) [][]byte, mistake string) *server {
	s := &server{TB: t, mistake: mistake, accounts: make(map[string][]*device)}
	s.router = &push.Router{Host: Host, Send: func(_ context.Context, _ string, iq []byte) error {
		for _, reply := range service(iq) {
			if _, err := s.router.HandleReply(reply); err != nil {
				return err
			}
		}
		return nil
	}}
	var err error
	if s.engine, err = push.New(push.Config{Host: Host, Publisher: s.router}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.engine.Close(context.Background()) })
	return s
}

func (s *server) raise(ev push.Event) {
	if s.mistake == "no "+ev.Name() {
		return
	}
	if _, err := s.engine.Handle(context.Background(), ev); err != nil {
		s.Error(err)
	}
}

func (s *server) Connect(account, resource string) Device {
	jid := account + "@" + Host
	if s.mistake == "accounts have no domain" {
		jid = account
	}
	s.ids++
	d := &device{server: s, session: push.SessionID{Account: jid, ID: fmt.Sprint("s", s.ids)}, resource: resource}
	s.accounts[jid] = append(s.accounts[jid], d)
	s.raise(push.SessionOpen{Session: d.session, JID: jid + "/" + resource})
	return d
}

func (s *server) Resume(d Device) {
	dev := d.(*device)
	dev.cut, dev.stall, dev.unacked = false, false, nil
	s.raise(push.HibernationEnd{Session: dev.session})
}

func (s *server) Route(stanza []byte) {
	id := ""
	st, err := push.ParseStanza("", stanza)
	if err != nil {
		s.Fatal(err)
	}
	// each way of the stanza asks for its ID
	name := func() string {
		if id == "" || s.mistake == "each copy has an ID of its own" {
			s.ids++
			id = fmt.Sprint("m", s.ids)
		}
		return id
	}
	if from, _, _ := strings.Cut(st.From, "/"); s.accounts[from] != nil && st.Body != "" {
		st.ID = name()
		ev := push.ArchiveAdded{Account: from, Stanza: st}
		if s.mistake == "the sender's archive looks like the receiver's" {
			ev.Stanza.To = from
		}
		s.raise(ev)
	}
	devices, ok := s.accounts[st.To]
	if !ok {
		return
	}
	if st.Class != push.ClassPlain {
		st.ID = name()
		s.raise(push.ArchiveAdded{Account: st.To, Stanza: st})
	}
	if len(devices) == 0 {
		if st.Class != push.ClassPlain {
			st.ID = name()
			s.raise(push.Offline{Account: st.To, Stanza: st})
		}
		return
	}
	for _, d := range devices {
		st.ID = name()
		if d.cut || d.stall {
			d.unacked = append(d.unacked, st)
		}
		if d.cut || s.mistake == "a live session's stanzas are queued" {
			s.raise(push.StanzaQueued{Session: d.session, Stanza: st})
		}
		if s.mistake == "live sessions count as offline" {
			s.raise(push.Offline{Account: st.To, Stanza: st})
		}
	}
}

func (d *device) Send(stanza []byte) {
	if q, err := push.ParseRequest(d.session, stanza); err == nil {
		if d.mistake == "a disable without a node is ignored" {
			if ev, ok := q.Event.(push.PushDisable); ok && ev.Node == "" {
				return
			}
		}
		if d.mistake == "options are lost" {
			if ev, ok := q.Event.(push.PushEnable); ok {
				ev.Options = nil
				q.Event = ev
			}
		}
		if a := q.Answer(context.Background(), d.engine); a.Refusal != nil {
			d.Errorf("refused: %v", a.Refusal)
		}
		return
	}
	d.Route([]byte(strings.Replace(string(stanza), "<message", `<message from="`+d.session.Account+"/"+d.resource+`"`, 1)))
}

func (d *device) Stall() { d.stall = true }

func (d *device) Cut() {
	d.cut = true
	ev := push.HibernationStart{Session: d.session, Stanzas: slices.Clone(d.unacked)}
	if d.mistake == "the unacknowledged are forgotten" {
		ev.Stanzas = nil
	}
	d.raise(ev)
}

func (d *device) Close() {
	all := d.accounts[d.session.Account]
	d.accounts[d.session.Account] = slices.DeleteFunc(all, func(o *device) bool { return o == d })
	d.raise(push.SessionClose{Session: d.session})
	for _, st := range d.unacked {
		if d.mistake == "each copy has an ID of its own" {
			st.ID += "-offline"
		}
		if len(d.accounts[d.session.Account]) == 0 && st.Class != push.ClassPlain {
			d.raise(push.Offline{Account: d.session.Account, Stanza: st})
		}
	}
}

func TestIntegration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		Integration(t, func(t testing.TB, service func([]byte) [][]byte) Server { return newServer(t, service, "") })
	})
}

// TestIntegrationFails has a server for every mistake.
func TestIntegrationFails(t *testing.T) {
	for mistake, want := range map[string]string{
		"no session-open":                                "a message to a connected phone: alert",
		"no session-close":                               "and a phone that is not: no alert",
		"no hibernation-start":                           "with a message on the way: no alert",
		"no hibernation-end":                             "a push to a phone that was back already",
		"no stanza-queued":                               "a message to a phone that sleeps: no alert",
		"no archive-added":                               "and a phone that is not: no alert",
		"each copy has an ID of its own":                 "one too many",
		"the sender's archive looks like the receiver's": "the laptop sends a message: alert",
		"a live session's stanzas are queued":            "a message to a connected phone: alert",
		"live sessions count as offline":                 "a message to a connected phone: alert",
		"the unacknowledged are forgotten":               "with a message on the way: no alert",
		"a disable without a node is ignored":            "after push was disabled for all",
		"options are lost":                               "options and addresses",
		"accounts have no domain":                        "not one publish has come to service",
	} {
		t.Run(mistake, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := failing(t, func(t testing.TB) {
					Integration(t, func(t testing.TB, service func([]byte) [][]byte) Server { return newServer(t, service, mistake) })
				})
				if !strings.Contains(got, want) {
					t.Errorf("the suite says:\n%s\nand should say %q", got, want)
				}
			})
		})
	}
}
