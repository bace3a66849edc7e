package main

import (
	"sort"
	"strconv"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
)

// IQ requests that the server answers itself.

const (
	nsLegacy     = "urn:ietf:params:xml:ns:xmpp-session"
	nsDiscoInfo  = "http://jabber.org/protocol/disco#info"
	nsDiscoItems = "http://jabber.org/protocol/disco#items"
	nsPing       = "urn:xmpp:ping"
	nsCarbons    = "urn:xmpp:carbons:2"
	nsRoster     = "jabber:iq:roster"
)

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// iq answers a request that a client makes of its account or of the server.
func (x *session) iq(iq *element.Element) *element.Element {
	s := x.acct.srv
	typ, payload := iq.Get("type"), iq.First()
	if typ != "get" && typ != "set" {
		return nil // an answer to nobody
	}
	if payload == nil {
		return element.Error(iq, "modify", "bad-request")
	}
	own := iq.Get("to") == "" || iq.Get("to") == x.acct.jid
	switch name := payload.Name; {
	case name.Space == push.NS, name.Space == push.NSPush2:
		return s.push.request(x, iq)
	case name.Space == nsRoster && own:
		return x.rosterIQ(iq)
	case name.Space == nsMAM && own:
		return x.archiveIQ(iq)
	case own && (name.Space == nsPubsub || name.Space == nsPubsubOwner):
		reply, out := x.pepIQ(iq)
		s.route(out...)
		return reply
	case name.Space == nsCarbons && typ == "set" && (name.Local == "enable" || name.Local == "disable"):
		x.acct.mu.Lock()
		x.carbons = name.Local == "enable"
		x.save()
		x.acct.mu.Unlock()
		return element.Result(iq)
	case name.Space == nsDiscoInfo && own && typ == "get":
		return info(iq, [][2]string{{"account", "registered"}, {"pubsub", "pep"}}, append(x.acct.srv.push.offer().Features(), nsDiscoInfo, nsMAM, nsStanID,
			nsPubsub+"#publish", nsPubsub+"#publish-options", nsPubsub+"#persistent-items", nsPubsub+"#multi-items", nsPubsub+"#auto-create",
			nsPubsub+"#retrieve-items", nsPubsub+"#retract-items", nsPubsub+"#delete-nodes", nsPubsub+"#purge-nodes", nsPubsub+"#config-node-max")...)
	case name.Space == nsLegacy && typ == "set":
		return element.Result(iq)
	}
	return s.serve(iq)
}

// serveAccount answers a request that somebody else makes of an account, whose lock is held.
func (s *Server) serveAccount(a *account, iq *element.Element) *element.Element {
	if p := iq.First(); p != nil && p.Name.Space == nsPubsub && iq.Get("type") == "get" {
		return a.itemsFor(iq)
	}
	return element.Error(iq, "cancel", "service-unavailable")
}

// serve answers a stanza that is addressed to the server, whoever sent it.
func (s *Server) serve(st *element.Element) *element.Element {
	if st.Name.Local == "message" && st.Get("type") == "error" {
		s.push.reply(st) // Push 2.0
	}
	if st.Name.Local != "iq" {
		return nil
	}
	payload := st.First()
	switch typ := st.Get("type"); {
	case typ == "result" || typ == "error":
		if !s.cluster.returned(st) {
			s.push.reply(st)
		}
		return nil
	case payload == nil:
		return element.Error(st, "modify", "bad-request")
	case typ == "get" && payload.Name.Space == nsPing:
		return element.Result(st)
	case typ == "get" && payload.Name.Space == nsDiscoInfo:
		return info(st, [][2]string{{"server", "im"}}, nsDiscoInfo, nsDiscoItems, nsPing, nsCarbons, nsRoster, nsMAM, push.NS, "msgoffline")
	case typ == "get" && payload.Name.Space == nsDiscoItems:
		items := element.New(nsDiscoItems, "query")
		if st.Get("to") == s.domain {
			for _, c := range s.componentNames() {
				items.Add(element.New(nsDiscoItems, "item", "jid", c))
			}
		}
		return element.Result(st, items)
	}
	return element.Error(st, "cancel", "service-unavailable")
}

// info answers a disco#info request (XEP-0030).
func info(iq *element.Element, identities [][2]string, features ...string) *element.Element {
	q := element.New(nsDiscoInfo, "query", "node", iq.First().Get("node"))
	if q.Get("node") != "" {
		return element.Error(iq, "cancel", "item-not-found")
	}
	for _, i := range identities {
		q.Add(element.New(nsDiscoInfo, "identity", "category", i[0], "type", i[1]))
	}
	sort.Strings(features)
	for _, f := range features {
		q.Add(element.New(nsDiscoInfo, "feature", "var", f))
	}
	return element.Result(iq, q)
}
