package push

// Sizes is what an Account keeps for the registration that has most of it.
type Sizes struct {
	// Marks are the stanzas that it remembers, Memory is what that takes, both in numbers of them.
	Marks, Memory int
	// Parts and Hashes are those of what waits.
	Parts, Hashes int
}

func (a *Account) Sizes() (s Sizes) {
	for _, r := range a.regs {
		marks := 0
		for _, m := range r.mem.all() {
			if m.at != forgotten {
				marks++
			}
		}
		s.Marks = max(s.Marks, marks)
		s.Memory = max(s.Memory, len(r.mem.ring))
		s.Parts = max(s.Parts, len(r.pace.waiting))
		for _, p := range r.pace.waiting {
			s.Hashes = max(s.Hashes, len(p.stanzas))
		}
	}
	return s
}

// Parts is how much of everything an Engine holds, but for what is not there.
func (e *Engine) Parts() map[string]int {
	parts := make(map[string]int)
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		parts["accounts"] += len(s.accounts)
		parts["fingerprints"] += s.kept.live
		parts["due"] += s.queue.Len()
		for w := s.calls.next; w != &s.calls; w = w.next {
			parts["calls"]++
		}
		for _, en := range s.accounts {
			parts["sessions"] += len(en.sessions)
			parts["registrations"] += len(en.regs)
			if en.gone != nil {
				parts["gone"] += len(*en.gone)
			}
			if en.queue != nil {
				parts["turns"]++
			}
			if en.mail != nil {
				parts["mails"]++
			}
			if l := en.lane; l != nil {
				parts["lanes"]++
				parts["deferred"] += len(l.deferred)
				parts["lessons"] += len(l.learned) + len(l.writing)
			}
			if !en.keep.quiet() || en.keep.at != 0 {
				parts["keeps"]++
			}
			if c := en.chats; c != nil {
				parts["chats"] += len(c.heard) + len(c.known)
			}
			for _, r := range en.regs {
				parts["remembered"] += r.mem.count()
				parts["parts"] += len(r.pace.waiting) + len(r.pace.flight)
			}
		}
		s.mu.Unlock()
	}
	e.gates.mu.Lock()
	parts["services"] = len(e.gates.services)
	for _, g := range e.gates.services {
		g.mu.Lock()
		parts["at services"] += len(g.ready) - g.head + len(g.prepared) + len(g.hung) + g.asking
		g.mu.Unlock()
	}
	e.gates.mu.Unlock()
	for _, h := range e.hooks.all() {
		h.mu.Lock()
		parts["hanging"] += len(h.hanging) + int(h.hangs.Load())
		h.mu.Unlock()
	}
	e.back.mu.Lock()
	parts["background"] = e.back.running + len(e.back.waiting)
	e.back.mu.Unlock()
	parts["counted deferred"], parts["counted lessons"], parts["work"] = int(e.defers.Load()), int(e.learned.Load()), int(e.work.n.Load())
	for what, n := range parts {
		if n == 0 {
			delete(parts, what)
		}
	}
	return parts
}
