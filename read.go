package push

import (
	"iter"
	"math/bits"
	"slices"
	"time"
)

// What the user has seen since, what was taken back, and which calls are over: an account knows which stanzas somebody was notified of, chat by
// chat, so that what waits for them can be dropped and what counts as unread is right.

// heard is one stanza that somebody was notified of, or one that came after it in its chat. Everything is hashed: nothing of what was said is kept.
type heard struct {
	hash uint64 // of its ID
	// chat is its chat's. message is that of its message id with its sender, or of a call's; room that of its ID in the room.
	chat, message, room uint32
	// sender is the hash of who sent it, or says that it is a call.
	sender uint32
}

// What a sender can be instead of a hash, which has the lowest bits set.
const (
	callRings = 2 // devices were notified of it
	callOver  = 4 // and told that it is over
	overheard = 6 // nobody was notified of it, by choice
	request   = 8 // for subscription, of whose stanza message is the ID
)

// maxOverheard is how many of a chat are known that nobody was notified of since somebody was.
const maxOverheard = 32

// tellReadEvery is how often the number of unread messages goes out alone because of what was read.
const tellReadEvery = 10 * time.Second

// short makes a hash that is kept in half of the space, and is zero for nothing.
func (a *Account) short(s string) uint32 {
	if s == "" {
		return 0
	}
	return half(a.hash(s))
}

// half is the part of a hash that is kept of chats and senders.
func half(h uint64) uint32 { return uint32(h>>32) | 1 }

// pair hashes two texts that belong together.
func (a *Account) pair(x uint64, id string) uint32 {
	if id == "" {
		return 0
	}
	return half(bits.RotateLeft64(x, 23) ^ a.hash(id))
}

// from is who sent a stanza: an occupant, or somebody with all devices.
func (a *Account) from(st *Stanza) uint64 {
	switch {
	case st.Details != nil && st.Details.Private:
		return a.hash(st.From)
	case st.Type != MessageGroupchat:
		return a.hash(bare(st.From))
	case st.Details != nil && st.Details.OccupantID != "":
		return a.hash(st.Details.OccupantID)
	}
	return a.hash(st.From)
}

// hear notes a message that somebody is notified of.
func (a *Account) hear(st *Stanza, h uint64) {
	if h == 0 || st.Content != ContentSubscription && (!st.isMessage() || st.passing()) {
		return
	}
	if a.chats == nil {
		a.chats = new(chats)
	} else if n := len(a.chats.heard); n > 0 && a.chats.heard[n-1].hash == h && a.chats.heard[n-1].sender != overheard {
		return
	}
	if st.Content == ContentSubscription {
		a.note(heard{hash: h, message: a.short(st.ID), sender: request})
		return
	}
	a.note(a.named(st, h))
}

// overhear notes a message that a device is not notified of by choice, if somebody was notified of one before it in its chat: the user may be said
// to have read up to it. A room that notifies of mentions only is read to its end, not to the last mention.
func (a *Account) overhear(st *Stanza) {
	if a.chats == nil || len(a.chats.heard) == 0 || st.ID == "" || !st.isMessage() || st.passing() {
		return
	}
	n := a.named(st, a.hash(st.ID))
	n.sender = overheard
	list := a.chats.heard
	some, oldest := 0, 0
	for i := len(list) - 1; ; i-- {
		if i < 0 || list[i].hash == n.hash {
			return
		}
		if list[i].chat != n.chat {
			continue
		}
		if list[i].sender != overheard {
			break
		}
		some, oldest = some+1, i
	}
	if some >= maxOverheard {
		a.chats.heard = slices.Delete(list, oldest, oldest+1)
	}
	a.note(n)
}

// named returns what is kept of a message.
func (a *Account) named(st *Stanza, h uint64) heard {
	chat := a.hash(st.thread(a.name))
	n := heard{hash: h, chat: half(chat)}
	d := st.Details
	if st.Class == ClassUrgent {
		n.sender = callRings
		if d != nil && d.Call != nil {
			n.message = a.short(d.Call.ID)
		}
	} else if st.MessageID != "" || d != nil {
		who := chat
		if st.Type == MessageGroupchat {
			who = a.from(st)
		}
		n.message, n.sender = a.pair(who, st.MessageID), half(who)
		if d != nil {
			n.room = a.short(d.RoomID)
		}
	}
	return n
}

