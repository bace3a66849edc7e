package element

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestNamespaces checks that a stanza reads the same on every kind of stream, and is written with the namespaces that it needs.
func TestNamespaces(t *testing.T) {
	const inner = `<message to="a@b" xml:lang="en"><body>1 &lt; 2 &amp; "3"</body><forwarded xmlns="urn:xmpp:forward:0"><message xmlns="jabber:client"><x:y xmlns:x="urn:x" xmlns:z="urn:z" x:a="1" z:a="2" b="3"/></message></forwarded></message>`
	const want = `<message to='a@b' xml:lang='en'><body>1 &lt; 2 &amp; &quot;3&quot;</body><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><y xmlns='urn:x' xmlns:a0='urn:x' a0:a='1' xmlns:a1='urn:z' a1:a='2' b='3'/></message></forwarded></message>`
	for _, ns := range []string{NSClient, NSComponent} {
		r := NewReader(strings.NewReader(`<?xml version="1.0"?><stream:stream xmlns="` + ns + `" xmlns:stream="` + NSStream + `" to="c">` + inner + ` </stream:stream>`))
		head, err := r.Header()
		if err != nil || head.Get("to") != "c" {
			t.Fatal(head, err)
		}
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if got := e.String(); got != want {
			t.Errorf("%s\n%s, want\n%s", ns, got, want)
		}
		if got := string(e.AppendAlone(nil)); got != strings.Replace(want, "<message", "<message xmlns='jabber:client'", 1) {
			t.Errorf("alone: %s", got)
		}
		if _, err := r.Next(); !errors.Is(err, ErrClosed) {
			t.Errorf("at the end: %v", err)
		}
	}
}

func TestUnusable(t *testing.T) {
	for in, want := range map[string]error{
		"<a><b></a>":                          ErrXML,
		"<a b='' b=''/>":                      ErrXML,
		"<x:0 xmlns:x='urn:x'/>":              ErrXML,
		"<a>&nbsp;</a>":                       ErrXML,
		"<!DOCTYPE a><a/>":                    ErrXML,
		"<?php ?><a/>":                        ErrXML,
		"<!-- a --><a/>":                      ErrXML,
		"<a>" + strings.Repeat("x", maxBytes): ErrXML,
		strings.Repeat("<a>", maxDepth+1):     ErrXML,
		"<a":                                  io.EOF,
		"<a><b/>":                             io.EOF,
		"":                                    io.EOF,
	} {
		if _, err := NewReader(strings.NewReader(in)).Next(); !errors.Is(err, want) {
			t.Errorf("%.20s: %v, want %v", in, err, want)
		}
	}
}

// TestKept: what was accepted and written larger than it came, in something deeper, is read again.
func TestKept(t *testing.T) {
	attrs := ""
	for i := range maxAttr {
		attrs += fmt.Sprintf(" a%d='>'", i)
	}
	in := strings.Repeat("<a>", maxDepth-1) + "<b" + attrs + ">" + strings.Repeat(">", 200_000) + "</b>" + strings.Repeat("</a>", maxDepth-1)
	e, err := NewReader(strings.NewReader(in)).Next()
	if err != nil {
		t.Fatal(err)
	}
	e = New("urn:x", "wrap").Add(New("urn:x", "wrap").Add(e))
	again, err := Parse(e.AppendAlone(nil))
	if err != nil || string(again.AppendAlone(nil)) != string(e.AppendAlone(nil)) {
		t.Error(err)
	}
}

// FuzzReader checks that nothing from outside breaks the reader, and that what it reads is written so that it reads the same.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		"<message to='a'><body>x</body></message>", "<a xmlns='urn:a'><b xmlns=''/><c xmlns='jabber:client' d:e='&#xD;&#x9;' xmlns:d='urn:d'/></a>",
		"<a xml:lang='en'/>", "<a>]]&gt;</a>", "<x:a xmlns:x='urn:x'/>", "<a",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := NewReader(bytes.NewReader(b)).Next()
		if err != nil {
			return
		}
		once := e.AppendAlone(nil)
		again, err := Parse(once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice := again.AppendAlone(nil); string(twice) != string(once) {
			t.Errorf("%s became %s", once, twice)
		}
	})
}
