package main

import (
	"bytes"
	"encoding/base64"
	"io"
	"path/filepath"
	"testing"
	"time"

	adminpb "github.com/ortuman/jackal/pkg/admin/pb"
	jackalserver "github.com/ortuman/jackal/pkg/jackal"
	"github.com/stretchr/testify/require"
	"github.com/xmpp-push/push"
	pushjackal "github.com/xmpp-push/push/hosts/jackal"
)

// quick is a configuration with short times.
func quick() pushjackal.Config {
	return pushjackal.Config{
		Push:       push.Config{Policy: push.Policy{Delay: 20 * time.Millisecond}},
		AckRequest: 20 * time.Millisecond, AckDelay: 50 * time.Millisecond, HibernateTime: time.Minute,
	}
}

// ready starts a server with a push service, and with juliet and romeo.
func ready(t *testing.T, cfg pushjackal.Config) (*testServer, *pushService) {
	t.Helper()
	dir := t.TempDir()
	addUsers(t, dir)
	ts := start(t, dir, cfg)
	return ts, ts.connect()
}

func TestFeature(t *testing.T) {
	ts, _ := ready(t, quick())
	c := ts.login(juliet, nil)
	info := c.iq("get", juliet, `<query xmlns='http://jabber.org/protocol/disco#info'/>`)
	announced := false
	for _, f := range info.find("query").Nodes {
		announced = announced || f.attr("var") == push.NS
	}
	require.True(t, announced, "%+v", info)
}

func TestOffline(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.logout()
	ts.decided("session-close", juliet)

	ts.login(romeo, nil).message(juliet, "hello")
	require.Equal(t, publish{"phone", "secret of phone", "New Message!", "1"}, service.next())

	d := ts.decided("archive-added", juliet)
	require.True(t, d.notify)
	require.Equal(t, "archived", d.rule)
	require.Equal(t, push.ReasonSeen.String(), ts.decided("offline", juliet).reason)
	require.Equal(t, push.ReasonNoRegistration.String(), ts.decided("archive-added", romeo).reason)
	service.none()
}

// jackal archives messages that ask not to be.
func TestNoStore(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.logout()
	r := ts.login(romeo, nil)
	r.message(juliet, "typing", `<no-store xmlns='urn:xmpp:hints'/>`)
	r.message(juliet, "hello")
	require.Equal(t, "1", service.next().count)
	service.none()
}

// Nothing archives a call. It is for all devices at once, connected ones too.
func TestCall(t *testing.T) {
	ts, service := ready(t, quick())
	phone, tablet := ts.login(juliet, nil), ts.login(juliet, nil)
	phone.enablePush("phone")
	tablet.enablePush("tablet")
	tablet.logout()
	r := ts.login(romeo, nil)
	r.send(`<message type='chat' to='%s' id='call'><propose xmlns='urn:xmpp:jingle-message:0' id='c'/></message>`, juliet)
	nodes := []string{service.next().node, service.next().node}
	require.ElementsMatch(t, []string{"phone", "tablet"}, nodes)
	require.Equal(t, "urgent", ts.decided("archive-added", juliet).class)
}

func TestHibernated(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.enableSM()
	c.silent.Store(true)
	r := ts.login(romeo, nil)
	r.message(juliet, "unacknowledged")
	c.cut()
	d := ts.decided("hibernation-start", juliet)
	require.Equal(t, 72*time.Hour, ts.advised(0))
	service.next() // by whichever came first, the delayed acknowledgement or the hibernation
	r.message(juliet, "queued")
	require.Equal(t, publish{"phone", "secret of phone", "New Message!", "2"}, service.next())
	queued := ts.decided("stanza-queued", juliet)
	require.True(t, queued.notify)
	require.NotEqual(t, d.stanzas, queued.stanzas)
	require.Equal(t, time.Duration(0), ts.advised(1), "its user knows now")
	require.Equal(t, push.ReasonLive.String(), ts.decided("archive-added", juliet).reason)
	require.Equal(t, push.ReasonHibernated.String(), ts.decided("archive-added", juliet).reason)
	service.none()
}

