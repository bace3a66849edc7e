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
