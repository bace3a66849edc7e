package push

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/stanza"
)

const nsPubsub = "http://jabber.org/protocol/pubsub"

// Limits on an affiliation notice, which is small. A larger message is none.
const (
	maxNoticeBytes    = 8192
	maxNoticeChildren = 16
)

// errOther ends the reading of a message that turns out not to be a notice.
var errOther = fmt.Errorf("%w: no affiliation notice", ErrNotPush)

// ParseAffiliation reads the message with which a push service tells an account that it may no longer publish to a node (XEP-0357 §8):
// from the service to the account's bare JID, with one <pubsub/> that has an affiliation "none" for this account. The event is to be given to
// [Engine.Handle] if to is an account of the host, and only if the host knows that the message came from where it says: the registration
// it takes away is one at the service whose JID is the message's from.
//
// An error wraps ErrNotPush if the message is something else, which is nothing to complain about, or ErrStanza if it is no stanza.
func ParseAffiliation(data []byte) (AffiliationNone, error) {
	e, err := parseElement(data)
	if err != nil {
		return AffiliationNone{}, err
	}
	return readAffiliation(e)
}

// ReadAffiliation is ParseAffiliation for a token reader that is positioned before the message's start element. If there is an error
// it may not have read to the message's end.
func ReadAffiliation(r xml.TokenReader) (AffiliationNone, error) {
	return readAffiliation(newElement(r))
}

func readAffiliation(e *element) (AffiliationNone, error) {
	e.limit = maxNoticeBytes
	start, err := e.open()
	if err != nil {
		return AffiliationNone{}, err
	}
	if kindOf(start.Name.Space, start.Name.Local) != KindMessage || attribute(start, "type") == "error" {
		return AffiliationNone{}, errOther // an error would be our own message that came back
	}
	account, err := prepared(attribute(start, "to"))
	if err != nil || account == "" || bare(account) != account {
		return AffiliationNone{}, errOther
	}
	service, err := prepared(attribute(start, "from"))
	if err != nil || service == "" || bare(service) == account {
		return AffiliationNone{}, errOther
	}
	a := AffiliationNone{Account: account, Key: Key{Service: service}}
	children, pubsubs, found := 0, 0, false
	affiliation := func(s xml.StartElement, node string) {
		who, err := prepared(attribute(s, "jid"))
		if s.Name == (xml.Name{Space: nsPubsub, Local: "affiliation"}) && attribute(s, "affiliation") == "none" && err == nil && who == account {
			a.Node, found = node, true
		}
	}
	err = e.children(func(child xml.StartElement) error {
		children++
		if children > maxNoticeChildren {
			return errOther
		}
		if child.Name != (xml.Name{Space: nsPubsub, Local: "pubsub"}) {
			return nil
		}
		pubsubs++
		if pubsubs > 1 {
			return errOther
		}
		node := attribute(child, "node")
		return e.children(func(child xml.StartElement) error {
			if child.Name != (xml.Name{Space: nsPubsub, Local: "affiliations"}) {
				affiliation(child, node)
				return nil
			}
			// This is how XEP-0060 §8.9.4 has it, with the node one element further in.
			inner := attribute(child, "node")
			return e.children(func(child xml.StartElement) error {
				affiliation(child, inner)
				return nil
			}, nil)
		}, nil)
	}, nil)
	if err != nil {
		return AffiliationNone{}, err
	}
	if !found || len(a.Node) > MaxNodeBytes {
		return AffiliationNone{}, errOther
	}
	return a, nil
}

// AffiliationHandler takes affiliation notices from the streams of other servers and of components. It is not for streams of clients,
// unless the host stamps or checks the from of what they send. It is safe for simultaneous use.
type AffiliationHandler struct {
	// Engine takes the events. Required. Its errors go to its own log; the service's next answer will tell the same again.
	Engine EventHandler
	// Account tells whether a bare JID is an account of this host; notices for others are ignored. Nil: the Engine's Store is asked, in
	// which others have nothing.
	Account func(bare string) bool
	// Timeout bounds how long the Engine may take, during which nothing else is read from the stream. Default 30 s.
	Timeout time.Duration
}

// HandleAffiliation returns an option that registers a handler of affiliation notices. It panics if h has no Engine.
func HandleAffiliation(h AffiliationHandler) mux.Option {
	if h.Engine == nil {
		panic("push: AffiliationHandler needs an Engine")
	}
	return func(m *mux.ServeMux) {
		name := xml.Name{Space: nsPubsub, Local: "pubsub"}
		mux.Message(stanza.NormalMessage, name, h)(m)
		mux.Message(stanza.HeadlineMessage, name, h)(m)
	}
}

// HandleMessage implements mux.MessageHandler. What is not a notice is ignored, for an error would end the stream. A message with several
// <pubsub/>, for each of which mux calls it, is none.
func (h AffiliationHandler) HandleMessage(_ stanza.Message, t xmlstream.TokenReadEncoder) error {
	ev, err := ReadAffiliation(t)
	if errors.Is(err, ErrNotPush) || errors.Is(err, ErrStanza) || h.Account != nil && !h.Account(ev.Account) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), orDefault(h.Timeout, 30*time.Second))
	defer cancel()
	_, _ = h.Engine.Handle(ctx, ev)
	return nil
}