func TestResumed(t *testing.T) {
	cfg := quick()
	cfg.Push.Policy.Delay, cfg.Push.Policy.DelayImportant = time.Hour, true
	ts, service := ready(t, cfg)
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.enableSM()
	c.cut()
	ts.decided("hibernation-start", juliet)
	r := ts.login(romeo, nil)
	r.message(juliet, "while away")
	require.True(t, ts.decided("stanza-queued", juliet).notify)
	require.Equal(t, push.ReasonHibernated.String(), ts.decided("archive-added", juliet).reason)

	c = ts.login(juliet, c)
	c.awaitMessage("while away")
	require.Equal(t, push.ReasonResumed.String(), ts.decided("hibernation-end", juliet).reason)
	r.message(juliet, "here again")
	c.awaitMessage("here again")
	require.Equal(t, push.ReasonLive.String(), ts.decided("archive-added", juliet).reason, "it is the same session, bound to the registration")
	service.none()

	c.cut()
	ts.decided("hibernation-start", juliet)
	r.message(juliet, "away again")
	require.True(t, ts.decided("stanza-queued", juliet).notify)
}

// A session that is resumed before the server has noticed that the connection is gone was never hibernated.
func TestResumedAtOnce(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.enableSM()
	again := ts.login(juliet, c)
	ts.decided("hibernation-end", juliet)
	ts.login(romeo, nil).message(juliet, "hello")
	again.awaitMessage("hello")
	require.Equal(t, push.ReasonLive.String(), ts.decided("archive-added", juliet).reason)
	service.none()
}

// A session lives for as long as its device has not been woken, and then for the normal time, which those have that push cannot wake.
func TestHibernationRunsOut(t *testing.T) {
	cfg := quick()
	cfg.HibernateTime = 50 * time.Millisecond
	ts, service := ready(t, cfg)
	phone, tablet := ts.login(juliet, nil), ts.login(juliet, nil)
	phone.enablePush("phone")
	phone.enableSM()
	phone.cut()
	ts.decided("hibernation-start", juliet)
	tablet.enableSM()
	tablet.cut()
	ts.decided("hibernation-start", juliet)
	ts.decided("session-close", juliet) // the tablet's; the phone's normal time is over too

	r := ts.login(romeo, nil)
	r.message(juliet, "wake up")
	require.True(t, ts.decided("stanza-queued", juliet).notify)
	service.next()
	// The archive may be later than the end of the session, which comes 50 ms after the push.
	require.Contains(t, []string{push.ReasonHibernated.String(), push.ReasonSeen.String()}, ts.decided("archive-added", juliet).reason)
	ts.decided("session-close", juliet)

	r.message(juliet, "too late")
	require.Equal(t, push.ReasonNoSession.String(), ts.decided("archive-added", juliet).reason)
	service.next()
	service.none()
}

// jackal ends a session when anybody asks to resume it, and looks only then whether that is its owner.
func TestNotResumed(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.enableSM()
	c.cut()
	ts.decided("hibernation-start", juliet)
	r := ts.login(romeo, nil)
	previd, err := base64.StdEncoding.DecodeString(c.resume)
	require.NoError(t, err)
	name, _, _ := bytes.Cut(previd, []byte{0})
	r.send(`<resume xmlns='%s' h='0' previd='%s'/>`, nsSM, base64.StdEncoding.EncodeToString(append(name, 0, 'x')))
	r.await("failed", func(e *element) bool { return e.XMLName.Local == "failed" })
	ts.decided("session-close", juliet)
	r.message(juliet, "hello")
	require.Equal(t, push.ReasonNoSession.String(), ts.decided("archive-added", juliet).reason)
	service.next()
}

func TestAckDelayed(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.enableSM()
	c.silent.Store(true)
	r := ts.login(romeo, nil)
	r.message(juliet, "one")
	require.Equal(t, push.ReasonLive.String(), ts.decided("archive-added", juliet).reason)
	require.Equal(t, push.ReasonUnacknowledged.String(), ts.decided("ack-delayed", juliet).reason)
	service.next()
	r.message(juliet, "two") // nothing more is asked while an answer is due
	require.Equal(t, push.ReasonUnacknowledged.String(), ts.decided("ack-delayed", juliet).reason)
	service.next()

	c.awaitMessage("two")
	c.silent.Store(false)
	c.ack()
	c.sync()
	r.message(juliet, "three")
	c.awaitMessage("three")
	require.Equal(t, push.ReasonLive.String(), ts.decided("archive-added", juliet).reason)
	service.none()
}

