package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/xmpp/jid"
)

// What an account publishes of itself (XEP-0163): bookmarks (XEP-0402), what was displayed (XEP-0490), key lists and the like. Its own clients are told of
// every change, and so are contacts if the node is not private; which of them care (XEP-0115) this server does not ask.

const (
	nsPubsub      = "http://jabber.org/protocol/pubsub"
	nsPubsubOwner = nsPubsub + "#owner"
	nsPubsubEvent = nsPubsub + "#event"
	nsPubsubOpts  = nsPubsub + "#publish-options"
	// maxNodes is how many nodes an account may have, maxItems how many items a node.
	maxNodes, maxItems = 200, 1000
	// maxPEPBytes is how large all of an account's items may be together.
	maxPEPBytes = 8 << 20
)

// pepNode is a node of an account, its items in the order in which they were published.
type pepNode struct {
	access string // "presence" if empty: contacts that see the account's presence; "open" or "whitelist", for itself
	max    int    // items; the oldest goes
	items  []pepItem
}

type pepItem struct {
	id   string
	el   *element.Element // the item with what is in it
	size int
}

const pepSchema = `
CREATE TABLE IF NOT EXISTS pep_node (
	account TEXT NOT NULL,
	node    TEXT NOT NULL,
	access  TEXT NOT NULL,
	max     INTEGER NOT NULL,
	PRIMARY KEY (account, node)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pep_item (
	n       INTEGER PRIMARY KEY AUTOINCREMENT,
	account TEXT NOT NULL,
	node    TEXT NOT NULL,
	id      TEXT NOT NULL,
	xml     BLOB NOT NULL,
	UNIQUE (account, node, id)
);
`

func (s *Server) restorePEP() error {
	err := s.keep.Read(func(scan func(...any) error) error {
		n := &pepNode{}
		var owner, name string
		if err := scan(&owner, &name, &n.access, &n.max); err != nil {
			return err
		}
		if a := s.owner(owner); a != nil {
			a.pep[name] = n
		}
		return nil
	}, "SELECT account, node, access, max FROM pep_node")
	if err != nil {
		return err
	}
	return s.keep.Read(func(scan func(...any) error) error {
		var i pepItem
		var owner, name string
		var xml []byte
		err := scan(&owner, &name, &i.id, &xml)
		if err != nil {
			return err
		}
		a := s.owner(owner)
		if a == nil || a.pep[name] == nil {
			return nil
		}
		if i.el, err = element.Parse(xml); err != nil {
			return fmt.Errorf("item %s at %s of %s: %w", i.id, name, owner, err)
		}
		i.size = i.el.Size()
		a.pep[name].items = append(a.pep[name].items, i)
		if name == nsBookmarks {
			a.noteChat(i.id)
		}
		return nil
	}, "SELECT account, node, id, xml FROM pep_item ORDER BY n")
}

// pepBytes is how large all items of the account are together.
func (a *account) pepBytes() (size int) {
	for _, n := range a.pep {
		for _, i := range n.items {
			size += i.size
		}
	}
	return size
}

// index returns the place of an item, or -1.
func (n *pepNode) index(id string) int {
	if n == nil {
		return -1
	}
	return slices.IndexFunc(n.items, func(i pepItem) bool { return i.id == id })
}

// ids are those of the items.
func (n *pepNode) ids() []string {
	ids := make([]string, len(n.items))
	for i := range n.items {
		ids[i] = n.items[i].id
	}
	return ids
}

// published returns what the account has published, or nil.
func (a *account) published(node, id string) *element.Element {
	n := a.pep[node]
	if n == nil {
		return nil
	}
	if i := n.index(id); i >= 0 {
		return n.items[i].el.First()
	}
	return nil
}

// mayRead tells whether somebody else may see a node.
func (a *account) mayRead(n *pepNode, who string) bool {
	c := a.roster[who]
	return n.access == "open" || n.access != "whitelist" && c != nil && c.From
}

// pepIQ answers what the account's own clients ask of its nodes. It returns stanzas to route, too.
func (x *session) pepIQ(iq *element.Element) (reply *element.Element, out []*element.Element) {
	a := x.acct
	a.mu.Lock()
	defer a.mu.Unlock()
	action := iq.First().First()
	if action == nil {
		return element.Error(iq, "modify", "bad-request"), nil
	}
	if iq.Get("type") == "get" {
		return a.items(iq, a.jid), nil
	}
	name := action.Get("node")
	switch n := a.pep[name]; {
	case name == "":
		return element.Error(iq, "modify", "not-acceptable"), nil
	case action.Is(nsPubsub, "publish"):
		reply, out := a.publish(iq, name)
		if reply.Get("type") == "result" {
			x.wasPublished(name, action.Child(nsPubsub, "item"))
		}
		return reply, out
	case action.Is(nsPubsub, "retract"):
		id := action.Child(nsPubsub, "item").Get("id")
		if n == nil || n.index(id) < 0 {
			return element.Error(iq, "cancel", "item-not-found"), nil
		}
		i := n.index(id)
		n.items = slices.Delete(n.items, i, i+1)
		a.srv.keep.Do("DELETE FROM pep_item WHERE account = ? AND node = ? AND id = ?", a.jid, name, id)
		a.itemsChanged(name, id)
		return element.Result(iq), a.tellPEP(n, element.New(nsPubsubEvent, "items", "node", name).Add(element.New(nsPubsubEvent, "retract", "id", id)))
	case action.Is(nsPubsubOwner, "delete") || action.Is(nsPubsubOwner, "purge"):
		if n == nil {
			return element.Error(iq, "cancel", "item-not-found"), nil
		}
		gone := n.ids()
		n.items = nil
		a.srv.keep.Do("DELETE FROM pep_item WHERE account = ? AND node = ?", a.jid, name)
		if action.Name.Local == "delete" {
			delete(a.pep, name)
			a.srv.keep.Do("DELETE FROM pep_node WHERE account = ? AND node = ?", a.jid, name)
		}
		a.itemsChanged(name, gone...)
		return element.Result(iq), a.tellPEP(n, element.New(nsPubsubEvent, action.Name.Local, "node", name))
	}
	return element.Error(iq, "cancel", "feature-not-implemented"), nil
}

