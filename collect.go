package push

import (
	"strconv"
	"unicode/utf8"
)

// collector gathers what matters of a stanza from its elements, whoever parses them.
type collector struct {
	depth        int
	outer, inner judged
	// forwarded: the elements now open are those of the message inside a carbon copy.
	forwarded, isCarbon bool
	headless            bool
	wrapper             Carbon // of the open <sent/> or <received/>
	in                  place
	// Of the open child element.
	payload, ranged bool // OMEMO's <payload/>; a fallback's range
	typ, id, uri    string
	sub             string // the name of the element open in it
	span            span
}

// place is the open child element that gives its attributes, its children or its text a meaning.
type place uint8

// Depths of a carbon copy: message 0, received 1, forwarded 2, message 3.
const innerDepth = 3

const (
	nsRetract   = "urn:xmpp:message-retract:1"
	nsRetract0  = "urn:xmpp:message-retract:0"
	nsModerate  = "urn:xmpp:message-moderate:1"
	nsModerate0 = "urn:xmpp:message-moderate:0"
	nsFasten    = "urn:xmpp:fasten:0"
	nsReactions = "urn:xmpp:reactions:0"
	nsCall      = "urn:xmpp:jingle-message:0"
	nsInvites   = "urn:xmpp:call-invites:0"
	nsEME       = "urn:xmpp:eme:0"
	nsMarkers   = "urn:xmpp:chat-markers:0"
	nsReceipts  = "urn:xmpp:receipts"
	nsMDS       = "urn:xmpp:mds:displayed:0"
	nsSID       = "urn:xmpp:sid:0"
	nsReply     = "urn:xmpp:reply:0"
	nsSFS       = "urn:xmpp:sfs:0"
	nsSIMS      = "urn:xmpp:sims:1"
	nsMentions  = "urn:xmpp:mentions:0"
	nsReference = "urn:xmpp:reference:0"
	nsInvite    = "jabber:x:conference"
	nsOOB       = "jabber:x:oob"
	nsRoomUser  = "http://jabber.org/protocol/muc#user"
	nsHints     = "urn:xmpp:hints"
	nsOMEMO     = "urn:xmpp:omemo:"
	nsOMEMO3    = "eu.siacs.conversations.axolotl"
	nsPGP       = "jabber:x:encrypted"
	nsOX        = "urn:xmpp:openpgp:0"
)

// standsIn tells whether the class table knows what a fallback body for a namespace stands in for (XEP-0428).
func standsIn(ns string) bool {
	switch ns {
	case nsRetract, nsRetract0, nsModerate, nsModerate0, nsFasten, nsReactions, nsCall, nsInvites, nsMarkers, nsReceipts, nsMDS, nsSFS, nsSIMS, nsOOB,
		nsInvite, nsRoomUser, nsOMEMO3, nsOMEMO + "0", nsOMEMO + "1", nsOMEMO + "2", nsPGP, nsOX:
		return true
	}
	return false
}

func (c *collector) current() (m *judged, depth int) {
	if c.forwarded {
		return &c.inner, innerDepth
	}
	return &c.outer, 0
}

// wantsAttrs says that the attributes of the element that was just started matter.
func (c *collector) wantsAttrs() bool {
	_, d := c.current()
	switch c.depth - d {
	case 1:
		return true
	case 2:
		return c.in >= inTarget
	default:
		return c.in == inCall || c.in == inDisplayed || c.in == inFallback || c.in == inRoomUser
	}
}

// wantsText says that the text here, directly in the innermost open element, matters.
func (c *collector) wantsText() bool {
	_, d := c.current()
	return c.in == inBody && c.depth == d+2
}

func isStanzaNS(ns string) bool {
	return ns == "" || ns == "jabber:client" || ns == "jabber:server" || ns == "jabber:component:accept"
}

