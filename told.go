package push

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// decided is a decision with its event, for the Observer.
type decided struct {
	number uint64
	at     time.Time
	ev     Event
	took   time.Duration
	// d is own, or the caller's, as what ev points to is, if he tells it himself: it is his again when he has waited long enough.
	d   *Decision
	own Decision
}

func (e *Engine) newDecided(number uint64, at time.Time, kept Event, d *Decision, took time.Duration) *decided {
	dec := decideds.Get().(*decided)
	dec.number, dec.at, dec.ev, dec.took = number, at, kept, took
	d.copyTo(&dec.own)
	dec.d = &dec.own
	return dec
}

// recycle takes back what the Observer was told.
func (dec *decided) recycle() {
	dec.own.reset("")
	decideds.Put(dec)
}

// tellDecided queues what there is to tell of an event. The shard is locked. If mine, ev and d are those of somebody who calls hereOr next, with the
// shard still locked, and hear then.
func (e *Engine) tellDecided(en *entry, number uint64, at time.Time, ev Event, d *Decision, took time.Duration, mine bool) {
	if e.telling {
		e.tellEffects(en, at, &d.Effects, false)
	}
	if e.watched {
		e.tellDecision(en, number, at, ev, d, took, mine)
	}
}

func (e *Engine) tellDecision(en *entry, number uint64, at time.Time, ev Event, d *Decision, took time.Duration, mine bool) {
	if mine && !e.debugs && e.obs.Decided == nil && en.mail == nil && e.hooks.quick.hangs.Load() == 0 { // nobody else is told of it, or tells it
		m := en.getMail()
		m.mine.number, m.mine.at, m.mine.ev, m.mine.took, m.mine.d = number, at, own(ev), took, d
		m.first = note{hook: &e.hooks.quick, decided: &m.mine, quick: true}
		m.queued++
		return
	}
	kept := keepEvent(ev)
	if e.quick.Decided != nil {
		en.post(note{hook: &e.hooks.quick, decided: e.newDecided(number, at, kept, d, took), quick: true})
	}
	if e.debugs {
		own := d.clone()
		en.tell(&e.hooks.logger, "", func() { e.logDecision(number, kept, own) })
	}
	if e.obs.Decided != nil {
		en.post(note{hook: &e.hooks.observer, decided: e.newDecided(number, at, kept, d, took)})
	}
}

// tellEffects queues what there is to tell of effects; affected says that they came of no event. The shard is locked.
func (e *Engine) tellEffects(en *entry, at time.Time, eff *Effects, affected bool) {
	if eff.none() {
		return
	}
	name := en.name
	if h := e.cfg.Resumption; h != nil {
		for _, a := range eff.Advice {
			en.tell(&e.hooks.resumption, a.Session.ID, func() { h.ResumeTimeout(a.Session, a.Timeout, a.Reason) })
		}
	}
	if !affected && e.cfg.Logger == nil {
		return
	}
	own := eff.clone()
	if affected {
		e.observe(en, func(o *Observer) bool { return o.Affected != nil }, func(o *Observer) { o.Affected(name, at, own) })
	}
	if e.cfg.Logger != nil {
		en.tell(&e.hooks.logger, "", func() { e.logEffects(name, own) })
	}
}

// tellRead queues that the account's registrations were read. The shard is locked, or the caller has the account's turn.
func (e *Engine) tellRead(en *entry, at time.Time) {
	if e.obs.Read == nil && e.quick.Read == nil {
		return
	}
	name, rs := en.name, en.Registrations()
	e.observe(en, func(o *Observer) bool { return o.Read != nil }, func(o *Observer) { o.Read(name, at, rs) })
}

func (e *Engine) logEffects(account string, eff *Effects) {
	ctx := context.Background()
	for i := range eff.Changes {
		c := &eff.Changes[i]
		level := slog.LevelInfo
		if c.Kind == ChangeDisabled {
			level = slog.LevelWarn
		}
		e.log.LogAttrs(ctx, level, "push: registration "+c.Kind.String(), slog.String("account", account), slog.String("service", c.Service),
			slog.String("node", c.Node), slog.String("reason", c.Reason.String()), slog.String("detail", c.Detail))
	}
	for i := range eff.Drops {
		d := &eff.Drops[i]
		e.log.LogAttrs(ctx, slog.LevelInfo, "push: notification dropped", slog.String("account", account), slog.String("service", d.Service),
			slog.String("node", d.Node), slog.String("class", d.Class.String()), slog.Int("stanzas", d.Count), slog.String("reason", d.Reason.String()))
	}
}