// publish adds an item to a node, or replaces it (XEP-0060 §7.1). The publish options make the node what it should be.
func (a *account) publish(iq *element.Element, name string) (*element.Element, []*element.Element) {
	item := iq.First().Child(nsPubsub, "publish").Child(nsPubsub, "item")
	if item == nil || item.First() == nil {
		return element.Error(iq, "modify", "bad-request"), nil
	}
	n := a.pep[name]
	size := a.pepBytes() + item.Size()
	if i := n.index(item.Get("id")); i >= 0 {
		size -= n.items[i].size
	}
	if size > maxPEPBytes {
		return element.Error(iq, "wait", "resource-constraint"), nil
	}
	if n == nil {
		if len(a.pep) >= maxNodes {
			return element.Error(iq, "wait", "resource-constraint"), nil
		}
		n = &pepNode{max: 1}
		a.pep[name] = n
	}
	if form := iq.First().Child(nsPubsub, "publish-options").Child(element.NSForm, "x"); form != nil {
		n.access = form.Field("pubsub#access_model")
		switch limit := form.Field("pubsub#max_items"); limit {
		case "":
		case "max":
			n.max = maxItems
		default:
			m, _ := strconv.Atoi(limit)
			n.max = min(max(m, 1), maxItems)
		}
	}
	a.srv.keep.Do(`INSERT INTO pep_node VALUES (?, ?, ?, ?) ON CONFLICT (account, node) DO UPDATE SET access = excluded.access, max = excluded.max`,
		a.jid, name, n.access, n.max)
	id := cmp.Or(item.Get("id"), newID())
	changed := []string{id}
	kept := pepItem{id: id, el: element.New(nsPubsub, "item", "id", id).Add(item.First())}
	kept.size = kept.el.Size()
	if i := n.index(id); i >= 0 {
		n.items = slices.Delete(n.items, i, i+1)
	}
	n.items = append(n.items, kept)
	a.srv.keep.Do("INSERT OR REPLACE INTO pep_item (account, node, id, xml) VALUES (?, ?, ?, ?)", a.jid, name, id, alone(kept.el))
	for len(n.items) > n.max {
		a.srv.keep.Do("DELETE FROM pep_item WHERE account = ? AND node = ? AND id = ?", a.jid, name, n.items[0].id)
		changed = append(changed, n.items[0].id)
		n.items = n.items[1:]
	}
	a.itemsChanged(name, changed...)
	out := a.tellPEP(n, element.New(nsPubsubEvent, "items", "node", name).Add(
		element.New(nsPubsubEvent, "item", "id", id).Add(item.First())))
	return element.Result(iq, element.New(nsPubsub, "pubsub").Add(
		element.New(nsPubsub, "publish", "node", name).Add(element.New(nsPubsub, "item", "id", id)))), out
}

// tellPEP tells the account's clients that are there of a change. It returns what is for contacts.
func (a *account) tellPEP(n *pepNode, change *element.Element) (out []*element.Element) {
	event := func(to string) *element.Element {
		return element.New("", "message", "type", "headline", "from", a.jid, "to", to).Add(element.New(nsPubsubEvent, "event").Add(change))
	}
	for _, x := range a.sessions {
		if x.presence != nil {
			x.sendNew(event(x.jid.String()))
		}
	}
	for _, bare := range a.contacts(func(c *contact) bool { return c.From }) {
		if bare != a.jid && a.mayRead(n, bare) {
			out = append(out, event(bare))
		}
	}
	return out
}

// items answers a request for items of a node (XEP-0060 §6.5), whoever asks.
func (a *account) items(iq *element.Element, who string) *element.Element {
	get := iq.First().Child(nsPubsub, "items")
	if get == nil {
		return element.Error(iq, "cancel", "feature-not-implemented")
	}
	n := a.pep[get.Get("node")]
	if n == nil {
		return element.Error(iq, "cancel", "item-not-found")
	}
	if who != a.jid && !a.mayRead(n, who) {
		return element.Error(iq, "auth", "not-authorized")
	}
	found := n.items
	if asked := get.Children(); len(asked) > 0 {
		found = nil
		for _, item := range asked {
			if i := n.index(item.Get("id")); i >= 0 {
				found = append(found, n.items[i])
			}
		}
	} else if limit, err := strconv.Atoi(get.Get("max_items")); err == nil && limit >= 0 {
		found = found[max(0, len(found)-limit):]
	}
	items := element.New(nsPubsub, "items", "node", get.Get("node"))
	for _, i := range found {
		items.Add(i.el)
	}
	return element.Result(iq, element.New(nsPubsub, "pubsub").Add(items))
}

// itemsFor is items for somebody else.
func (a *account) itemsFor(iq *element.Element) *element.Element {
	from, err := jid.Parse(iq.Get("from"))
	if err != nil {
		return nil
	}
	return a.items(iq, from.Bare().String())
}
