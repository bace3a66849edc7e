package main

import (
	"testing"
	"time"

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
	ts := start(t, t.TempDir(), cfg)
	ts.addUsers()
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
	service.none()
}

func TestHibernated(t *testing.T) {
	ts, service := ready(t, quick())
	c := ts.login(juliet, nil)
	c.enablePush("phone")
	c.enableSM()
	c.cut()
	ts.decided("hibernation-start", juliet)
	r := ts.login(romeo, nil)
	r.message(juliet, "hello")
	service.next()
	require.True(t, ts.decided("stanza-queued", juliet).notify)
}
