package jackal

import (
	"context"

	"github.com/jackal-xmpp/stravaganza"
	"github.com/ortuman/jackal/pkg/hook"
	"github.com/ortuman/jackal/pkg/module/xep0313"
	jackalstream "github.com/ortuman/jackal/pkg/router/stream"
	"github.com/xmpp-push/push"
)

// archived: a message was stored in an account's archive.
func (m *Module) archived(x *hook.ExecutionContext) error {
	inf, ok := x.Info.(*hook.MamInfo)
	if !ok || inf.Message == nil || inf.Message.GetMessage() == nil {
		return nil
	}
	e := stravaganza.NewBuilderFromProto(inf.Message.GetMessage()).Build()
	if root(e).child("urn:xmpp:hints", "no-store") != nil {
		return nil // jackal archives it all the same; that is no reason to wake anybody
	}
	m.handle(x.Context, push.ArchiveAdded{Account: inf.ArchiveID, Stanza: toStanza(inf.ArchiveID, inf.Message.GetId(), e)})
	return nil
}

// storedOffline: a message went to offline storage.
func (m *Module) storedOffline(x *hook.ExecutionContext) error {
	inf, ok := x.Info.(*hook.OfflineInfo)
	if !ok {
		return nil
	}
	account := inf.Message.ToJID().ToBareJID().String()
	m.handle(x.Context, push.Offline{Account: account, Stanza: toStanza(account, "", inf.Message)})
	return nil
}

// messageReceived: a client has sent a message, which now has the ID of its recipient's archive.
func (m *Module) messageReceived(ctx context.Context, _ jackalstream.C2S, inf *hook.C2SStreamInfo) error {
	m.groupchat(ctx, inf.Element)
	return nil
}

// remoteMessage: another server has sent a message.
func (m *Module) remoteMessage(x *hook.ExecutionContext) error {
	if inf, ok := x.Info.(*hook.S2SStreamInfo); ok {
		m.groupchat(x.Context, inf.Element)
		m.affiliation(x.Context, inf.Element, inf.Sender)
	}
	return nil
}

// groupchat: a message of a room has reached an account's bare JID, which rooms do for members of whom no resource has joined.
func (m *Module) groupchat(ctx context.Context, e stravaganza.Element) {
	msg, ok := e.(*stravaganza.Message)
	if !ok || !msg.IsGroupChat() || !msg.ToJID().IsBare() || !m.Hosts.IsLocalHost(msg.ToJID().Domain()) {
		return
	}
	account := msg.ToJID().String()
	m.handle(ctx, push.Groupchat{Account: account, Stanza: toStanza(account, "", msg)})
}

// messageRouted: a client's message has been routed to whatever streams there were.
func (m *Module) messageRouted(ctx context.Context, _ jackalstream.C2S, inf *hook.C2SStreamInfo) error {
	m.call(ctx, inf.Element)
	return nil
}

// remoteRouted is messageRouted for a message of another server.
func (m *Module) remoteRouted(x *hook.ExecutionContext) error {
	if inf, ok := x.Info.(*hook.S2SStreamInfo); ok {
		m.call(x.Context, inf.Element)
	}
	return nil
}

// call: a call was proposed. jackal archives only what has a body, and so no call; but who is called has to know at once, so this is the
// archive-added event of calls.
func (m *Module) call(ctx context.Context, e stravaganza.Element) {
	msg, ok := e.(*stravaganza.Message)
	if !ok || xep0313.IsMessageArchievable(msg) || !m.Hosts.IsLocalHost(msg.ToJID().Domain()) {
		return
	}
	account := msg.ToJID().ToBareJID().String()
	if st := toStanza(account, "", msg); st.Class == push.ClassUrgent {
		m.handle(ctx, push.ArchiveAdded{Account: account, Stanza: st})
	}
}

// userDeleted: an account is gone. jackal's accounts exist on all of its hosts at once.
func (m *Module) userDeleted(x *hook.ExecutionContext) error {
	if inf, ok := x.Info.(*hook.UserInfo); ok {
		for _, host := range m.Hosts.HostNames() {
			m.handle(x.Context, push.AccountRemoved{Account: inf.Username + "@" + host})
		}
	}
	return nil
}
