package main

import (
	"slices"
	"strconv"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/xmpp/jid"
)

// Presence and contact lists, as much of RFC 6121 §2 to §4 as accounts of one server need.

// contact is an entry of a roster.
type contact struct {
	Name string
	// To: the account sees the contact's presence; From: the contact sees the account's.
	To, From bool
	// Asked: a request of the account to see the contact's presence is unanswered; Pending is one of the contact, kept until it is answered.
	Asked   bool
	Pending *element.Element
}

// maxContacts is how many entries a roster may have.
const maxContacts = 1000

// roomFor tells whether there may be an entry for somebody.
func (a *account) roomFor(bare string) bool {
	return a.roster[bare] != nil || len(a.roster) < maxContacts
}

// saveContact writes down an entry, or that there is none any more.
func (a *account) saveContact(bare string) {
	if c := a.roster[bare]; c != nil {
		a.srv.keep.Do("INSERT INTO contact VALUES (?, ?, ?) ON CONFLICT (account, jid) DO UPDATE SET json = excluded.json", a.jid, bare, toJSON(c))
	} else {
		a.srv.keep.Do("DELETE FROM contact WHERE account = ? AND jid = ?", a.jid, bare)
	}
	a.chatChanged(bare)
}

func (c *contact) subscription() string {
	switch {
	case c.To && c.From:
		return "both"
	case c.To:
		return "to"
	case c.From:
		return "from"
	}
	return "none"
}

func (a *account) contact(bare string) *contact {
	c := a.roster[bare]
	if c == nil {
		c = &contact{}
		a.roster[bare] = c
	}
	return c
}

// item is the contact as an item of the roster, or nil if the user never asked for it.
func (c *contact) item(bare string) *element.Element {
	if !c.To && !c.From && !c.Asked && c.Name == "" {
		return nil
	}
	item := element.New(nsRoster, "item", "jid", bare, "name", c.Name, "subscription", c.subscription())
	if c.Asked {
		item.Set("ask", "subscribe")
	}
	return item
}

// rosterPush tells the account's clients that a contact changed.
func (a *account) rosterPush(item *element.Element) {
	if item == nil {
		return
	}
	for _, x := range a.sessions {
		if x.interested {
			x.sendNew(element.New("", "iq", "type", "set", "id", newID(), "to", x.jid.String()).Add(element.New(nsRoster, "query").Add(item)))
		}
	}
}

// rosterIQ answers a client that gets or changes its contact list.
func (x *session) rosterIQ(iq *element.Element) *element.Element {
	a := x.acct
	a.mu.Lock()
	defer a.mu.Unlock()
	if iq.Get("type") == "get" {
		x.interested = true
		x.save()
		q := element.New(nsRoster, "query")
		for _, bare := range a.contacts(func(*contact) bool { return true }) {
			q.Add(a.roster[bare].item(bare))
		}
		return element.Result(iq, q)
	}
	item := iq.First().Child(nsRoster, "item")
	if item == nil {
		return element.Error(iq, "modify", "bad-request")
	}
	j, err := jid.Parse(item.Get("jid"))
	if err != nil {
		return element.Error(iq, "modify", "jid-malformed")
	}
	bare := j.Bare().String()
	if item.Get("subscription") == "remove" {
		delete(a.roster, bare)
		a.saveContact(bare)
		a.rosterPush(element.New(nsRoster, "item", "jid", bare, "subscription", "remove"))
	} else if !a.roomFor(bare) {
		return element.Error(iq, "wait", "resource-constraint")
	} else {
		c := a.contact(bare)
		if c.Name = item.Get("name"); c.Name == "" {
			c.Name = j.Localpart()
		}
		a.saveContact(bare)
		a.rosterPush(c.item(bare))
	}
	return element.Result(iq)
}

// contacts returns the contacts that are wanted, sorted.
func (a *account) contacts(wanted func(*contact) bool) []string {
	var bares []string
	for bare, c := range a.roster {
		if wanted(c) {
			bares = append(bares, bare)
		}
	}
	slices.Sort(bares)
	return bares
}

