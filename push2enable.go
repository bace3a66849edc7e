package push

import (
	"encoding/xml"
	"strconv"
	"strings"
	"time"

	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push/internal/stanzaxml"
	"github.com/xmpp-push/push/internal/webpush"
	"github.com/xmpp-push/push/wishes"
)

// maxServiceBytes is more than the longest JID (RFC 7622 §3.1).
const maxServiceBytes = 3072

// readPush2 reads the children of an <enable/>.
func (p *payload) readPush2(e *stanzaxml.Element) error {
	p.wishes.Push2 = new(wishes.Push2)
	client, matches := false, 0
	text := func(name string, limit int) (string, error) {
		s, err := e.Text(limit, func() { p.bad(name + " has elements in it") })
		s = strings.TrimSpace(s)
		if len(s) > limit {
			p.large("%s is longer than %d bytes", name, limit)
		} else if stanzaxml.CheckText(s) != nil {
			p.bad(name + " is not text")
		}
		return s, err
	}
	err := e.Children(func(child xml.StartElement) (err error) {
		if child.Name.Space != NSPush2 {
			return nil
		}
		switch child.Name.Local {
		case "service":
			if p.service != "" {
				p.bad("there is more than one service")
			}
			p.service, err = text("service", maxServiceBytes)
		case "client":
			if client {
				p.bad("there is more than one client")
			}
			var s string
			s, err = text("client", wishes.MaxClientBytes)
			client, p.wishes.Push2.Client = s != "", wishes.NewSecret(s)
		case "match":
			matches++
			if len(p.wishes.Push2.Matches) == wishes.MaxMatches {
				p.large("more than %d matches", wishes.MaxMatches)
				return nil
			}
			err = p.match(e, child)
		}
		return err
	}, nil)
	switch {
	case err != nil:
	case !client:
		p.bad("client is missing")
	case matches == 0:
		p.bad("match is missing")
	case len(p.wishes.Push2.Matches) == 0:
		p.refuse(stanza.FeatureNotImplemented, "none of the matches is known")
	}
	p.finish()
	return err
}

// match reads a <match/>. One of a profile that is not known is left out, and so is one that is to be sent in a way that is not known. If nothing
// is said of how to send it (an older draft had that elsewhere), a notification without content does no harm.
func (p *payload) match(e *stanzaxml.Element, start xml.StartElement) error {
	var m wishes.Match
	profile, ok := strings.CutPrefix(stanzaxml.Attribute(start, "profile"), NSMatch)
	known := ok && m.Profile.UnmarshalText([]byte(profile)) == nil
	sends, knownSend := false, false
	err := e.Children(func(child xml.StartElement) error {
		switch {
		case !known:
		case child.Name == xml.Name{Space: NSPush2, Local: "grace"}:
			s, err := e.Text(32, func() {})
			seconds, bad := strconv.ParseUint(strings.TrimSpace(s), 10, 31)
			if bad != nil {
				p.bad("grace is not a number of seconds")
			}
			m.Grace = min(time.Duration(seconds)*time.Second, wishes.MaxGrace)
			return err
		case child.Name == xml.Name{Space: NSPush2, Local: "filter"}:
			return p.filter(e, child, &m)
		case child.Name.Local == "send":
			sends = true
			switch {
			case knownSend: // the first that is known
			case child.Name.Space == NSNotifyOnly:
				knownSend = true
			case child.Name.Space == NSEncrypted:
				knownSend = true
				return p.webPush(e, &m)
			}
		}
		return nil
	}, nil)
	if known && (knownSend || !sends) {
		p.wishes.Push2.Matches = append(p.wishes.Push2.Matches, m)
	}
	return err
}

func (p *payload) filter(e *stanzaxml.Element, start xml.StartElement, m *wishes.Match) error {
	f := wishes.ChatFilter{JID: p.chat(start, len(m.Filters))}
	err := e.Children(func(child xml.StartElement) error {
		switch child.Name {
		case xml.Name{Space: NSPush2, Local: "mention"}:
			f.Mention = true
		case xml.Name{Space: NSPush2, Local: "reply"}:
			f.Reply = true
		}
		return nil
	}, nil)
	if f.JID != "" {
		m.Filters = append(m.Filters, f)
	}
	return err
}

// webPush reads how a message is to be encrypted.
func (p *payload) webPush(e *stanzaxml.Element, m *wishes.Match) error {
	var alg, key string
	w := &wishes.WebPush{}
	err := e.Children(func(child xml.StartElement) error {
		if child.Name.Space != NSEncrypted && child.Name.Space != NSPush2 {
			return nil
		}
		s, err := e.Text(wishes.MaxClientBytes, func() { p.bad(child.Name.Local + " has elements in it") })
		if len(s) > wishes.MaxClientBytes {
			p.large("%s is longer than %d bytes", child.Name.Local, wishes.MaxClientBytes)
			return err
		}
		var bad error
		var b []byte
		switch child.Name.Local {
		case "ua-public":
			w.Public, bad = decodeBase64(s)
		case "auth-secret":
			b, bad = decodeBase64(s)
			w.Auth = wishes.NewSecret(string(b))
		case "jwt-alg":
			alg = strings.TrimSpace(s)
		case "jwt-key":
			key = s
		case "jwt-claim":
			c := wishes.Claim{Name: stanzaxml.Attribute(child, "name"), Value: s}
			switch {
			case c.Name == "" || stanzaxml.CheckText(c.Name) != nil || stanzaxml.CheckText(c.Value) != nil:
				p.bad("a claim has no name, or is not text")
			case len(w.Claims) == wishes.MaxClaims || len(c.Name)+len(c.Value) > wishes.MaxClientBytes:
				p.large("more than %d claims, or one of more than %d bytes", wishes.MaxClaims, wishes.MaxClientBytes)
			default:
				w.Claims = append(w.Claims, c)
			}
		}
		if bad != nil {
			p.bad(child.Name.Local + " is not base64")
		}
		return err
	}, nil)
	switch webpush.Check(w.Public, []byte(w.Auth.Reveal())) {
	case webpush.ErrPublic:
		p.bad("ua-public is not a raw uncompressed P-256 point")
	case webpush.ErrAuth:
		p.bad("auth-secret has not 16 bytes")
	}
	if alg == "" {
		w.Claims = nil // there is no token
	} else {
		p.token(w, alg, key)
	}
	m.Send = w
	return err
}

// token reads the key of the token. RFC 8292 §2 has no other algorithm than ES256, and a push service that follows it would refuse others.
func (p *payload) token(w *wishes.WebPush, alg, key string) {
	if alg != "ES256" {
		p.refuse(stanza.FeatureNotImplemented, "the token's algorithm is not ES256")
		return
	}
	der, err := decodeBase64(key)
	if err == nil {
		_, err = webpush.ParseKey(der)
	}
	if err != nil {
		p.bad("jwt-key is not a P-256 private key in PKCS#8")
		return
	}
	w.TokenKey = wishes.NewSecret(string(der))
}
