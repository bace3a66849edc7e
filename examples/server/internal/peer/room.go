package peer

import (
	"net"
	"strconv"
	"sync/atomic"

	"github.com/xmpp-push/push/examples/server/internal/element"
)

// Room is a room (XEP-0045) at a component, as far as its members who are not joined see of it: what is said goes to their bare JIDs.
type Room struct {
	// JID is the room's bare JID.
	JID  string
	conn net.Conn
	in   *element.Reader
	said atomic.Int64
}

// ConnectRoom connects the component of a room to a server's component port.
func ConnectRoom(conn net.Conn, local, domain, secret string) (*Room, error) {
	s := &PushService{Domain: domain, conn: conn, in: element.NewReader(conn)}
	if err := s.shakeHands(secret); err != nil {
		conn.Close()
		return nil, err
	}
	r := &Room{JID: local + "@" + domain, conn: conn, in: s.in}
	go func() { // errors that come back say that a member is not there
		for {
			if _, err := r.in.Next(); err != nil {
				return
			}
		}
	}()
	return r, nil
}

// Say lets an occupant say something, and tells the members, by their bare JIDs. It returns the ID that the room gave to it (XEP-0359).
func (r *Room) Say(nick, body string, members ...string) (string, error) {
	id := "r" + strconv.FormatInt(r.said.Add(1), 10)
	for _, m := range members {
		st := element.New("", "message", "type", "groupchat", "from", r.JID+"/"+nick, "to", m, "id", "said-"+id).Add(
			element.New("", "body").Add(body),
			element.New("urn:xmpp:sid:0", "stanza-id", "by", r.JID, "id", id),
			element.New("urn:xmpp:occupant-id:0", "occupant-id", "id", "occupant-"+nick))
		if _, err := r.conn.Write(st.Append(nil)); err != nil {
			return "", err
		}
	}
	return id, nil
}

// Whisper lets an occupant say something to one member in private (XEP-0045 §7.5).
func (r *Room) Whisper(nick, body, member string) error {
	st := element.New("", "message", "type", "chat", "from", r.JID+"/"+nick, "to", member, "id", "whispered-"+strconv.FormatInt(r.said.Add(1), 10)).Add(
		element.New("", "body").Add(body), element.New("http://jabber.org/protocol/muc#user", "x"))
	_, err := r.conn.Write(st.Append(nil))
	return err
}

// Invite passes an invitation on to one address (XEP-0045 §7.8.2). It has no text.
func (r *Room) Invite(from, to string) error {
	const ns = "http://jabber.org/protocol/muc#user"
	_, err := r.conn.Write(element.New("", "message", "from", r.JID, "to", to).Add(element.New(ns, "x").Add(element.New(ns, "invite", "from", from))).Append(nil))
	return err
}

// Close takes the room away.
func (r *Room) Close() { r.conn.Close() }