func (c *collector) start(space, local string) {
	m, md := c.current()
	d := c.depth
	c.depth++
	switch {
	case d == 0:
		m.ns = space
		m.Kind = kindOf(space, local)
		c.headless = isStanzaNS(space) && isPart(local)
	case c.outer.Kind != KindMessage:
	case d == md+1:
		c.child(m, space, local)
	case d == md+2 && c.in != inCarbon:
		c.grandchild(m, space, local)
	case c.in == inCarbon && d == 2 && local == "forwarded" && space == "urn:xmpp:forward:0":
		c.in = inForwarded
	case c.in == inForwarded && d == innerDepth && !c.isCarbon && space != "" && kindOf(space, local) == KindMessage:
		c.isCarbon, c.forwarded, c.in = true, true, nowhere
		c.inner.ns = space
		c.inner.Carbon = c.wrapper
	}
}

// isPart tells whether an element is one that only stanzas have in them (RFC 6121 §4.7, §5.2), so that where it is the whole, the stanza's start is
// missing.
func isPart(local string) bool {
	switch local {
	case "body", "subject", "thread", "show", "status", "priority", "error":
		return true
	}
	return false
}

func kindOf(space, local string) Kind {
	if isStanzaNS(space) {
		switch local {
		case "message":
			return KindMessage
		case "presence":
			return KindPresence
		case "iq":
			return KindIQ
		}
	}
	return KindNonza
}

// child takes the start of a child element of a message.
func (c *collector) child(m *judged, space, local string) {
	switch local {
	case "body":
		if space == m.ns {
			c.in = inBody
		}
	case "subject":
		if space == m.ns {
			m.Subject = true
		}
	case "encrypted":
		if space == nsOMEMO3 || space == nsOMEMO+"0" || space == nsOMEMO+"1" || space == nsOMEMO+"2" {
			c.in, c.payload = inOMEMO, false
		}
	case "openpgp":
		m.Encrypted = m.Encrypted || space == nsOX
	case "x":
		switch space {
		case nsPGP:
			m.Encrypted = true
		case nsInvite: // XEP-0249
			c.in = inConference
		case nsOOB: // XEP-0066
			c.in = inOOB
		case nsRoomUser: // XEP-0045 §7.8.2
			c.in = inRoomUser
			m.roomUser = true
		}
	case "sent", "received":
		if space == "urn:xmpp:carbons:2" {
			c.in, c.wrapper = inCarbon, CarbonReceived
			if local == "sent" {
				c.wrapper = CarbonSent
			}
		} else if space == nsReceipts {
			m.Receipt = true
		}
	case "propose", "retract", "reject", "finish", "accept", "proceed", "invite", "left":
		switch {
		case space == nsCall && local != "invite" && local != "left": // XEP-0353
			c.called(m, callActionOf(local), local == "propose")
		case space == nsInvites && local != "propose" && local != "finish" && local != "proceed": // XEP-0482
			action := callActionOf(local)
			if local == "left" {
				action = CallFinish
			}
			c.called(m, action, local == "invite")
			if m.call.Invite = true; local == "invite" {
				m.media[0] = "audio"
			}
		case space == nsRetract && local == "retract": // XEP-0424
			c.in = inTarget
			m.Retraction = true
		}
	case "replace": // XEP-0308
		if space == "urn:xmpp:message-correct:0" {
			c.in = inTarget
			m.Correction = true
		}
	case "apply-to": // XEP-0422, as XEP-0424 and XEP-0425 used it before
		if space == nsFasten {
			c.in, c.id = inApplyTo, ""
		}
	case "reactions": // XEP-0444
		if space == nsReactions {
			c.in = inTarget
			m.Reaction = true
		}
	case "displayed":
		switch space {
		case nsMarkers: // XEP-0333
			m.Displayed = true
			if m.details.Target == "" {
				c.in = inTarget
			}
		case nsMDS: // XEP-0490 §3.1
			c.in = inDisplayed
			m.Displayed = true
		}
	case "origin-id": // XEP-0359
		if space == nsSID {
			c.in = inOriginID
		}
	case "encryption": // XEP-0380
		if space == nsEME {
			c.in = inEME
		}
	case "file-sharing": // XEP-0447
		m.File = m.File || space == nsSFS
	case "reference": // XEP-0372, XEP-0385
		if space == nsReference {
			c.in, c.typ, c.uri = inReference, "", ""
		}
	case "mention": // XEP-0513
		if space == nsMentions {
			c.in, m.mention = inMention, Mention{}
		}
	case "reply": // XEP-0461
		if space == nsReply {
			c.in = inReply
		}
	case "fallback": // XEP-0428
		if space == "urn:xmpp:fallback:0" {
			c.in, c.uri, c.ranged = inFallback, "", false
		}
	case "delay": // XEP-0203
		if space == "urn:xmpp:delay" {
			c.in = inDelay
		}
	case "stanza-id": // XEP-0359
		if space == nsSID {
			c.in, c.id, c.uri = inStanzaID, "", ""
		}
	case "occupant-id": // XEP-0421
		if space == "urn:xmpp:occupant-id:0" {
			c.in = inOccupantID
		}
	case "no-store":
		m.noStore = m.noStore || space == nsHints
	case "result": // XEP-0313 §4.2
		m.Replay = m.Replay || space == "urn:xmpp:mam:2"
	}
}

