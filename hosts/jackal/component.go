package jackal

import (
	"strings"

	"github.com/go-kit/log/level"
	"github.com/jackal-xmpp/stravaganza"
	"github.com/ortuman/jackal/pkg/hook"
)

// componentElement: an external component (XEP-0114) has sent an element.
func (m *Module) componentElement(x *hook.ExecutionContext) error {
	inf, ok := x.Info.(*hook.ExternalComponentInfo)
	if !ok || inf.Host == "" {
		return nil
	}
	m.components.Store(inf.ID, inf.Host)
	switch e := inf.Element.(type) {
	case *stravaganza.IQ:
		if m.reply(e, inf.Host) {
			return hook.ErrStopped // jackal would look for an account without a name
		}
	case *stravaganza.Message:
		m.groupchat(x.Context, e)
		m.affiliation(x.Context, e, inf.Host)
	}
	return nil
}

// componentGone: the connection of an external component is closed. jackal forgets to unregister its host, and would then refuse it when
// it comes back, until the server is restarted.
func (m *Module) componentGone(x *hook.ExecutionContext) error {
	inf, ok := x.Info.(*hook.ExternalComponentInfo)
	if !ok {
		return nil
	}
	host, ok := m.components.LoadAndDelete(inf.ID)
	if !ok || !m.Components.IsComponentHost(host.(string)) {
		return nil
	}
	err := m.Components.UnregisterComponent(x.Context, host.(string))
	if err == nil {
		err = m.External.UnregisterComponentHost(x.Context, host.(string))
	}
	if err != nil {
		level.Warn(m.Logger).Log("msg", "component not unregistered", "component_host", host, "err", err)
	}
	return nil
}

// domainOf returns the domain of a JID.
func domainOf(jid string) string {
	bare, _, _ := strings.Cut(jid, "/")
	if _, d, ok := strings.Cut(bare, "@"); ok {
		return d
	}
	return bare
}
