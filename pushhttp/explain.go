package pushhttp

import (
	"slices"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// Explanation is what became of a message, for each device of the account that it was to.
type Explanation struct {
	Account string
	// Kind is "message", "call", "wake-up" or the like.
	Kind, From string
	At         time.Time
	Answers    []Answer
}

// Answer is what became of a message for one device.
type Answer struct {
	Device
	Mark Mark
	// Text says it in a sentence; Next is what can be done, or empty.
	Text, Next string
}

// Explain says what became of the message with a stanza ID, for every account of which the history has it. Safe for simultaneous use.
func (h *History) Explain(id string) (all []Explanation) {
	h.mu.Lock()
	var accounts []string
	for i := h.all.first; i != 0; {
		l := h.line(i)
		i = l.inAll.after
		if l.kind == isEvent && slices.ContainsFunc(stanzas(l.raised()), func(st push.Stanza) bool { return st.ID == id }) && !slices.Contains(accounts, l.account.name) {
			accounts = append(accounts, l.account.name)
		}
	}
	h.mu.Unlock()
	for _, name := range accounts {
		known, lines := h.about(name), h.of(name)
		ns := namesOf(&push.AccountStatus{}, &known)
		for _, m := range messagesOf(related(lines, map[string]bool{id: true}, make(map[uint64]bool))) {
			if m.id != id {
				continue
			}
			e := Explanation{Account: name, Kind: m.kind, From: m.from, At: m.at}
			for i := range m.fates {
				f := &m.fates[i]
				t := f.answer(ns.of(f.key))
				e.Answers = append(e.Answers, Answer{ns.device(f.key), t.mark, t.text.String(), t.next})
			}
			if len(m.fates) == 0 && m.nobody != push.ReasonNone {
				t := m.nobodyAnswer(name, lines, ns.of)
				e.Answers = append(e.Answers, Answer{Device{}, t.mark, t.text.String(), t.next})
			}
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b Explanation) int { return strings.Compare(a.Account, b.Account) })
	return all
}
