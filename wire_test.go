package push_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/component"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/pubsub"
	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/mellium"
)

// needPeer skips the test if a program that it needs is missing, or fails it where all must be there.
func needPeer(t *testing.T, missing error, how string) {
	t.Helper()
	if missing == nil {
		return
	}
	if os.Getenv("PUSH_REQUIRE_PEERS") == "1" {
		t.Fatalf("%v; %s", missing, how)
	}
	t.Skipf("%v; %s", missing, how)
}

// prosodyConfig has a pubsub service, two components that the tests connect as, and one that never connects. "server.localhost" is an administrator of
// the service and so may create nodes; "stranger.localhost" may not even publish.
const prosodyConfig = `
run_as_root = true
pidfile = %[1]q
data_path = %[2]q
log = { { levels = { min = "info" }, to = "console" } }
interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
component_ports = { %[3]d }
component_interfaces = { "127.0.0.1" }
c2s_ports = {}
c2s_direct_tls_ports = {}
legacy_ssl_ports = {}
s2s_ports = {}
modules_enabled = { "disco" }
modules_disabled = { "c2s", "tls", "offline", "http" }
storage = "memory"
VirtualHost "localhost"
Component "pubsub.localhost" "pubsub"
	admins = { "server.localhost" }
Component "server.localhost"
	component_secret = "one"
Component "stranger.localhost"
	component_secret = "two"
Component "asleep.localhost"
	component_secret = "three"
`

// prosody runs a Prosody for the length of the test and returns its port for components.
func prosody(t *testing.T) int {
	path, err := exec.LookPath("prosody")
	needPeer(t, err, "install it with: apt-get install prosody")
	dir := t.TempDir()
	for try := range 3 { // somebody else may take the port before Prosody does
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		config := filepath.Join(dir, fmt.Sprintf("prosody-%d.cfg.lua", try))
		require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, prosodyConfig, filepath.Join(dir, "pid"), dir, port), 0o600))
		var log bytes.Buffer
		cmd := exec.Command(path, "-F", "--config", config)
		cmd.Stdout, cmd.Stderr = &log, &log
		require.NoError(t, cmd.Start())
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(ended)
		}()
		stop := func() {
			_ = cmd.Process.Kill()
			<-ended
		}
		for began := time.Now(); time.Since(began) < 20*time.Second; {
			if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
				c.Close()
				t.Cleanup(func() {
					stop()
					if t.Failed() {
						t.Logf("Prosody said:\n%s", log.String())
					}
				})
				return port
			}
			select {
			case <-ended:
				began = time.Time{}
			case <-time.After(20 * time.Millisecond): // the process has no other way to say that it listens
			}
		}
		stop()
		t.Logf("Prosody does not listen:\n%s", log.String())
	}
	t.Fatal("Prosody does not start")
	return 0
}

// connect returns a session as a component, served by handler.
func connect(t *testing.T, port int, domain, secret string, handler xmpp.Handler) *xmpp.Session {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	s, err := component.NewSession(t.Context(), jid.MustParse(domain), []byte(secret), conn)
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(handler)
	}()
	t.Cleanup(func() {
		conn.Close()
		<-served
	})
	return s
}

// routed returns a Router over a component's session: the replies come in by the session's handler.
func routed(t *testing.T, port int, domain, secret string) *push.Router {
	r := &push.Router{Host: domain}
	s := connect(t, port, domain, secret, xmpp.HandlerFunc(func(rw xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		_, err := r.ReadReply(xmlstream.MultiReader(xmlstream.Token(*start), rw))
		return err
	}))
	var mu sync.Mutex
	r.Send = func(_ context.Context, _ string, iq []byte) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := s.Conn().Write(iq)
		return err
	}
	return r
}

