package main

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/xmpp-push/push/examples/server/internal/element"
)

// What newer clients do while they log in (XEP-0388), so that they are there after one round trip: bind a resource and turn things on (XEP-0386), or
// resume (XEP-0198 §7).

const nsBind2 = "urn:xmpp:bind:0"

// inlineFeatures says what can be done.
func inlineFeatures() *element.Element {
	bind := element.New(nsBind2, "inline")
	for _, f := range []string{nsSM, nsCarbons, nsCSI} {
		bind.Add(element.New(nsBind2, "feature", "var", f))
	}
	return element.New(nsSASL2, "inline").Add(element.New(nsBind2, "bind").Add(bind), element.New(nsSM, "sm"))
}

// success tells a client that it is logged in, as whom, and what became of the rest of its request.
func (in *login) success(t *stream, as string, rest ...any) {
	e := element.New(nsSASL2, "success")
	if len(in.data) > 0 {
		e.Add(element.New(nsSASL2, "additional-data").Add(base64.StdEncoding.EncodeToString(in.data)))
	}
	t.send(e.Add(element.New(nsSASL2, "authorization-identifier").Add(as)).Add(rest...))
}

// enterInline does what a client has asked for with its login. Done says that it has a session, or can get none on this stream.
func (s *Server) enterInline(t *stream, in *login) (x *session, done bool, err error) {
	a := in.acct
	var rest []any
	if resume := in.request.Child(nsSM, "resume"); resume != nil {
		x, failed := a.resume(t, resume, func(x *session, resumed *element.Element) {
			in.success(t, x.jid.String(), resumed) // and no stream features
		})
		if x != nil {
			return x, true, nil
		}
		rest = append(rest, failed)
	}
	bind := in.request.Child(nsBind2, "bind")
	if bind == nil {
		in.success(t, a.jid, rest...)
		return nil, false, nil
	}
	x, out := a.bind(t, in.resource(bind.Child(nsBind2, "tag").Text()), in.client, func(x *session) {
		bound := element.New(nsBind2, "bound")
		if enable := bind.Child(nsSM, "enable"); enable != nil {
			bound.Add(x.manage(enable))
		}
		x.carbons = bind.Child(nsCarbons, "enable") != nil
		x.inactive = bind.Child(nsCSI, "inactive") != nil
		x.save()
		s.keep.After(func(err error) { // that the session can be resumed is a promise
			if err == nil {
				in.success(t, x.jid.String(), append(rest, bound)...)
				t.sendOwn("features", element.New(nsCSI, "csi"))
			}
		})
	})
	s.route(out...)
	if x == nil {
		t.close("policy-violation")
		return nil, true, errors.New("no resource")
	}
	return x, true, nil
}

// resource makes a resource of what a client calls its kind. It is the same each time for a client that has told its name, so that a session of its that is
// still there is replaced.
func (in *login) resource(tag string) string {
	unique := newID()
	if in.client != "" {
		sum := sha256.Sum256([]byte(in.acct.jid + "\x00" + in.client))
		unique = strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
	}
	if tag == "" {
		return unique
	}
	return tag + "~" + unique
}
