package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"sync"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// SASL, in the profile of RFC 6120 §6 and in that of XEP-0388.

const (
	nsSASL  = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsSASL2 = "urn:xmpp:sasl:2"
)

// saslMechanisms are the mechanisms, the best first. SCRAM-SHA-1 is what older clients know.
var saslMechanisms = []sasl.Mechanism{sasl.ScramSha256, sasl.ScramSha1, sasl.Plain}

// mechanisms is the element that announces them.
func mechanisms(space, local string) *element.Element {
	e := element.New(space, local)
	for _, m := range saslMechanisms {
		e.Add(element.New(space, "mechanism").Add(m.Name))
	}
	return e
}

// authenticate carries out one SASL exchange. It returns nil if that failed and may be tried again.
func (s *Server) authenticate(t *stream, auth *element.Element) (*login, error) {
	space, v2 := auth.Name.Space, auth.Name.Space == nsSASL2
	refuse := func(condition string) (*login, error) {
		t.send(element.New(space, "failure").Add(element.New(nsSASL, condition)))
		return nil, t.flush()
	}
	var a *account
	find := func(user, authz []byte) *account {
		j, err := jid.New(string(user), s.domain, "")
		if err != nil || len(authz) > 0 && string(authz) != j.String() {
			return nil // acting for somebody else (RFC 4616 §2) is not for this server
		}
		return s.account(j)
	}
	var mechanism sasl.Mechanism
	for _, m := range saslMechanisms {
		if m.Name == auth.Get("mechanism") {
			mechanism = m
		}
	}
	if mechanism.Name == "" {
		return refuse("invalid-mechanism")
	}
	n := sasl.NewServer(mechanism, func(n *sasl.Negotiator) bool {
		user, password, authz := n.Credentials()
		a = find(user, authz)
		return a != nil && hmac.Equal(password, []byte(a.password))
	}, sasl.SaltedCredentials(func(user, authz []byte, _ string) ([]byte, []byte, int64, error) {
		if a = find(user, authz); a == nil {
			return nil, nil, 0, sasl.ErrAuthn
		}
		salt, salted := a.scram.salted(mechanism.Name, a.password)
		return salt, salted, scramRounds, nil
	}))
	text, given := auth.Text(), auth.Text() != ""
	if v2 {
		first := auth.Child(nsSASL2, "initial-response")
		text, given = first.Text(), first != nil
	}
	for {
		if text == "=" {
			text = ""
		}
		in, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return refuse("incorrect-encoding")
		}
		if !given {
			// The mechanisms here want a first response, which may come separately.
			t.send(element.New(space, "challenge"))
		} else {
			more, out, err := n.Step(in)
			if err != nil || !more && a == nil {
				return refuse("not-authorized")
			}
			if !more && v2 {
				return &login{acct: a, v2: true, data: out, request: auth, client: auth.Child(nsSASL2, "user-agent").Get("id")}, nil
			}
			name := "challenge"
			if !more {
				name = "success"
			}
			reply := element.New(space, name)
			if len(out) > 0 {
				reply.Add(base64.StdEncoding.EncodeToString(out))
			}
			t.send(reply)
			if !more {
				return &login{acct: a}, t.flush()
			}
		}
		if err := t.flush(); err != nil {
			return nil, err
		}
		e, err := t.in.Next()
		if err != nil {
			return nil, err
		}
		if e.Is(space, "abort") {
			return refuse("aborted")
		}
		if !e.Is(space, "response") {
			return refuse("malformed-request")
		}
		text, given = e.Text(), true
	}
}

// scramRounds is the number of iterations of SCRAM (RFC 7677 §4).
const scramRounds = 4096

// scram is what SCRAM needs of an account's password, worked out once for each hash.
type scram struct {
	mu   sync.Mutex
	salt []byte
	keys map[string][]byte // by mechanism
}

func (c *scram) salted(mechanism, password string) (salt, key []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.salt, c.keys = make([]byte, 16), make(map[string][]byte)
		rand.Read(c.salt)
	}
	key = c.keys[mechanism]
	if key == nil {
		var of func() hash.Hash = sha256.New
		if mechanism == sasl.ScramSha1.Name {
			of = sha1.New
		}
		key = sasl.SCRAMSaltPassword(of, []byte(password), c.salt, scramRounds)
		c.keys[mechanism] = key
	}
	return c.salt, key
}
