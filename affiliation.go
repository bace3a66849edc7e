package push

import (
	"encoding/xml"
	"fmt"

	"github.com/xmpp-push/push/internal/stanzaxml"
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
// from the service to the account's bare JID, with one <pubsub/> that has an affiliation "none" for this account. The event's Account is the
// message's to, its Service the message's from. Give it to [Engine.Handle] if that is an account of the host, and only if the host knows that the
// message came from where it says: a forged one takes a registration away.
//
// An error wraps ErrNotPush if the message is something else, which is nothing to complain about, or ErrStanza if it is no stanza.
func ParseAffiliation(data []byte) (AffiliationNone, error) {
	e, err := stanzaxml.Parse(data)
	if err != nil {
		return AffiliationNone{}, err
	}
	return readAffiliation(e)
}

// ReadAffiliation is ParseAffiliation for a token reader that is positioned before the message's start element. If there is an error
// it may not have read to the message's end.
func ReadAffiliation(r xml.TokenReader) (AffiliationNone, error) {
	return readAffiliation(stanzaxml.New(r))
}

func readAffiliation(e *stanzaxml.Element) (AffiliationNone, error) {
	e.Limit = maxNoticeBytes
	start, err := e.Open()
	if err != nil {
		return AffiliationNone{}, err
	}
	if kindOf(start.Name.Space, start.Name.Local) != KindMessage || stanzaxml.Attribute(start, "type") == "error" {
		return AffiliationNone{}, errOther // an error would be our own message that came back
	}
	account, _ := prepared(stanzaxml.Attribute(start, "to"))
	if account == "" || bare(account) != account {
		return AffiliationNone{}, errOther
	}
	service, _ := prepared(stanzaxml.Attribute(start, "from"))
	if service == "" || bare(service) == account {
		return AffiliationNone{}, errOther
	}
	a := AffiliationNone{Account: account, Key: Key{Service: service}}
	children, pubsubs, found := 0, 0, false
	affiliation := func(s xml.StartElement, node string) {
		who, _ := prepared(stanzaxml.Attribute(s, "jid"))
		if s.Name == (xml.Name{Space: nsPubsub, Local: "affiliation"}) && stanzaxml.Attribute(s, "affiliation") == "none" && who == account {
			a.Node, found = node, true
		}
	}
	err = e.Children(func(child xml.StartElement) error {
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
		node := stanzaxml.Attribute(child, "node")
		return e.Children(func(child xml.StartElement) error {
			if child.Name != (xml.Name{Space: nsPubsub, Local: "affiliations"}) {
				affiliation(child, node)
				return nil
			}
			// This is how XEP-0060 §8.9.4 has it, with the node one element further in.
			inner := stanzaxml.Attribute(child, "node")
			return e.Children(func(child xml.StartElement) error {
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
