package prosody

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/xmpp-push/push/trace"
)

// asProsody lets important stanzas wait for their batch, and two publishes follow each other at once, as with mod_cloud_notify.
func asProsody(p trace.Policy) trace.Policy {
	p.DelayImportant, p.MinInterval = true, -1
	return p
}

// replay runs our side over a trace.
func replay(text []byte) (*ours, error) { return replayUnder(text, asProsody) }

// replayUnder is replay with what policy makes of the trace's.
func replayUnder(text []byte, policy func(trace.Policy) trace.Policy) (*ours, error) {
	o := &ours{}
	r := trace.NewReplay(func(l *trace.Line) {
		a := address{user: l.User, service: l.Service}
		if l.Node != nil {
			a.node = *l.Node
		}
		switch {
		case l.Kind == "decision" && *l.Notify:
			o.decisions = append(o.decisions, decision{int(l.Event), a, l.Class, slices.Clone(l.Stanzas)})
		case l.Kind == "drop" && (l.Reason == "read" || l.Reason == "retracted" || l.Reason == "call-ended"):
			o.drops = append(o.drops, withdrawal{l.At, a})
		case l.Kind == "publish":
			p := publish{at: l.At, address: a, class: l.Class}
			for _, e := range l.Events {
				p.events = append(p.events, int(e))
			}
			o.publishes = append(o.publishes, p)
		}
	})
	in := trace.NewReader(bytes.NewReader(text))
	for {
		rec, err := in.Next()
		if errors.Is(err, io.EOF) {
			r.Finish()
			return o, nil
		}
		if err != nil {
			return o, err
		}
		if rec.Config != nil {
			rec.Config.Policy = policy(rec.Config.Policy)
		}
		if err := r.Step(rec); err != nil {
			return o, err
		}
	}
}
