package push

import (
	"errors"
	"slices"
)

// check tells whether the account holds to what the rest of the code relies on.
func (a *Account) check() error {
	ids := make(map[string]bool, len(a.sessions))
	bound := make(map[*registration]bool, len(a.regs))
	for _, s := range a.sessions {
		if s.id == "" || ids[s.id] || s.since > a.claims || s.bound != nil && bound[s.bound] {
			return errors.New("sessions contradict each other")
		}
		ids[s.id], bound[s.bound] = true, true
	}
	hashes := false
	for _, r := range a.regs {
		counted := int64(0)
		seen := make(map[uint64]bool, len(r.mem.ring))
		for _, m := range r.mem.ring {
			h := m.hash &^ hashFlags
			if m.hash&hashFlags > counts || seen[h] {
				return errors.New("what was notified contradicts itself")
			}
			seen[h], hashes = true, true
			counted += int64(m.hash & counts)
		}
		for _, parts := range [...][]part{r.pace.waiting, r.pace.flight} {
			from := make(map[*session]bool, len(parts))
			for i := range parts {
				p := &parts[i]
				if from[p.from] && !p.over {
					return errors.New("two parts of one source")
				}
				from[p.from] = from[p.from] || !p.over // the session of one that is over may be gone
				counted += int64(p.nameless)
				if err := p.check(); err != nil {
					return err
				}
				hashes = hashes || slices.ContainsFunc(p.stanzas, noted.named)
			}
		}
		if counted > int64(r.unread) {
			return errors.New("more unread than counted")
		}
		if len(r.pace.waiting) > 0 && r.pace.due == 0 {
			return errors.New("what waits is not due")
		}
	}
	if (hashes || a.chats != nil) && a.key == (hashKey{}) {
		return errors.New("hashes without a key")
	}
	return nil
}

func (p *part) check() error {
	if _, ok := p.class(); !ok {
		return errors.New("a part of nothing")
	}
	var named [ClassUrgent + 1]int32
	for _, n := range p.stanzas {
		if n.class() > ClassUrgent {
			return errors.New("a stanza of no class")
		}
		if n.named() {
			named[n.class()]++
		}
	}
	for c := range p.count {
		if named[c] > p.count[c] || (p.at[c] != 0) != (p.count[c] > 0 || Class(c) == ClassPlain && p.wakes) {
			return errors.New("a part that counts wrong")
		}
	}
	if int(p.nameless) > p.total() {
		return errors.New("a part that counts wrong")
	}
	return nil
}
