package push

import (
	"cmp"
	"slices"
	"time"

	"github.com/xmpp-push/push/wishes"
)

// Stanzas whose content goes along with a notification, for clients that asked for that with keys of their own. They are kept for no others, no
// longer than the notification, and in no snapshot: one that waits across a restart goes without content.

// Carried is a stanza that goes along with a notification, encrypted for the client.
type Carried struct {
	// Stanza is the stanza. Its XML is left out where it was too large to keep.
	Stanza Stanza
	// Archive is the ID by which the account's archive has it, or empty.
	Archive string
	// Send says how, for a registration of Push 2.0.
	Send *wishes.WebPush
}

// Limits on what is carried: more than so many is more than a device shows, and of a larger stanza no more would be left than of what its fields say.
const (
	maxCarried      = 8
	maxCarriedBytes = 16 << 10
)

// carried is a Carried with what the pacing has to know of it.
type carried struct {
	Carried
	at   instant
	hash uint64 // of the stanza's ID, or 0
}

// carry keeps of a stanza that r is notified of what its client asked to be told.
func (p *part) carry(r *registration, q *question, st *Stanza, hash uint64, now time.Time) {
	w := r.Wishes
	limit := maxCarried
	c := carried{at: toInstant(now), hash: hash}
	switch {
	case w == nil:
		return
	case w.Push2 != nil:
		if q.match > len(w.Push2.Matches) { // there is none; a Store may give such
			return
		}
		if c.Send = w.Push2.Matches[q.match-1].Send; c.Send == nil {
			return
		}
	case w.Encryption == nil || q.class < ClassImportant:
		return
	default:
		limit = 1
	}
	c.Stanza = Stanza{
		From: st.From, To: st.To, Body: st.Body, XML: st.XML, MessageID: st.MessageID, Class: q.class, Kind: st.Kind, Type: st.Type, Content: st.Content,
	}
	if len(st.XML) > maxCarriedBytes || w.Push2 == nil {
		c.Stanza.XML = ""
	}
	if st.Details != nil && st.Details.Call != nil {
		c.Stanza.Details = &Details{Call: st.Details.Call}
	}
	if q.event == onArchiveAdded || st.Archived {
		c.Archive = st.ID
	}
	p.carried = newest(append(p.carried, c), limit)
}

// uncarry drops what goes along of stanzas that are taken out of the part.
func (p *part) uncarry(whole [ClassUrgent + 1]bool, gone []noted) {
	p.carried = slices.DeleteFunc(p.carried, func(c carried) bool {
		return whole[c.Stanza.Class] || c.hash != 0 && slices.ContainsFunc(gone, func(n noted) bool { return n.hash&^hashFlags == c.hash })
	})
}

// carried returns what goes along with what is in flight, oldest first.
func (p *pacer) carried() []Carried {
	var all []carried
	for i := range p.flight {
		all = append(all, p.flight[i].carried...)
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(a, b carried) int { return cmp.Compare(a.at, b.at) })
	all = newest(all, maxCarried)
	cs := make([]Carried, len(all))
	for i := range all {
		cs[i] = all[i].Carried
	}
	return cs
}