func (a *Account) note(n heard) {
	if len(a.chats.heard) == cap(a.chats.heard) {
		a.chats.heard = grown(a.chats.heard)
	}
	a.chats.heard = append(a.chats.heard, n)
	if limit := a.policy.Remember; len(a.chats.heard) > 2*limit {
		a.chats.heard = newest(a.chats.heard, limit)
	}
}

// isMessage tells whether a stanza is a message. Of what has a class and no content, as a host's own values may, that is so, for recordings too.
func (st *Stanza) isMessage() bool {
	return st.Kind == KindMessage || st.Content == ContentNone && st.Class > ClassPlain
}

// over tells whether a call is over that a stanza announces.
func (a *Account) over(st *Stanza) bool {
	if a.chats == nil || st.Details == nil || st.Details.Call == nil {
		return false
	}
	chat, id := a.short(bare(st.From)), a.short(st.Details.Call.ID)
	return slices.ContainsFunc(a.chats.heard, func(n heard) bool { return n.sender == callOver && n.message == id && n.chat == chat })
}

// passing tells whether nothing will ever refer to a stanza: a chat state, a receipt, a marker.
func (st *Stanza) passing() bool {
	return st.Class == ClassPlain && (st.Content == ContentNone || st.Content == ContentReceipt || st.Content == ContentDisplayed)
}

func (n *heard) isCall() bool { return n.sender == callRings || n.sender == callOver }

// since takes note of what a stanza says about those before it.
func (a *Account) since(st *Stanza, now time.Time, e *Effects) {
	if !st.isMessage() || st.Type == MessageError || st.History {
		return
	}
	switch {
	case bare(st.From) == a.name:
		by := a.sessionOf(resource(st.From))
		if by != nil {
			by.use(now)
		}
		if st.Content == ContentCallEnd || bare(st.To) == a.name || st.To == "" {
			return
		}
		upTo, reads := st.reads()
		if !reads {
			return
		}
		thread := st.thread(a.name)
		if b := bare(st.To); thread == b { // a private message in a room may not say that it is one
			if a.hasHeard(st.To) {
				thread = st.To
			} else if a.isRoom(b) {
				return
			}
		}
		a.read(thread, upTo, by, now, e)
	case st.Content == ContentRetraction, st.Content == ContentModeration:
		a.retracted(st, e)
	case st.Content == ContentCorrection:
		a.corrected(st)
	}
}

// reads tells whether a stanza that the user sent says that its chat was read: a reply to its end, a marker how far (XEP-0333), a chat state or a
// receipt not at all. A carbon's content is that it was sent, so that only its target tells whether it is a marker.
func (st *Stanza) reads() (upTo string, reads bool) {
	switch {
	case st.Class >= ClassImportant, st.Content == ContentSent && st.Body != "":
		return "", true
	case st.Details != nil && st.Details.Target != "":
		return st.Details.Target, true
	}
	return "", false
}

// reflected takes note of what the user said in a room, on whatever device.
func (a *Account) reflected(st *Stanza, now time.Time, e *Effects) {
	if upTo, reads := st.reads(); reads {
		a.read(st.thread(a.name), upTo, nil, now, e)
	}
}

// sessionOf returns the session with a resource.
func (a *Account) sessionOf(resource string) *session {
	if resource == "" {
		return nil
	}
	h := resourceHash(resource)
	for _, s := range a.sessions {
		if s.resource == h {
			return s
		}
	}
	return nil
}

// hasHeard tells whether somebody was notified of something in a chat that was not read since.
func (a *Account) hasHeard(chat string) bool {
	if a.chats == nil {
		return false
	}
	h := half(a.hash(chat))
	return slices.ContainsFunc(a.chats.heard, func(n heard) bool { return n.chat == h })
}

// isRoom tells whether what was heard in a chat says that it is a room.
func (a *Account) isRoom(chat string) bool {
	if a.chats == nil {
		return false
	}
	h := half(a.hash(chat))
	return slices.ContainsFunc(a.chats.heard, func(n heard) bool { return n.chat == h && n.room != 0 })
}

// displayed is read for a chat as a client names it: of a private message in a room by the occupant's full JID (XEP-0490 §3.1).
func (a *Account) displayed(chat, upTo string, by *session, now time.Time, e *Effects) Reason {
	if b := bare(chat); !a.hasHeard(chat) && !a.isRoom(b) {
		chat = b
	}
	return a.read(chat, upTo, by, now, e)
}

