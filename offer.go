package push

import "github.com/xmpp-push/push/wishes"

// Offer is what a host offers its clients besides XEP-0357. What needs nothing of the host is offered always: filters by JID and by room, priority,
// encrypted payloads, and calls. The rest is only worth announcing if the host does its part.
type Offer struct {
	// Contacts: the host answers who is a contact, so that a client can ask not to hear of strangers.
	Contacts bool
	// Presence: the host says which sessions are away, so that a client can ask to be notified while all are.
	Presence bool
	// Push2: the host passes requests of Push 2.0 on, and errors of push services that are messages.
	Push2 bool
	// Archive: there is an archive (XEP-0313), so that Push 2.0 can notify of what goes into it.
	Archive bool
	// Content: the host gives the XML of stanzas, so that Push 2.0 can carry them, encrypted.
	Content bool
}

// Features returns what an account announces in the disco#info of its bare JID (XEP-0357 §4.1).
func (o Offer) Features() []string {
	fs := []string{NS, nsMuted, nsGroupchat, nsPriority, nsEncrypt, "tigase:push:encrypt:" + wishes.AES128GCM, nsJingle}
	if o.Contacts {
		fs = append(fs, nsIgnoreUnknown)
	}
	if o.Presence {
		fs = append(fs, nsAway)
	}
	if !o.Push2 {
		return fs
	}
	fs = append(fs, NSPush2, NSMatch+wishes.MatchAll.String(), NSMatch+wishes.MatchImportant.String())
	if o.Archive {
		fs = append(fs, NSMatch+wishes.MatchArchived.String(), NSMatch+wishes.MatchArchivedWithBody.String())
	}
	fs = append(fs, NSNotifyOnly)
	if o.Content {
		fs = append(fs, NSEncrypted)
	}
	return fs
}