func (e *Engine) logDecision(number uint64, ev Event, d *Decision) {
	ctx := context.Background()
	if len(d.Verdicts) == 0 {
		e.log.LogAttrs(ctx, slog.LevelDebug, "push: decision", slog.String("account", d.Account), slog.String("event", ev.Name()),
			slog.Uint64("number", number), slog.Bool("notify", false), slog.String("reason", d.Reason.String()))
	}
	for i := range d.Verdicts {
		v := &d.Verdicts[i]
		e.log.LogAttrs(ctx, slog.LevelDebug, "push: decision", slog.String("account", d.Account), slog.String("event", ev.Name()),
			slog.Uint64("number", number), slog.String("service", v.Service), slog.String("node", v.Node), slog.Bool("notify", v.Notify),
			slog.String("class", v.Class.String()), slog.String("rule", v.Rule.String()), slog.String("reason", v.Reason.String()), slog.Int("stanzas", v.Count))
	}
}

func (e *Engine) logReply(n *Notification, reply Reply, res Result, took time.Duration) {
	ctx, level := context.Background(), slog.LevelDebug
	if res.Outcome != OutcomeAccepted {
		level = slog.LevelInfo
	}
	what := cut(reply.Condition, 64)
	switch {
	case reply.Missing:
		what = "no answer"
	case reply.Vetoed != "":
		what = "vetoed by the host"
	}
	e.log.LogAttrs(ctx, level, "push: publish "+res.Outcome.String(), slog.String("account", n.Account), slog.String("service", n.Service),
		slog.String("node", n.Node), slog.String("class", n.Class.String()), slog.Int("stanzas", n.Count), slog.Int("try", n.Try),
		slog.String("error", what), slog.Duration("took", took))
}

// clone returns a copy that shares nothing that is used again.
func (e *Effects) clone() *Effects {
	c := &Effects{slices.Clone(e.Changes), slices.Clone(e.Advice), slices.Clone(e.Drops)}
	for i := range c.Drops {
		c.Drops[i].Events = slices.Clone(c.Drops[i].Events)
	}
	return c
}

func (d *Decision) clone() *Decision {
	c := *d
	c.Effects = *d.Effects.clone()
	c.Verdicts, c.ids = slices.Clone(d.Verdicts), nil
	for i := range c.Verdicts {
		c.Verdicts[i].Stanzas = slices.Clone(c.Verdicts[i].Stanzas)
	}
	return &c
}

// copyTo makes c, which is empty, a copy that shares nothing that is used again.
func (d *Decision) copyTo(c *Decision) {
	c.Account, c.Reason, c.Answers = d.Account, d.Reason, d.Answers
	c.Changes, c.Advice, c.Drops = append(c.Changes, d.Changes...), append(c.Advice, d.Advice...), append(c.Drops, d.Drops...)
	for i := range c.Drops {
		c.Drops[i].Events = slices.Clone(c.Drops[i].Events)
	}
	c.Verdicts = append(c.Verdicts, d.Verdicts...)
	for i := range c.Verdicts {
		if v := &c.Verdicts[i]; len(v.Stanzas) > 0 {
			n := len(c.ids)
			c.ids = append(c.ids, v.Stanzas...)
			v.Stanzas = c.ids[n:len(c.ids):len(c.ids)]
		}
	}
}

// keepEvent returns a copy of ev that shares nothing with the caller's.
func keepEvent(ev Event) Event {
	switch e := own(ev).(type) { // a copy, so that the event of a caller that nobody is told of stays where it is
	case AckDelayed:
		e.Stanzas = slices.Clone(e.Stanzas)
		return e
	case HibernationStart:
		e.Stanzas = slices.Clone(e.Stanzas)
		return e
	case Acknowledged:
		e.IDs = slices.Clone(e.IDs)
		return e
	case Ping:
		e.Registrations = slices.Clone(e.Registrations)
		return e
	case PushEnable:
		e.Options = cloneFields(e.Options)
		return e
	default:
		return e
	}
}