// called takes the start of an element that says something of a call.
func (c *collector) called(m *judged, action CallAction, propose bool) {
	c.in = inCall
	m.call = Call{Action: action}
	m.media = [2]string{}
	m.Propose, m.CallEnd = propose, !propose
}

// grandchild takes the start of an element in a child element that has a meaning.
func (c *collector) grandchild(m *judged, space, local string) {
	switch c.in {
	case inOMEMO:
		c.payload = c.payload || local == "payload"
	case inFallback:
		if local == "body" {
			c.span = span{0, -1}
		}
	case inApplyTo:
		if local == "retract" && space == nsRetract0 || local == "moderated" && space == nsModerate0 {
			m.Retraction, m.Moderation = true, local == "moderated"
			m.details.Target, m.some = c.id, true
		}
	case inTarget:
		if m.Retraction && local == "moderated" && space == nsModerate { // XEP-0425
			m.Moderation = true
		}
	case inOOB:
		m.File = m.File || local == "url" && space == nsOOB
	case inReference:
		m.File = m.File || local == "media-sharing" && space == nsSIMS
	case inMention:
		m.mention.Active = m.mention.Active || local == "active" && space == nsMentions
		m.mention.NoPing = m.mention.NoPing || local == "noping" && space == nsMentions
	case inRoomUser:
		m.Invitation = m.Invitation || local == "invite" && space == nsRoomUser
		m.roomUser = false // a private message's is empty
	}
	c.sub = local
}

// attr takes an attribute without prefix of an element of which wantsAttrs.
func (c *collector) attr(name, value string) {
	m, md := c.current()
	switch c.depth - md {
	case 1:
		switch name {
		case "type":
			m.Type = value
		case "from":
			m.from = value
		case "to":
			m.to = value
		case "id":
			m.id = value
		}
	case 2:
		c.childAttr(m, name, value)
	case 3:
		switch {
		case c.in == inCall && c.sub == "description" && name == "media":
			for i := range m.media {
				if m.media[i] == "" || m.media[i] == value {
					m.media[i] = value
					break
				}
			}
		case c.in == inRoomUser && c.sub == "invite" && name == "from":
			m.details.Inviter, m.some = value, true
		case c.in == inDisplayed && c.sub == "stanza-id" && name == "id":
			m.details.Target, m.some = value, true
		case c.sub == "body" && name == "start":
			c.span.start, c.ranged = number(value), true
		case c.sub == "body" && name == "end":
			c.span.end, c.ranged = number(value), true
		}
	}
}