// TestWire publishes through a real server, to a real XEP-0060 service, over XEP-0114.
func TestWire(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	port := prosody(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	session := connect(t, port, "server.localhost", "one", nil)
	service := jid.MustParse("pubsub.localhost")
	var created struct{}
	require.NoError(t, session.UnmarshalIQElement(ctx,
		xmlstream.Wrap(xmlstream.Wrap(nil, xml.StartElement{Name: xml.Name{Local: "create"}, Attr: []xml.Attr{{Name: xml.Name{Local: "node"}, Value: "n1"}}}),
			xml.StartElement{Name: xml.Name{Space: pubsub.NS, Local: "pubsub"}}),
		stanza.IQ{Type: stanza.SetIQ, To: service, From: session.LocalAddr()}, &created))

	note := func(service, node string, options ...push.Field) *push.Notification {
		n := full()
		n.Service, n.Node = service, node
		if options != nil {
			n.Options = append(n.Options, options...)
		}
		return n
	}
	tests := []struct {
		name     string
		n        *push.Notification
		stranger bool
		want     []push.ReplyError // one of them; none is success
	}{
		{name: "accepted", n: note("pubsub.localhost", "n1")},
		{name: "accepted with options that hold", n: note("pubsub.localhost", "n1", push.Field{Var: "pubsub#persist_items", Type: "boolean", Values: []string{"1"}})},
		{name: "options that do not hold", n: note("pubsub.localhost", "n1", push.Field{Var: "pubsub#access_model", Type: "list-single", Values: []string{"whitelist"}}),
			want: []push.ReplyError{{Type: "cancel", Condition: "conflict"}}},
		{name: "unknown node", n: note("pubsub.localhost", "no such node"), want: []push.ReplyError{{Type: "cancel", Condition: "item-not-found"}}},
		{name: "no node", n: note("pubsub.localhost", ""), want: []push.ReplyError{{Type: "modify", Condition: "bad-request"}}},
		{name: "forbidden", n: note("pubsub.localhost", "n1"), stranger: true, want: []push.ReplyError{{Type: "auth", Condition: "forbidden"}}},
		{name: "service not connected", n: note("asleep.localhost", "n1"), want: []push.ReplyError{{Type: "wait", Condition: "remote-server-timeout"}}},
		{name: "not a push service", n: note("localhost", "n1"), want: []push.ReplyError{{Type: "cancel", Condition: "service-unavailable"}}},
		{name: "server gone", n: note("127.0.0.2", "n1"), want: []push.ReplyError{
			{Type: "cancel", Condition: "remote-server-not-found"}, {Type: "wait", Condition: "remote-server-timeout"}}},
	}
	check := func(t *testing.T, own, stranger push.Publisher) {
		for _, tt := range tests {
			p := own
			if tt.stranger {
				p = stranger
			}
			err := p.Publish(ctx, tt.n)
			var re *push.ReplyError
			switch {
			case len(tt.want) == 0:
				assert.NoError(t, err, tt.name)
			case assert.ErrorAs(t, err, &re, tt.name):
				assert.Contains(t, tt.want, *re, tt.name)
			}
		}
	}
	t.Run("publisher=session", func(t *testing.T) {
		stranger := connect(t, port, "stranger.localhost", "two", nil)
		check(t, mellium.Publisher{Session: session}, mellium.Publisher{Session: stranger})

		// The service has what was published, as XEP-0357 wants it.
		var items struct {
			Items []struct {
				Notifications []struct {
					Fields []struct {
						Var   string `xml:"var,attr"`
						Value string `xml:"value"`
					} `xml:"jabber:x:data x>field"`
				} `xml:"urn:xmpp:push:0 notification"`
			} `xml:"items>item"`
		}
		require.NoError(t, session.UnmarshalIQElement(ctx,
			xmlstream.Wrap(xmlstream.Wrap(nil, xml.StartElement{Name: xml.Name{Local: "items"}, Attr: []xml.Attr{{Name: xml.Name{Local: "node"}, Value: "n1"}}}),
				xml.StartElement{Name: xml.Name{Space: pubsub.NS, Local: "pubsub"}}),
			stanza.IQ{Type: stanza.GetIQ, To: service, From: session.LocalAddr()}, &items))
		require.NotEmpty(t, items.Items)
		require.Len(t, items.Items[0].Notifications, 1)
		got := map[string]string{}
		for _, f := range items.Items[0].Notifications[0].Fields {
			got[f.Var] = f.Value
		}
		assert.Equal(t, map[string]string{"FORM_TYPE": "urn:xmpp:push:summary", "message-count": "3",
			"last-message-sender": "romeo@example.org/orchard", "last-message-body": "Wherefore art thou?"}, got)
	})
	require.NoError(t, session.Close())
	t.Run("publisher=router", func(t *testing.T) {
		var own *push.Router
		require.Eventually(t, func() bool { // until the server has let go of the session before
			own = routed(t, port, "server.localhost", "one")
			return own.Publish(ctx, note("pubsub.localhost", "n1")) == nil
		}, 10*time.Second, 50*time.Millisecond)
		check(t, own, routed(t, port, "stranger.localhost", "two"))
	})
}

// parseWithSlixmpp reads IQs, each a line of JSON, and prints what slixmpp's own classes for XEP-0004 and XEP-0060 see in them.
const parseWithSlixmpp = `
import json, sys
from slixmpp import Iq
from slixmpp.xmlstream import ET, register_stanza_plugin
from slixmpp.plugins.xep_0004.stanza import Form, FormField
from slixmpp.plugins.xep_0060 import stanza as pubsub

class Notification(__import__("slixmpp").xmlstream.ElementBase):
    name = plugin_attrib = "notification"
    namespace = "urn:xmpp:push:0"

register_stanza_plugin(pubsub.Item, Notification)
register_stanza_plugin(Notification, Form)
register_stanza_plugin(Form, FormField, iterable=True)

def form(f):
    fields = []
    for var, field in f.get_fields().items():
        value = field.get_value(convert=False)
        fields.append({"var": var, "type": field["type"], "values": value if isinstance(value, list) else [value]})
    return {"type": f["type"], "fields": fields}

for line in sys.stdin:
    iq = Iq(xml=ET.fromstring(json.loads(line)))
    publish = iq["pubsub"]["publish"]
    items = list(publish)
    print(json.dumps({
        "type": iq["type"], "from": str(iq["from"]), "to": str(iq["to"]), "id": iq["id"],
        "node": publish["node"], "items": len(items),
        "summary": form(items[0]["notification"]["form"]),
        "options": form(iq["pubsub"]["publish_options"]) if iq["pubsub"].xml.find("{http://jabber.org/protocol/pubsub}publish-options") is not None else None,
    }))
`

// TestIndependentParser lets slixmpp read our publishes.
func TestIndependentParser(t *testing.T) {
	var python string
	err := errors.New("no python3 that has slixmpp")
	for _, name := range []string{"python3", "/usr/bin/python3"} { // the distribution's need not be the first
		if exec.Command(name, "-c", "import slixmpp").Run() == nil {
			python, err = name, nil
			break
		}
	}
	needPeer(t, err, "install it with: apt-get install python3-slixmpp")

	type field struct {
		Var    string   `json:"var"`
		Type   string   `json:"type"`
		Values []string `json:"values"`
	}
	type form struct {
		Type   string  `json:"type"`
		Fields []field `json:"fields"`
	}
	type seen struct {
		Type    string `json:"type"`
		From    string `json:"from"`
		To      string `json:"to"`
		ID      string `json:"id"`
		Node    string `json:"node"`
		Items   int    `json:"items"`
		Summary form   `json:"summary"`
		Options *form  `json:"options"`
	}
	const hostile = `"'<>& ]]> é 📱`
	plain := &push.Notification{Key: push.Key{Service: "push.example.net", Node: hostile}}
	odd := full()
	odd.Node, odd.Body, odd.Options[1].Values = hostile, hostile, []string{hostile}
	odd.Options = append(odd.Options, push.Field{Var: "many", Type: "text-multi", Values: []string{"b", "", "a"}})

	var in bytes.Buffer
	encode := func(n *push.Notification) {
		iq := n.AppendStanza(nil, "example.com", "i1")
		require.NoError(t, json.NewEncoder(&in).Encode(strings.Replace(string(iq), "<iq", `<iq xmlns="jabber:client"`, 1)))
		tokens, err := xml.Marshal(push.PublishIQ{IQ: stanza.IQ{ID: "i1", From: jid.MustParse("example.com"), To: jid.MustParse(n.Service), XMLName: xml.Name{Space: stanza.NSClient, Local: "iq"}}, Notification: n})
		require.NoError(t, err)
		require.NoError(t, json.NewEncoder(&in).Encode(strings.Replace(string(tokens), "<iq", `<iq xmlns="jabber:client"`, 1)))
	}
	encode(full())
	encode(plain)
	encode(odd)
	cmd := exec.Command(python, "-c", parseWithSlixmpp)
	cmd.Stdin = &in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())

	one := func(v string) []string { return []string{v} }
	summary := func(fields ...field) form {
		return form{"submit", append([]field{{"FORM_TYPE", "hidden", one("urn:xmpp:push:summary")}}, fields...)}
	}
	options := func(fields ...field) *form {
		return &form{"submit", append([]field{{"FORM_TYPE", "hidden", one("http://jabber.org/protocol/pubsub#publish-options")}}, fields...)}
	}
	want := seen{Type: "set", From: "example.com", To: "push.example.net", ID: "i1", Items: 1}
	wantFull, wantPlain, wantOdd := want, want, want
	wantFull.Node = "yxs32uqsflafdk3iuqo"
	wantFull.Summary = summary(field{"message-count", "", one("3")}, field{"last-message-sender", "", one("romeo@example.org/orchard")}, field{"last-message-body", "", one("Wherefore art thou?")})
	wantFull.Options = options(field{"secret", "", one("eruio234vzxc2kla-91")})
	wantPlain.Node, wantPlain.Summary = hostile, summary()
	wantOdd.Node = hostile
	wantOdd.Summary = summary(field{"message-count", "", one("3")}, field{"last-message-sender", "", one("romeo@example.org/orchard")}, field{"last-message-body", "", one(hostile)})
	wantOdd.Options = options(field{"secret", "", one(hostile)}, field{"many", "text-multi", []string{"b", "", "a"}})
	d := json.NewDecoder(bytes.NewReader(out))
	for _, w := range []seen{wantFull, wantFull, wantPlain, wantPlain, wantOdd, wantOdd} {
		var got seen
		require.NoError(t, d.Decode(&got), "%s", out)
		assert.Equal(t, w, got)
	}
}
