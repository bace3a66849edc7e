package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// TestAppServer publishes to mod_push_appserver, the app server that Prosody's authors of push wrote, through its real Prosody: with the node and secret that
// it gave a device, and with wrong ones. It is not in any distribution:
//
//	git clone https://github.com/tmolitor-stud-tu/mod_push_appserver && apt-get install lua-penlight
//	PUSH_TEST_APPSERVER=$PWD/mod_push_appserver go test -run TestAppServer ./examples/server
func TestAppServer(t *testing.T) {
	modules := os.Getenv("PUSH_TEST_APPSERVER")
	if modules == "" {
		t.Skip("PUSH_TEST_APPSERVER does not say where mod_push_appserver is")
	}
	own, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := peer.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	p, err := peer.StartProsody("server.localhost", "secret", "pw", fmt.Sprintf(`
plugin_paths = { "/usr/lib/prosody/modules", %q, %q }
http_ports = { %s }
http_interfaces = { "127.0.0.1" }
http_default_host = "apps.localhost"
https_ports = {}
Component "apps.localhost" "push_appserver"
	modules_enabled = { "push_appserver_test" }
	push_appserver_debugging = true
`, modules, own, port))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	defer func() {
		if t.Failed() {
			t.Log(p.Log())
		}
	}()
	reply, err := http.PostForm("http://127.0.0.1:"+port+"/push_appserver/v1/register", url.Values{"type": {"test"}, "node": {"n1"}, "token": {"t1"}})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(reply.Body)
	reply.Body.Close()
	given := strings.Fields(string(b)) // OK, node, secret
	if len(given) != 3 || given[0] != "OK" {
		t.Fatalf("registered: %s %s", reply.Status, b)
	}

	conn, err := net.Dial("tcp", p.Components)
	if err != nil {
		t.Fatal(err)
	}
	router := &push.Router{Host: "server.localhost"}
	component, err := peer.ConnectComponent(conn, "server.localhost", "secret", func(e *element.Element) {
		if _, err := router.HandleReply(e.AppendAlone(nil)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer component.Close()
	router.Send = func(_ context.Context, _ string, iq []byte) error {
		st, err := element.Parse(iq)
		if err != nil {
			return err
		}
		return component.Send(st.Set("from", "server.localhost"))
	}
	publish := func(node, secret string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := router.Publish(ctx, &push.Notification{
			Account: "juliet@localhost", Key: push.Key{Service: "apps.localhost", Node: node}, Class: push.ClassImportant, Count: 1, Unread: 1, Body: "New Message!", Try: 1,
			Options: []push.Field{{Var: "FORM_TYPE", Type: "hidden", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}}, {Var: "secret", Values: []string{secret}}},
		})
		var refused *push.ReplyError
		switch {
		case err == nil:
			return "accepted"
		case errors.As(err, &refused):
			return refused.Type + " " + refused.Condition
		}
		return err.Error()
	}
	if got := publish("n1", given[2]); got != "accepted" {
		t.Errorf("with the secret: %s", got)
	}
	if got := publish("n1", "made up"); got != "cancel item-not-found" {
		t.Errorf("with another: %s", got)
	}
	if got := publish("n2", given[2]); got != "cancel item-not-found" {
		t.Errorf("another node: %s", got)
	}
	if log := p.Log(); !strings.Contains(log, "pushed to t1: New Message!") {
		t.Errorf("it was not pushed: %s", log)
	}
}