func (c *collector) childAttr(m *judged, name, value string) {
	d := &m.details
	switch c.in {
	case inTarget:
		if name == "id" {
			d.Target, m.some = value, true
		}
	case inApplyTo:
		if name == "id" {
			c.id = value
		}
	case inCall:
		switch {
		case name == "id":
			m.call.ID = value
		case name == "audio" && m.call.Invite && isFalse(value):
			m.media[0] = ""
		case name == "video" && m.call.Invite && !isFalse(value):
			m.media[1] = "video"
		}
	case inOriginID:
		if name == "id" {
			m.origin = value
		}
	case inEME:
		if name == "namespace" {
			m.eme = !sealedKnown(value)
		}
	case inDelay:
		if name == "from" && m.Type == "groupchat" && bare(value) == bare(m.from) {
			m.delayed = true
		}
	case inFallback:
		if name == "for" {
			c.uri = value
		}
	case inReference:
		switch name {
		case "type":
			c.typ = value
		case "uri":
			c.uri = value
		}
	case inMention:
		switch name {
		case "jid":
			m.mention.JID = value
		case "occupantid":
			m.mention.OccupantID = value
		case "uri":
			m.mention.URI = value
		case "mentions":
			m.mention.Channel = value == nsMentions+"#channel"
		}
	case inReply:
		switch name {
		case "to":
			d.Reply.To, m.some = value, true
		case "id":
			d.Reply.ID, m.some = value, true
		}
	case inStanzaID:
		switch name {
		case "id":
			c.id = value
		case "by":
			c.uri = value
		}
	case inOccupantID:
		if name == "id" {
			d.OccupantID, m.some = value, true
		}
	case inConference:
		if name == "jid" {
			d.Room, m.some = value, true
			m.Invitation = true
		}
	}
}

// isFalse reads a boolean (XML Schema).
func isFalse(s string) bool { return s == "false" || s == "0" }

// sealedKnown tells whether a way of encryption is one whose payload is known, so that a payload that is not there says something.
func sealedKnown(ns string) bool {
	switch ns {
	case "", nsOMEMO3, nsOMEMO + "0", nsOMEMO + "1", nsOMEMO + "2", nsPGP, nsOX:
		return true
	}
	return false
}

// number reads a position in a body, or returns -1.
func number(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

// text takes text of which wantsText.
func (c *collector) text(s string) {
	m, _ := c.current()
	if s == "" {
		return
	}
	m.Body = true
	if m.bodyDone {
		return // a second body, in another language
	}
	if room := maxBody - len(m.body); len(s) > room {
		for room > 0 && !utf8.RuneStart(s[room]) {
			room--
		}
		s = s[:room]
		m.bodyDone = true
	}
	m.body += s
}

func (c *collector) end() {
	c.depth--
	m, md := c.current()
	switch {
	case c.forwarded && c.depth == innerDepth:
		c.forwarded, c.in = false, nowhere
	case c.depth == md+1:
		c.endChild(m)
		c.in = nowhere
	case c.in == inForwarded && c.depth == 2:
		c.in = inCarbon
	}
}

// endChild takes the end of a child element.
func (c *collector) endChild(m *judged) {
	d := &m.details
	switch c.in {
	case inOMEMO:
		m.Encrypted = m.Encrypted || c.payload
		m.KeyTransport = true // unless something is Encrypted
	case inBody:
		m.bodyDone = m.body != ""
	case inFallback:
		switch {
		case !c.ranged:
			m.fallback = m.fallback || standsIn(c.uri)
		case c.uri == nsReply && m.nQuotes < len(m.quotes):
			m.quotes[m.nQuotes] = c.span
			m.nQuotes++
		}
	case inReference:
		if c.typ == "mention" {
			m.mentioned(Mention{URI: c.uri, Reference: true})
		}
	case inMention:
		m.mentioned(m.mention)
	case inStanzaID:
		if m.Type == "groupchat" && c.uri == bare(m.from) { // else somebody else's, or made up (XEP-0359 §5)
			d.RoomID, m.some = c.id, true
		}
		if c.uri != "" && c.uri == bare(m.to) {
			m.archived = c.id
		}
	}
}
