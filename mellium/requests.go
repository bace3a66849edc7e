package mellium

import (
	"cmp"
	"context"
	"encoding/xml"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp/disco/info"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push"
)

// RequestHandler answers enable and disable on the streams of clients. It is safe for simultaneous use.
type RequestHandler struct {
	// Engine takes the events. Required.
	Engine push.EventHandler
	// Session names the session that an IQ came from, or returns false if that is no session of a local account; then the request is
	// refused. Required. mellium's handlers are not told the connection: a host has a mux for each connection, whose Session returns
	// what authentication and binding said, or stamps each stanza with the full JID it was bound to and looks that up. It must not believe
	// a from that a client wrote. It is called on the goroutine that reads the stream.
	Session func(iq stanza.IQ) (push.SessionID, bool)
	// Offer is what clients are offered besides XEP-0357, and so which features are announced.
	Offer push.Offer
	// Timeout bounds how long the Engine may take, during which nothing else is read from the stream. Default 30 s.
	Timeout time.Duration
}

// HandleRequests returns an option that registers a handler of clients' requests. It panics if h lacks a required field, as mux does.
//
// With disco.Handle on the same mux the features are announced too. XEP-0357 §4.1 wants it on the account's bare JID; a host that answers
// the disco#info of accounts in another way adds what Offer.Features returns there.
func HandleRequests(h RequestHandler) mux.Option {
	if h.Engine == nil || h.Session == nil {
		panic("mellium: RequestHandler needs an Engine and a Session")
	}
	return func(m *mux.ServeMux) {
		for _, typ := range []stanza.IQType{stanza.SetIQ, stanza.GetIQ} {
			for _, ns := range []string{push.NS, push.NSPush2} {
				if ns == push.NSPush2 && !h.Offer.Push2 {
					continue // the mux answers that it does not know it
				}
				mux.IQ(typ, xml.Name{Space: ns, Local: "enable"}, h)(m)
				mux.IQ(typ, xml.Name{Space: ns, Local: "disable"}, h)(m)
			}
		}
	}
}

// HandleIQ implements mux.IQHandler. It returns an error only if the stream is broken or the stanza over the limits of all stanzas.
func (h RequestHandler) HandleIQ(iq stanza.IQ, t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	if !push.IsRequest(start.Name) || iq.Type != stanza.SetIQ && iq.Type != stanza.GetIQ {
		return nil
	}
	session, ok := h.Session(iq)
	if !ok {
		session = push.SessionID{}
	}
	q, err := push.ReadRequest(session, iq.Wrap(xmlstream.MultiReader(xmlstream.Token(*start), t)))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(h.Timeout, 30*time.Second))
	defer cancel()
	_, err = q.Answer(ctx, h.Engine).WriteXML(t)
	return err
}

// ForFeatures implements info.FeatureIter.
func (h RequestHandler) ForFeatures(node string, f func(info.Feature) error) error {
	if node != "" {
		return nil
	}
	for _, v := range h.Offer.Features() {
		if err := f(info.Feature{Var: v}); err != nil {
			return err
		}
	}
	return nil
}