// read drops what waits of a chat up to a stanza, or all of it, and counts it as unread no longer. by is the session in which it was read.
func (a *Account) read(chat, upTo string, by *session, now time.Time, e *Effects) Reason {
	if a.chats == nil || len(a.chats.heard) == 0 {
		return ReasonUnknownStanza
	}
	whole := a.hash(chat)
	c := half(whole)
	last := len(a.chats.heard) - 1
	isRead := func(n heard) bool { return n.chat == c && n.sender != callRings } // who reads a chat does not answer the phone, but sees who has called
	if upTo != "" {
		id, message, room := a.hash(upTo), a.pair(whole, upTo), a.short(upTo)
		last = slices.IndexFunc(a.chats.heard, func(n heard) bool {
			return isRead(n) && (n.hash == id || n.message == message || n.room == room)
		})
	}
	var buf [16]uint64
	seen := buf[:0]
	for _, n := range a.chats.heard[:last+1] {
		if isRead(n) {
			seen = append(seen, n.hash)
		}
	}
	if len(seen) == 0 {
		return ReasonUnknownStanza
	}
	kept := a.chats.heard[:0]
	for i, n := range a.chats.heard {
		if i > last || n.chat != c || n.isCall() {
			kept = append(kept, n)
		}
	}
	a.chats.heard = kept
	slices.Sort(seen)
	for _, r := range a.regs {
		unread := r.unread
		gone := a.withdraw(r, seen, ReasonRead, e)
		if a.policy.TellRead && r.unread+gone < unread && (by == nil || by.bound != r) { // it was told of more than there is
			a.tell(r, now)
		}
	}
	return ReasonNone
}

// withdraw drops what waits for a registration of the stanzas with these hashes, which are in order, and counts them as unread no longer. It
// returns how many of those that counted were not sent.
func (a *Account) withdraw(r *registration, hashes []uint64, reason Reason, e *Effects) (unsent int32) {
	parts := r.pace.withdraw(func(*part) bool { return true }, func(n noted) bool {
		_, found := slices.BinarySearch(hashes, n.hash&^hashFlags)
		return found
	}, reason)
	for i := range parts {
		unsent += parts[i].count[ClassImportant] + parts[i].count[ClassUrgent]
	}
	r.drop(parts, reason, "", e)
	for _, h := range hashes {
		r.uncount(h)
	}
	return unsent
}

// tell lets the number of unread messages go out, quietly.
func (a *Account) tell(r *registration, now time.Time) {
	w := r.pace.open(nil)
	w.at[ClassPlain], w.wakes, w.counts = toInstant(now), true, true
	due := now.Add(a.policy.Delay)
	if next := time.Unix(int64(r.pace.told), 0).Add(tellReadEvery); r.pace.told != 0 && next.After(due) {
		due = next
	}
	r.pace.schedule(due)
}

// retracted drops what waits of a stanza that its sender, or the room, takes back (XEP-0424, XEP-0425).
func (a *Account) retracted(st *Stanza, e *Effects) {
	if a.chats == nil || st.Details == nil || st.Details.Target == "" {
		return
	}
	i := a.target(st)
	if i < 0 {
		return
	}
	hashes := []uint64{a.chats.heard[i].hash}
	a.chats.heard = slices.Delete(a.chats.heard, i, i+1)
	for _, r := range a.regs {
		a.withdraw(r, hashes, ReasonRetracted, e)
	}
}

// corrected puts a corrected text where the one before it waits (XEP-0308).
func (a *Account) corrected(st *Stanza) {
	if a.chats == nil || st.Details == nil || st.Details.Target == "" {
		return
	}
	i := a.target(st)
	if i < 0 {
		return
	}
	h := a.chats.heard[i].hash
	for _, r := range a.regs {
		for j := range r.pace.waiting {
			w := &r.pace.waiting[j]
			if w.text != nil && w.text.hash == h {
				w.text.body = st.Body
			}
			for k := range w.carried {
				if c := &w.carried[k]; c.hash == h && c.Stanza.XML == "" { // else the stanza goes along as it was, and the corrected one after it
					c.Stanza.Body = st.Body
				}
			}
		}
	}
}

