package push

// Answers is what the host said when it was asked in the course of an event. A Decision has it, so that a recording can carry it and a replay
// decides the same without the host. Nothing is in it that the host was not asked for.
type Answers struct {
	// Elsewhere are the registrations with a session on another node ([Liveness]).
	Elsewhere []Key
	// Vetoes are the answers of [Vetoer.VetoStanza] that were a no.
	Vetoes []VetoAnswer
	// Chats are what was known of the stanzas' chats where that mattered ([Contacts], [Chats], Stanza.Info), with whether the stanza mentions the
	// user if the decision asked for that.
	Chats []ChatAnswer
}

// VetoAnswer is the host's no to one registration and stanza.
type VetoAnswer struct {
	Key
	// Stanza is the place of the stanza in its event, from 0.
	Stanza int
	// Text is what the host said.
	Text string
}

// None tells whether the host said nothing.
func (a *Answers) None() bool {
	return len(a.Elsewhere) == 0 && len(a.Vetoes) == 0 && len(a.Chats) == 0
}

func (a *Answers) reset() { *a = Answers{} }