// presenceOut handles presence from a client. It returns stanzas to route.
func (x *session) presenceOut(st *element.Element, addressed bool) []*element.Element {
	a := x.acct
	a.mu.Lock()
	defer a.mu.Unlock()
	typ := st.Get("type")
	if !addressed {
		if typ != "" && typ != "unavailable" {
			return nil
		}
		out := x.announce(st)
		return out
	}
	to, err := jid.Parse(st.Get("to"))
	if err != nil {
		return nil
	}
	bare := to.Bare().String()
	switch typ {
	case "subscribe", "subscribed", "unsubscribe", "unsubscribed":
		if !a.roomFor(bare) {
			return []*element.Element{element.Error(st, "wait", "resource-constraint")}
		}
		c := a.contact(bare)
		var now *element.Element
		switch typ {
		case "subscribe":
			c.Asked = !c.To
		case "subscribed":
			if c.Pending == nil {
				return nil
			}
			c.From, c.Pending = true, nil
			now = x.presence
		case "unsubscribe":
			c.To, c.Asked = false, false
		case "unsubscribed":
			c.From, c.Pending = false, nil
		}
		a.saveContact(bare)
		a.rosterPush(c.item(bare))
		out := []*element.Element{st.Copy().Set("from", a.jid).Set("to", bare)}
		if now != nil {
			out = append(out, now.Copy().Set("to", bare))
		}
		return out
	}
	return []*element.Element{st}
}

// announce takes note of a session's presence and tells it to those who may see it: the account's other clients and its contacts.
func (x *session) announce(st *element.Element) []*element.Element {
	a := x.acct
	st = st.Copy().Set("from", x.jid.String())
	first := x.presence == nil
	switch {
	case st.Get("type") == "":
		x.presence = st
		x.priority = priority(st)
	case first:
		return nil
	default:
		x.presence = nil
	}
	x.save()
	a.srv.push.announced(x, x.presence)
	for _, o := range a.sessions {
		if o.presence != nil || o == x && x.presence != nil {
			o.sendNew(st.Copy().Set("to", o.jid.String()))
		}
		if first && o != x && o.presence != nil {
			x.sendNew(o.presence.Copy().Set("to", x.jid.String()))
		}
	}
	var out []*element.Element
	for _, bare := range a.contacts(func(c *contact) bool { return c.From }) {
		out = append(out, st.Copy().Set("to", bare))
	}
	if x.presence != nil && first {
		for _, bare := range a.contacts(func(c *contact) bool { return c.To }) {
			out = append(out, element.New("", "presence", "type", "probe", "from", x.jid.String(), "to", bare))
		}
		for _, bare := range a.contacts(func(c *contact) bool { return c.Pending != nil }) {
			x.sendNew(a.roster[bare].Pending)
		}
	}
	if x.presence != nil && x.priority >= 0 {
		x.deliverOffline()
	}
	return out
}

// priority is the priority that a presence gives its resource.
func priority(presence *element.Element) int {
	p, _ := strconv.Atoi(presence.Child("", "priority").Text())
	return max(-128, min(127, p))
}

// receivePresence handles presence from somebody else.
func (a *account) receivePresence(st *element.Element, to1 *session) []*element.Element {
	from, err := jid.Parse(st.Get("from"))
	if err != nil {
		return nil
	}
	bare := from.Bare().String()
	switch typ := st.Get("type"); typ {
	case "probe":
		c := a.roster[bare]
		if c == nil || !c.From {
			return []*element.Element{element.New("", "presence", "type", "unsubscribed", "from", a.jid, "to", bare)}
		}
		var out []*element.Element
		for _, x := range a.sessions {
			if x.presence != nil {
				out = append(out, x.presence.Copy().Set("to", st.Get("from")))
			}
		}
		return out
	case "subscribe":
		if !a.roomFor(bare) {
			return []*element.Element{element.Error(st, "wait", "resource-constraint")}
		}
		c := a.contact(bare)
		if c.From {
			return []*element.Element{element.New("", "presence", "type", "subscribed", "from", a.jid, "to", bare)}
		}
		c.Pending = st
		a.saveContact(bare)
		if len(a.available()) == 0 {
			a.srv.push.subscriptionKept(a, st)
		}
	case "subscribed":
		c := a.roster[bare]
		if c == nil || !c.Asked {
			return nil
		}
		c.To, c.Asked = true, false
		a.saveContact(bare)
		a.rosterPush(c.item(bare))
	case "unsubscribe", "unsubscribed":
		c := a.roster[bare]
		if c == nil {
			return nil
		}
		if typ == "unsubscribe" {
			c.From, c.Pending = false, nil
		} else {
			c.To, c.Asked = false, false
		}
		a.saveContact(bare)
		a.rosterPush(c.item(bare))
	}
	if to1 != nil {
		to1.sendNew(st)
		return nil
	}
	for _, x := range a.sessions {
		if x.presence != nil {
			x.sendNew(st)
		}
	}
	return nil
}
