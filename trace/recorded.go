package trace

import (
	"errors"
	"fmt"
	"time"

	"github.com/xmpp-push/push"
)

// What a recording says besides the events: what the recorded Engine decided, what the host had answered it, what it sent and when, and what it
// gave up. A replay of it sends when the recording sent, so that nothing is made up, and compares what it decides with what was decided.

// Recorded is what the recorded Engine decided about an event.
type Recorded struct {
	Verdicts []RecordedVerdict
	Answers  push.Answers
}

// RecordedVerdict is one answer. It has no Service if it is about the event as a whole, as for an account without registrations.
type RecordedVerdict struct {
	push.Key
	Notify bool
	// Class, Rule and Reason are tokens; of a later version they need not be known here.
	Class, Rule, Reason, Detail string
	Stanzas                     []string
	Count                       int
}

// Sent is a publish that went out.
type Sent struct {
	User string
	push.Key
	Class              string
	Count, Try, Unread int
	Events             []uint64
}

// Dropped is what was given up because it was too old.
type Dropped struct {
	User string
	push.Key
	Class  string
	Count  int
	Events []uint64
}

// verdict is a RecordedVerdict as written.
type verdict struct {
	Service string   `json:"service,omitempty"`
	Node    string   `json:"node,omitempty"`
	Notify  bool     `json:"notify,omitempty"`
	Class   string   `json:"class,omitempty"`
	Rule    string   `json:"rule,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Detail  string   `json:"detail,omitempty"`
	Stanzas []string `json:"stanzas,omitempty"`
	Count   int      `json:"count,omitempty"`
}

// answers are push.Answers as written.
type answers struct {
	Elsewhere []target          `json:"elsewhere,omitempty"`
	Vetoes    []veto            `json:"vetoes,omitempty"`
	Chats     []push.ChatAnswer `json:"chats,omitempty"`
}

type veto struct {
	Service string `json:"service"`
	Node    string `json:"node,omitempty"`
	Stanza  int    `json:"stanza,omitempty"`
	Text    string `json:"text"`
}

// recorded reads what an event line says of the decision. It is nil if it says nothing.
func recorded(l *line) (*Recorded, error) {
	if l.Decided == nil {
		return nil, nil
	}
	d := &Recorded{Verdicts: make([]RecordedVerdict, len(*l.Decided))}
	for i, v := range *l.Decided {
		d.Verdicts[i] = RecordedVerdict{push.Key{Service: v.Service, Node: v.Node}, v.Notify, v.Class, v.Rule, v.Reason, v.Detail, v.Stanzas, v.Count}
	}
	if a := l.Answers; a != nil {
		for _, e := range a.Elsewhere {
			d.Answers.Elsewhere = append(d.Answers.Elsewhere, push.Key{Service: e.Service, Node: e.Node})
		}
		for _, v := range a.Vetoes {
			if v.Text == "" {
				return nil, errors.New("a veto without its text")
			}
			d.Answers.Vetoes = append(d.Answers.Vetoes, push.VetoAnswer{Key: push.Key{Service: v.Service, Node: v.Node}, Stanza: v.Stanza, Text: v.Text})
		}
	}
	if l.Answers != nil {
		d.Answers.Chats = l.Answers.Chats
	}
	return d, nil
}

// written makes what an event line says of a decision.
func (d *Recorded) written() (*[]verdict, *answers) {
	if d == nil {
		return nil, nil
	}
	vs := make([]verdict, len(d.Verdicts))
	for i, v := range d.Verdicts {
		vs[i] = verdict{v.Service, v.Node, v.Notify, v.Class, v.Rule, v.Reason, v.Detail, v.Stanzas, v.Count}
	}
	if d.Answers.None() {
		return &vs, nil
	}
	a := &answers{Chats: d.Answers.Chats}
	for _, k := range d.Answers.Elsewhere {
		a.Elsewhere = append(a.Elsewhere, target{Service: k.Service, Node: k.Node})
	}
	for _, v := range d.Answers.Vetoes {
		a.Vetoes = append(a.Vetoes, veto{v.Service, v.Node, v.Stanza, v.Text})
	}
	return &vs, a
}

// RecordedOf returns a decision as a recording has it. It shares nothing with d but texts.
func RecordedOf(d *push.Decision) *Recorded {
	r := &Recorded{Answers: push.Answers{Elsewhere: append([]push.Key(nil), d.Answers.Elsewhere...), Vetoes: append([]push.VetoAnswer(nil), d.Answers.Vetoes...),
		Chats: append([]push.ChatAnswer(nil), d.Answers.Chats...)}}
	if d.Reason != push.ReasonNone {
		r.Verdicts = append(r.Verdicts, RecordedVerdict{Reason: d.Reason.String()})
	}
	for i := range d.Verdicts {
		v := &d.Verdicts[i]
		r.Verdicts = append(r.Verdicts, RecordedVerdict{
			v.Key, v.Notify, v.Class.String(), v.Rule.String(), v.Reason.String(), v.Detail, append([]string(nil), v.Stanzas...), v.Count,
		})
	}
	return r
}

// differs tells how another decision about the same event differs, in words, or returns "".
func (d *Recorded) differs(o *Recorded) string {
	if len(d.Verdicts) != len(o.Verdicts) {
		return fmt.Sprintf("%d answers, recorded were %d", len(o.Verdicts), len(d.Verdicts))
	}
	for i := range d.Verdicts {
		if text := d.Verdicts[i].differs(&o.Verdicts[i]); text != "" {
			return text
		}
	}
	return ""
}

func (v *RecordedVerdict) differs(o *RecordedVerdict) string {
	switch {
	case v.Key != o.Key:
		return fmt.Sprintf("%s, recorded was %s", keyText(o.Key), keyText(v.Key))
	case v.Notify == o.Notify && v.Class == o.Class && v.Rule == o.Rule && v.Reason == o.Reason && v.Count == o.Count:
		return ""
	}
	return fmt.Sprintf("%s, recorded was %s", o.text(), v.text())
}

func (v *RecordedVerdict) text() string {
	s := "no"
	if v.Notify {
		s = fmt.Sprintf("notify %s of %d", v.Class, v.Count)
	}
	s += ": " + v.Reason
	if v.Rule != "" {
		s += " (" + v.Rule + ")"
	}
	if v.Service != "" {
		s = keyText(v.Key) + " " + s
	}
	return s
}

func keyText(k push.Key) string {
	switch {
	case k.Service == "":
		return "nobody"
	case k.Node == "":
		return k.Service
	}
	return k.Service + "/" + k.Node
}

// sub is the part of a time below a millisecond, in nanoseconds.
func sub(at time.Time) int64 { return at.UnixNano() - at.UnixMilli()*int64(time.Millisecond) }

// Stanzas returns the stanzas that an event brings, nil if it brings none.
func Stanzas(ev push.Event) []push.Stanza {
	switch e := ev.(type) {
	case push.AckDelayed:
		return e.Stanzas
	case push.HibernationStart:
		return e.Stanzas
	case push.StanzaQueued:
		return []push.Stanza{e.Stanza}
	case push.ArchiveAdded:
		return []push.Stanza{e.Stanza}
	case push.Offline:
		return []push.Stanza{e.Stanza}
	case push.Groupchat:
		return []push.Stanza{e.Stanza}
	default:
		return nil
	}
}
