package mellium

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push"
)

// AffiliationHandler takes affiliation notices from the streams of other servers and of components. It is not for streams of clients,
// unless the host stamps or checks the from of what they send. It is safe for simultaneous use.
type AffiliationHandler struct {
	// Engine takes the events. Required. Its errors go to its own log; the service's next answer will tell the same again.
	Engine push.EventHandler
	// Account tells whether a bare JID is an account of this host; notices for others are ignored. Nil: the Engine's Store is asked, in
	// which others have nothing.
	Account func(bare string) bool
	// Timeout bounds how long the Engine may take, during which nothing else is read from the stream. Default 30 s.
	Timeout time.Duration
}

// HandleAffiliations returns an option that registers a handler of affiliation notices. It panics if h has no Engine.
func HandleAffiliations(h AffiliationHandler) mux.Option {
	if h.Engine == nil {
		panic("mellium: AffiliationHandler needs an Engine")
	}
	return func(m *mux.ServeMux) {
		name := xml.Name{Space: "http://jabber.org/protocol/pubsub", Local: "pubsub"}
		mux.Message(stanza.NormalMessage, name, h)(m)
		mux.Message(stanza.HeadlineMessage, name, h)(m)
	}
}

// HandleMessage implements mux.MessageHandler. What is not a notice is ignored, for an error would end the stream. A message with several
// <pubsub/>, for each of which mux calls it, is none.
func (h AffiliationHandler) HandleMessage(_ stanza.Message, t xmlstream.TokenReadEncoder) error {
	ev, err := push.ReadAffiliation(t)
	if errors.Is(err, push.ErrNotPush) || errors.Is(err, push.ErrStanza) || h.Account != nil && !h.Account(ev.Account) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(h.Timeout, 30*time.Second))
	defer cancel()
	_, _ = h.Engine.Handle(ctx, ev)
	return nil
}
