package pushhttp

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/xmpp-push/push"
)

// Action is what an operator did to a device.
type Action struct {
	At       time.Time
	Operator string
	// Kind is "ping" or "disable".
	Kind    string
	Account string
	push.Key
	// Err is nil if it was done.
	Err error
}

// act does what a form asks for and leads back to the account.
func (p *Handler) act(w http.ResponseWriter, r *http.Request, operator, kind string) {
	if p.cfg.ReadOnly {
		http.Error(w, "Refused: these pages are for reading.", http.StatusForbidden)
		return
	}
	if kind != "ping" && kind != "disable" {
		http.NotFound(w, r)
		return
	}
	if err := r.ParseForm(); err != nil {
		http.Error(w, "The form could not be read.", http.StatusBadRequest)
		return
	}
	name, ok := p.resolve(r.PostForm.Get("jid"))
	a := Action{At: time.Now(), Operator: operator, Kind: kind, Account: name, Key: push.Key{Service: r.PostForm.Get("service"), Node: r.PostForm.Get("node")}}
	if !ok || a.Service == "" {
		p.fail(w, r, http.StatusNotFound, operator, "There is no such device.", nil)
		return
	}
	st, err := p.cfg.Engine.Inspect(r.Context(), name)
	if err != nil {
		p.fail(w, r, http.StatusServiceUnavailable, operator, "The account could not be looked up.", nil)
		return
	}
	if !slices.ContainsFunc(st.Registrations, func(r push.RegistrationStatus) bool { return r.Key == a.Key }) {
		p.fail(w, r, http.StatusNotFound, operator, "There is no such device any more.", nil)
		return
	}
	done := func() {}
	if p.cfg.History != nil && kind == "disable" {
		done = p.cfg.History.acting(name, a.Key, operator)
	}
	if kind == "ping" {
		_, a.Err = p.cfg.Engine.Handle(r.Context(), push.Ping{Account: name, Registrations: []push.Key{a.Key}})
	} else if a.Node == "" && len(st.Registrations) > 1 {
		// A push-disable without a node means all of the service (XEP-0357 §6), which is not what was asked for. So it is revoked.
		_, a.Err = p.cfg.Engine.Handle(r.Context(), push.AffiliationNone{Account: name, Key: a.Key})
	} else {
		_, a.Err = p.cfg.Engine.Handle(r.Context(), push.PushDisable{Session: push.SessionID{Account: name}, Key: a.Key})
	}
	done()
	p.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "pushhttp: "+kind, slog.String("operator", operator), slog.String("account", name),
		slog.String("service", a.Service), slog.String("node", a.Node), slog.Any("error", a.Err))
	if p.cfg.Audit != nil {
		p.cfg.Audit(a)
	}
	if a.Err != nil {
		p.fail(w, r, http.StatusServiceUnavailable, operator, "It could not be done: the server has the reason in its log.", nil)
		return
	}
	if p.cfg.History != nil {
		p.cfg.History.acted(a.At, &a)
	}
	w.Header().Set("Location", "account?"+url.Values{"jid": {p.shown(name)}, "did": {kind}}.Encode())
	w.WriteHeader(http.StatusSeeOther)
}