// jackal would send again whatever an acknowledgement leaves open.
func TestAckOfAPart(t *testing.T) {
	ts, _ := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enableSM()
	c.silent.Store(true)
	r := ts.login(romeo, nil)
	r.message(juliet, "one")
	c.awaitMessage("one")
	r.message(juliet, "two")
	c.awaitMessage("two")
	c.send(`<a xmlns='%s' h='1'/><iq type='get' id='next' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>`, nsSM)
	next := c.await("a stanza", func(e *element) bool { return e.XMLName.Local == "message" || e.XMLName.Local == "iq" })
	require.Equal(t, "iq", next.XMLName.Local, "%+v", next)
}

// jackal does not hibernate a session whose client does not answer: it hangs up and drops what was not acknowledged.
func TestAckTimeout(t *testing.T) {
	cfg := quick()
	cfg.AckRequest, cfg.AckDelay = -1, time.Hour
	dir := t.TempDir()
	addUsers(t, dir)
	ts := startWith(t, dir, cfg, func(c *jackalserver.Config) {
		c.Modules.Stream.RequestAckInterval, c.Modules.Stream.WaitForAckTimeout = 300*time.Millisecond, 100*time.Millisecond
	})
	service := ts.connect()
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.enableSM()
	c.silent.Store(true)
	ts.login(romeo, nil).message(juliet, "hello")
	require.True(t, ts.decided("ack-delayed", juliet).notify)
	ts.decided("session-close", juliet)
	service.next()
}

func TestTwoDevices(t *testing.T) {
	ts, service := ready(t, quick())
	phone, tablet := ts.login(juliet, nil), ts.login(juliet, nil)
	phone.enablePush("phone")
	phone.enableSM()
	tablet.enablePush("tablet")
	tablet.enableSM()
	tablet.cut()
	ts.decided("hibernation-start", juliet)
	r := ts.login(romeo, nil)
	r.message(juliet, "hello")
	phone.awaitMessage("hello")
	require.Equal(t, "tablet", service.next().node)
	tablet = ts.login(juliet, tablet)
	tablet.awaitMessage("hello")
	ts.decided("hibernation-end", juliet)

	phone.logout()
	ts.decided("session-close", juliet)
	r.message(juliet, "bye")
	tablet.awaitMessage("bye")
	require.Equal(t, "phone", service.next().node)
	service.none()
}

func TestCarbons(t *testing.T) {
	ts, service := ready(t, quick())
	phone, tablet := ts.login(juliet, nil), ts.login(juliet, nil)
	tablet.enablePush("tablet")
	tablet.request(`<enable xmlns='urn:xmpp:carbons:2'/>`)
	tablet.enableSM()
	tablet.cut()
	ts.decided("hibernation-start", juliet)

	phone.message(romeo, "sent by the phone")
	sent := ts.decided("stanza-queued", juliet)
	require.True(t, sent.notify)
	require.Equal(t, "plain", sent.class)
	require.Empty(t, service.next().body)

	r := ts.login(romeo, nil)
	r.message(phone.s.LocalAddr().String(), "for the phone")
	received := ts.decided("stanza-queued", juliet)
	require.Equal(t, "important", received.class)
	require.Equal(t, "New Message!", service.next().body)
	service.none()
}

func TestDisable(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.enablePush("other")
	c.request(`<disable xmlns='urn:xmpp:push:0' jid='push.localhost' node='phone'/>`)
	c.logout()
	r := ts.login(romeo, nil)
	r.message(juliet, "hello")
	require.Equal(t, "other", service.next().node)
	ts.decided("archive-added", juliet)

	c = ts.login(juliet, nil)
	c.request(`<disable xmlns='urn:xmpp:push:0' jid='push.localhost'/>`)
	c.logout()
	ts.decided("push-disable", juliet)
	r.message(juliet, "hello")
	require.Equal(t, push.ReasonNoRegistration.String(), ts.decided("archive-added", juliet).reason)
	service.none()
}

