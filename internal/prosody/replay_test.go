package prosody

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/xmpp-push/push/trace"
)

// replay runs our side over a trace.
func replay(text []byte) (*ours, error) {
	o := &ours{}
	r := trace.NewReplay(func(l *trace.Line) {
		a := address{user: l.User, service: l.Service}
		if l.Node != nil {
			a.node = *l.Node
		}
		switch {
		case l.Kind == "decision" && *l.Notify:
			o.decisions = append(o.decisions, decision{int(l.Event), a, l.Class, slices.Clone(l.Stanzas)})
		case l.Kind == "publish":
			p := publish{at: l.At, address: a, class: l.Class}
			for _, e := range l.Events {
				p.events = append(p.events, int(e))
			}
			o.publishes = append(o.publishes, p)
		}
	})
	err := r.Run(trace.NewReader(bytes.NewReader(text)))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	r.Finish()
	return o, err
}
