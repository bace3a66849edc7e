package push

import (
	"cmp"
	"encoding/xml"

	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push/internal/stanzaxml"
)

// ReadReply reads an IQ of type result or error, or a message of type error (Push 2.0), the answer to a publish, from a token reader that is
// positioned before its start element. from is its sender as it is written, and e nil for a result. It is for Publishers of a host's own that read
// tokens and know which publish the answer is to. An error wraps ErrNotPush if the stanza is none of these, or ErrStanza if it is none at all.
func ReadReply(r xml.TokenReader) (from string, e *ReplyError, err error) {
	el := stanzaxml.New(r)
	start, err := el.Open()
	if err != nil {
		return "", nil, err
	}
	typ := stanzaxml.Attribute(start, "type")
	if !isReply(kindOf(start.Name.Space, start.Name.Local), typ) {
		return "", nil, ErrNotPush
	}
	if typ == "error" {
		e, err = readReplyError(el)
	}
	return stanzaxml.Attribute(start, "from"), e, err
}

// isReply tells whether a stanza can be the reply to a publish: a message is one only if it is an error.
func isReply(k Kind, typ string) bool {
	return k == KindIQ && (typ == "result" || typ == "error") || k == KindMessage && typ == "error"
}

// readReplyError reads the rest of a stanza of type error (RFC 6120 §8.3). It gives what the sender may have echoed of the publish to nobody.
func readReplyError(e *stanzaxml.Element) (*ReplyError, error) {
	re := &ReplyError{}
	err := e.Children(func(child xml.StartElement) error {
		if child.Name.Local != "error" || !isStanzaNS(child.Name.Space) || *re != (ReplyError{}) {
			return nil
		}
		re.Type = stanzaxml.Attribute(child, "type")
		special := ""
		err := e.Children(func(child xml.StartElement) error {
			switch child.Name.Space {
			case stanza.NSError:
				if child.Name.Local != "text" && re.Condition == "" {
					re.Condition = child.Name.Local
				}
			case nsPubsub + "#errors":
				special = child.Name.Local
			}
			return nil
		}, nil)
		if special == "payload-too-big" {
			re.Condition = special
		}
		return err
	}, nil)
	return re.sane(), err
}

// sane returns e with what every error reply has, and without what only a broken or hostile service sends: the condition is stored
// and shown.
func (e *ReplyError) sane() *ReplyError {
	s := ReplyError{Type: e.Type, Condition: cmp.Or(e.Condition, "undefined-condition")}
	switch stanza.ErrorType(s.Type) {
	case stanza.Cancel, stanza.Modify, stanza.Auth, stanza.Wait, stanza.Continue:
	default:
		s.Type = "cancel"
	}
	for i := range len(s.Condition) {
		if b := s.Condition[i]; i == 64 || b != '-' && (b < 'a' || b > 'z') {
			s.Condition = "undefined-condition"
			break
		}
	}
	return &s
}