func TestErrorDisables(t *testing.T) {
	ts, service := ready(t, quick())
	gone := func(publish) string { return "item-not-found" }
	service.answer.Store(&gone)
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.logout()
	ts.decided("session-close", juliet)
	r := ts.login(romeo, nil)
	r.message(juliet, "one")
	service.next()
	ts.changed(push.ChangeDisabled, juliet)
	ts.decided("archive-added", juliet)
	r.message(juliet, "two")
	require.Equal(t, push.ReasonDisabled.String(), ts.decided("archive-added", juliet).reason)
	service.none()

	service.answer.Store(nil)
	c = ts.login(juliet, nil)
	c.enablePush("phone")
	c.logout()
	ts.decided("push-enable", juliet)
	ts.decided("session-close", juliet)
	r.message(juliet, "three")
	service.next()
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	addUsers(t, dir)
	open := func() (pushjackal.Config, io.Closer) {
		cfg := quick()
		store, closer, err := openStore(t.Context(), filepath.Join(dir, "push.db"))
		require.NoError(t, err)
		cfg.Push.Store = store
		return cfg, closer
	}
	cfg, closer := open()
	ts := start(t, dir, cfg)
	ts.login(juliet, nil).enablePush("phone")
	ts.stop()
	require.NoError(t, closer.Close())

	cfg, closer = open()
	ts = start(t, dir, cfg)
	service := ts.connect()
	ts.login(romeo, nil).message(juliet, "hello")
	require.Equal(t, publish{"phone", "secret of phone", "New Message!", "1"}, service.next())
	ts.stop()
	require.NoError(t, closer.Close())
}

// jackal does not let a component come back, but for the module.
func TestServiceComesBack(t *testing.T) {
	cfg := quick()
	cfg.Push.Policy.RetryMin, cfg.Push.Policy.RetryMax = 20*time.Millisecond, 20*time.Millisecond
	ts, service := ready(t, cfg)
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.logout()
	service.conn.Close()
	for range service.in {
	}
	ts.seen.gone(t)
	service = ts.connect()
	ts.login(romeo, nil).message(juliet, "hello")
	service.next()
}

func TestRefused(t *testing.T) {
	ts, _ := ready(t, quick())
	c := ts.login(juliet, nil)
	for _, refused := range []struct{ typ, to, payload, condition string }{
		{"set", "", `<enable xmlns='urn:xmpp:push:0' node='n'/>`, "bad-request"},
		{"set", "", `<enable xmlns='urn:xmpp:push:0' jid='juliet@localhost' node='n'/>`, "bad-request"},
		{"get", "", `<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n'/>`, "not-allowed"},
		{"set", romeo, `<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n'/>`, "forbidden"},
	} {
		e := c.iq(refused.typ, refused.to, refused.payload)
		require.Equal(t, "error", e.attr("type"), refused.payload)
		require.NotNil(t, e.find(refused.condition), "%s: %+v", refused.payload, e)
	}
}

// jackal writes attributes as they are.
func TestNodeIsNotMarkup(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	e := c.iq("set", "", `<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='&apos;/>&lt;evil a=&quot;&amp;'/>`)
	require.Equal(t, "result", e.attr("type"))
	c.logout()
	ts.login(romeo, nil).message(juliet, "hello")
	require.Equal(t, `'/><evil a="&`, service.next().node)
}

// A service can take a registration away, and a room that is a component can reach an account that has not joined it.
func TestComponentMessages(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.enablePush("other")
	c.logout()
	ts.decided("session-close", juliet)
	service.send(`<message from='push.localhost' to='%s'><pubsub xmlns='http://jabber.org/protocol/pubsub' node='other'>`+
		`<affiliation jid='%[1]s' affiliation='none'/></pubsub></message>`, juliet)
	ts.decided("affiliation-none", juliet)
	service.send(`<message type='groupchat' id='g' from='room@push.localhost/nurse' to='%s'><body>hello all</body></message>`, juliet)
	require.True(t, ts.decided("groupchat", juliet).notify)
	require.Equal(t, "phone", service.next().node)
	service.none()
}

func TestAccountRemoved(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.logout()
	_, _ = ts.users().DeleteUser(t.Context(), &adminpb.DeleteUserRequest{Username: "juliet"}) // fails at what the user never had, halfway
	ts.decided("account-removed", juliet)
	status, err := ts.server.push.Engine().Inspect(t.Context(), juliet)
	require.NoError(t, err)
	require.Empty(t, status.Registrations)
	service.none()
}

// What waits goes out before the server stops.
func TestStop(t *testing.T) {
	cfg := quick()
	cfg.Push.Policy.Delay, cfg.Push.Policy.DelayImportant = time.Hour, true
	ts, service := ready(t, cfg)
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.enableSM()
	c.cut()
	ts.decided("hibernation-start", juliet)
	ts.login(romeo, nil).message(juliet, "hello")
	ts.decided("stanza-queued", juliet)
	ts.stop()
	service.next()
}