// target returns the place of what a stanza refers to, if its sender may do that to it, or -1.
func (a *Account) target(st *Stanza) int {
	chat, who := a.short(st.thread(a.name)), a.from(st)
	id, message, room := a.hash(st.Details.Target), a.pair(who, st.Details.Target), a.short(st.Details.Target)
	roomItself := st.Content == ContentModeration && st.Type == MessageGroupchat && resource(st.From) == ""
	return slices.IndexFunc(a.chats.heard, func(n heard) bool {
		if n.chat != chat || n.isCall() {
			return false
		}
		return n.message == message || (n.room == room || n.hash == id) && (roomItself || n.sender == half(who))
	})
}

// ended returns what is known of the call that a stanza ends: that of the caller, if the caller takes it back, or of anybody, if the user answers on some
// device. It is one entry for each stanza that announced the call, since copies of it have IDs of their own.
func (a *Account) ended(st *Stanza) iter.Seq[*heard] {
	return func(yield func(*heard) bool) {
		if st.Held || st.Details == nil || st.Details.Call == nil || a.chats == nil { // what is held back is told when it is not
			return
		}
		action := st.Details.Call.Action
		own := bare(st.From) == a.name
		if !own && (action == CallAccept || action == CallProceed) {
			return // the answer to a call of the user's
		}
		chat, id := a.short(bare(st.From)), a.short(st.Details.Call.ID)
		for i := range a.chats.heard {
			if n := &a.chats.heard[i]; n.isCall() && n.message == id && (own || n.chat == chat) && !yield(n) {
				return
			}
		}
	}
}

// ends tells whether a stanza ends a call that somebody was notified of.
func (a *Account) ends(st *Stanza) bool {
	for range a.ended(st) {
		return true
	}
	return false
}

// rang tells whether a registration was notified of the call that a stanza announces, by this or another copy of it: its caller has named it (XEP-0353 §3.1).
func (a *Account) rang(st *Stanza, r *registration) bool {
	if st.Content != ContentCall || a.chats == nil || st.Details == nil || st.Details.Call == nil || st.Details.Call.ID == "" {
		return false
	}
	chat, id := a.short(bare(st.From)), a.short(st.Details.Call.ID)
	return slices.ContainsFunc(a.chats.heard, func(n heard) bool { return n.isCall() && n.message == id && n.chat == chat && r.mem.has(n.hash) })
}

// rings tells whether a registration was notified of the call that a stanza ends, and not told since that it is over; back, that its device came back
// since and is connected, so that it gets the stanza itself. What waits of the call is dropped.
func (a *Account) rings(q *question, st *Stanza, r *registration, now time.Time, e *Effects) (rung, back bool) {
	dropped, own := len(e.Drops), bare(st.From) == a.name
	back, _ = a.standing(r)
	back = back && !q.mine
	for n := range a.ended(st) {
		c := r.mem.entry(n.hash)
		if c == nil || r.mem.has(n.end()) {
			continue
		}
		rung, back = true, back && c.hash&counts == 0
		r.drop(r.pace.withdraw(func(*part) bool { return true }, func(o noted) bool { return o.hash&^hashFlags == n.hash }, ReasonCallEnded), ReasonCallEnded, "", e)
		if own {
			r.uncount(n.hash) // the user knows of it
		}
	}
	if !rung {
		return false, false
	}
	if by := a.sessionOf(resource(st.From)); len(e.Drops) > dropped || own && by != nil && by.bound == r { // it did not ring yet, or it is the device that answered
		rung, back = false, false
	}
	if back { // should it lose its connection before it has the stanza, that is another event
		return true, true
	}
	for n := range a.ended(st) {
		if h := n.end(); r.mem.has(n.hash) && !r.mem.has(h) {
			r.remember(h, now, a.policy)
		}
	}
	return rung, false
}

// end is what is remembered of a call, whatever copy announced it, when a registration has been told that it is over.
func (n *heard) end() uint64 { return (uint64(n.chat)<<32 | uint64(n.message)) &^ hashFlags }

// grace returns until when notifications of a registration that are not urgent wait because the user is active in another session.
func (a *Account) grace(r *registration, grace time.Duration) time.Time {
	var last uint32
	for _, s := range a.sessions {
		if s.bound != r && (s.claim == nil || *s.claim != r.Key) { // else it is an older one of the same device
			last = max(last, s.active)
		}
	}
	if last == 0 {
		return time.Time{}
	}
	return time.Unix(int64(last), 0).Add(grace)
}

// allAway tells whether the account has connected sessions and all of them are away.
func (a *Account) allAway() bool {
	some := false
	for _, s := range a.sessions {
		if !s.hibernated {
			if !s.away {
				return false
			}
			some = true
		}
	}
	return some
}
