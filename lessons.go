package push

import (
	"context"
	"errors"
	"slices"
	"time"
)

// What replies taught is written behind: nobody waits for it, it is added up for each registration, and tried again until the Store takes it.

// lesson is what replies taught about one registration and the Store has not been told: a success, and what came after it.
type lesson struct {
	key Key
	// succeeded is the time of the success; zero: none. after is what came since.
	succeeded time.Time
	after     Update
}

func (ls *lesson) add(u Update) {
	if !u.Succeeded.IsZero() {
		ls.succeeded, ls.after = u.Succeeded, Update{}
		return
	}
	ls.after.Errors += u.Errors
	ls.after.Refusals += u.Refusals
	if ls.after.Failing.IsZero() {
		ls.after.Failing = u.Failing
	}
	if !u.Disabled.IsZero() {
		ls.after.Disabled, ls.after.Cause = u.Disabled, u.Cause
	}
}

func (ls *lesson) updates() (us []Update) {
	if !ls.succeeded.IsZero() {
		us = append(us, Update{Succeeded: ls.succeeded})
	}
	if ls.after != (Update{}) {
		us = append(us, ls.after)
	}
	return us
}

func (ls *lesson) apply(h Health) Health {
	for _, u := range ls.updates() {
		h = u.Apply(h)
	}
	return h
}

// maxLearned is how many registrations' lessons are kept while the Store is away. Beyond it those are let go that say least: that all is well.
const maxLearned = 1 << 17

// learn notes what a reply taught, to be told to the Store. The shard is locked.
func (e *Engine) learn(s *shard, en *entry, k Key, u Update) {
	l := en.getLane()
	i := slices.IndexFunc(l.learned, func(ls lesson) bool { return ls.key == k })
	if i < 0 {
		if !u.Succeeded.IsZero() && e.learned.Load() >= maxLearned {
			return
		}
		e.learned.Add(1)
		l.learned = append(l.learned, lesson{key: k})
		i = len(l.learned) - 1
	}
	l.learned[i].add(u)
	if l.writeAt.IsZero() { // else it has failed, and is tried again then
		e.write(s, en)
	}
}

// unlearn lets go what is said of lessons that the Store has not been told, those that wait in the lane included: it is called there, so none is
// being told. The shard is locked.
func (e *Engine) unlearn(en *entry, is func(ls *lesson) bool) {
	l := en.getLane()
	for _, list := range []*[]lesson{&l.learned, &l.writing} {
		left := (*list)[:0]
		for i := range *list {
			if ls := &(*list)[i]; !is(ls) {
				left = append(left, *ls)
			}
		}
		e.learned.Add(int64(len(left) - len(*list)))
		*list = left
	}
}

// write tells the Store what an account's replies taught, when there is a slot for it. The shard is locked.
func (e *Engine) write(s *shard, en *entry) {
	l := en.getLane()
	if l.waitsToWrite || len(l.writing) > 0 || len(l.learned) == 0 {
		return
	}
	l.waitsToWrite = true
	e.work.add()
	e.back.take(func(sl *slot) {
		s.mu.Lock()
		l.waitsToWrite = false
		if c := e.writing(s, en); c != nil {
			c.slot = sl
			e.callStore(s, en, c)
		} else {
			sl.free()
		}
		s.mu.Unlock()
		e.work.done()
	})
}

// writeNow is write for a call that has to come after it. The shard is locked.
func (e *Engine) writeNow(s *shard, en *entry) {
	if c := e.writing(s, en); c != nil {
		e.callStore(s, en, c)
	}
}

// writing returns the call that tells the Store what has been learned, or nil. The shard is locked.
func (e *Engine) writing(s *shard, en *entry) *call {
	l := en.getLane()
	if len(l.writing) > 0 || len(l.learned) == 0 {
		return nil
	}
	l.writing, l.learned = l.learned, nil
	gone := false
	told := 0
	return &call{
		hook: &e.hooks.update,
		run: func(ctx context.Context) error {
			for ; told < len(l.writing); told++ {
				ls := &l.writing[told]
				for _, u := range ls.updates() {
					err := e.cfg.Store.Update(ctx, en.name, ls.key, u)
					if errors.Is(err, ErrNotRegistered) {
						gone = true
						break
					}
					if err != nil {
						return err
					}
					if !u.Succeeded.IsZero() {
						ls.succeeded = time.Time{}
					}
				}
			}
			return nil
		},
		then: func(err error) []Key {
			rest := l.writing[min(told, len(l.writing)):]
			e.learned.Add(int64(len(rest) - len(l.writing)))
			l.writing = nil
			for i := range l.learned { // what came meanwhile comes after
				newer := l.learned[i]
				if j := slices.IndexFunc(rest, func(ls lesson) bool { return ls.key == newer.key }); j >= 0 {
					for _, u := range newer.updates() {
						rest[j].add(u)
					}
					e.learned.Add(-1)
				} else {
					rest = append(rest, newer)
				}
			}
			l.learned = slices.Clone(rest)
			if gone { // another process removed it
				e.read(s, en)
			}
			if err != nil {
				e.lanes.away.Store(true)
				l.writeFails++
				l.writeAt = e.now().Add(retryIn(l.writeFails))
				return nil
			}
			e.lanes.away.Store(false)
			l.writeFails, l.writeAt = 0, time.Time{}
			if len(l.learned) > 0 {
				e.write(s, en)
			}
			return nil
		},
	}
}
