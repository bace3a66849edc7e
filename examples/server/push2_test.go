package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// device is a phone that has its messages shown without connecting, with Push 2.0.
type device struct {
	*peer.Client
	private *ecdh.PrivateKey
	auth    []byte
}

const nsPush2Enable = "urn:xmpp:push2:0"

// enable2 asks for notifications as the SDK of Borogove and Snikket does.
func (w *world) enable2(c *peer.Client, profile string) *device {
	w.t.Helper()
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	w.ok(err)
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.ok(err)
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	w.ok(err)
	d := &device{Client: c, private: private, auth: make([]byte, 16)}
	_, _ = rand.Read(d.auth)
	b64 := base64.StdEncoding.EncodeToString
	text := func(name, text string, attrs ...string) *element.Element {
		return element.New("urn:xmpp:push2:send:sce+rfc8291+rfc8292:0", name, attrs...).Add(text)
	}
	send := element.New("urn:xmpp:push2:send:sce+rfc8291+rfc8292:0", "send").Add(
		text("ua-public", b64(private.PublicKey().Bytes())), text("auth-secret", b64(d.auth)),
		text("jwt-alg", "ES256"), text("jwt-key", b64(der)), text("jwt-claim", "https://push.example.net", "name", "aud"))
	_, err = c.Request(w.ctx(), "set", "", element.New(nsPush2Enable, "enable").Add(
		element.New(nsPush2Enable, "service").Add(pushDomain), element.New(nsPush2Enable, "client").Add("client-of-"+c.JID),
		element.New(nsPush2Enable, "match", "profile", "urn:xmpp:push2:match:"+profile).Add(send)))
	w.ok(err)
	return d
}

// open reads a notification as the device does (RFC 8291 §3, XEP-0420), and returns the message in it.
func (d *device) open(w *world, m *element.Element) *element.Element {
	w.t.Helper()
	payload := m.Child(nsPush2Enable, "notification").Child("urn:xmpp:sce:rfc8291:0", "encrypted").Child("urn:xmpp:sce:rfc8291:0", "payload").Text()
	body, err := base64.StdEncoding.DecodeString(payload)
	w.ok(err)
	if len(body) < 86+17 {
		w.t.Fatalf("no payload in %s", m)
	}
	theirs, err := ecdh.P256().NewPublicKey(body[21:86])
	w.ok(err)
	shared, err := d.private.ECDH(theirs)
	w.ok(err)
	derive := func(secret, salt []byte, info string, n int) []byte {
		k, err := hkdf.Key(sha256.New, secret, salt, info, n)
		w.ok(err)
		return k
	}
	secret := derive(shared, d.auth, "WebPush: info\x00"+string(d.private.PublicKey().Bytes())+string(body[21:86]), 32)
	block, err := aes.NewCipher(derive(secret, body[:16], "Content-Encoding: aes128gcm\x00", 16))
	w.ok(err)
	aead, err := cipher.NewGCM(block)
	w.ok(err)
	plain, err := aead.Open(nil, derive(secret, body[:16], "Content-Encoding: nonce\x00", 12), body[86:], nil)
	w.ok(err)
	envelope, err := element.Parse(plain[:len(plain)-1])
	w.ok(err)
	return envelope.Child("urn:xmpp:sce:1", "content").Child("urn:xmpp:forward:0", "forwarded").Child("", "message")
}

// TestPush2 has a phone show messages that it never fetched, and a push service that is told nothing but that there are some.
func TestPush2(t *testing.T) {
	bubble(t, func(w *world) {
		juliet, romeo := w.connect("juliet", "phone"), w.connect("romeo", "balcony")
		info, err := juliet.Request(w.ctx(), "get", "juliet@localhost", element.New(nsDiscoInfo, "query"))
		w.ok(err)
		for _, f := range []string{"urn:xmpp:push:0", "urn:xmpp:push2:0", "urn:xmpp:push2:match:archived-with-body", "urn:xmpp:push2:send:sce+rfc8291+rfc8292:0", "tigase:push:encrypt:0"} {
			if !strings.Contains(info.String(), `"`+f+`"`) && !strings.Contains(info.String(), `'`+f+`'`) {
				t.Errorf("%s is not announced: %s", f, info)
			}
		}
		d := w.enable2(juliet, "archived-with-body")
		w.drop(juliet)
		say := func(body string) {
			w.ok(romeo.Send(element.New("", "message", "to", "juliet@localhost", "type", "chat", "id", "id-"+body).Add(
				element.New("", "body").Add(body), element.New("urn:example", "more"))))
		}
		receive := func() *element.Element {
			ctx, cancel := context.WithTimeout(w.ctx(), time.Minute)
			defer cancel()
			m, err := w.svc.Message(ctx)
			w.ok(err)
			if got := m.Child(nsPush2Enable, "notification").Child(nsPush2Enable, "client").Text(); got != "client-of-"+juliet.JID {
				t.Errorf("client is %q", got)
			}
			if s := m.String(); strings.Contains(s, "romeo") || strings.Contains(s, "light") {
				t.Errorf("in the clear: %s", s)
			}
			return m
		}
		say("what light")
		m := d.open(w, receive())
		if m.Child("", "body").Text() != "what light" || m.Get("from") != romeo.JID || m.Child("urn:xmpp:sid:0", "stanza-id").Get("by") != "juliet@localhost" {
			t.Errorf("the device reads %s", m)
		}
		if m.Child("urn:example", "more") == nil {
			t.Errorf("it is not the whole stanza: %s", m)
		}
		// A chat state has no body.
		w.ok(romeo.Send(element.New("", "message", "to", "juliet@localhost", "type", "chat").Add(element.New("http://jabber.org/protocol/chatstates", "active"))))
		say("soft")
		if m := d.open(w, receive()); m.Child("", "body").Text() != "soft" {
			t.Errorf("the device reads %s", m)
		}
		time.Sleep(time.Minute)

		// An error that says to wait is tried again; another is not.
		w.svc.Refuse("wait", "resource-constraint")
		say("it is the east")
		receive()
		w.svc.Refuse("cancel", "service-unavailable")
		if m := d.open(w, receive()); m.Child("", "body").Text() != "it is the east" {
			t.Errorf("the device reads %s", m)
		}
		ctx, cancel := context.WithTimeout(w.ctx(), time.Hour)
		defer cancel()
		if m, err := w.svc.Message(ctx); err == nil {
			t.Errorf("tried again: %s", m)
		}
	})
}
