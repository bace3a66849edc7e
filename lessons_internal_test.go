package push

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestLesson adds up what replies taught: counts, since when it fails, and that a success comes before all else that is said.
func TestLesson(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	var ls lesson
	for _, u := range []Update{{Failing: at(1)}, {Errors: 1}, {Errors: 1, Refusals: 1, Failing: at(2)}} {
		ls.add(u)
	}
	assert.Equal(t, []Update{{Errors: 2, Refusals: 1, Failing: at(1)}}, ls.updates())
	ls.add(Update{Succeeded: at(3)})
	assert.Equal(t, []Update{{Succeeded: at(3)}}, ls.updates())
	ls.add(Update{Disabled: at(4), Cause: "gone"})
	ls.add(Update{Failing: at(5)})
	assert.Equal(t, []Update{{Succeeded: at(3)}, {Disabled: at(4), Cause: "gone", Failing: at(5)}}, ls.updates())
	assert.Equal(t, Health{Succeeded: at(3), Disabled: at(4), Cause: "gone", Failing: at(5)}, ls.apply(Health{Errors: 7}))
}

// TestTooManyLessons: while the Store is away, and is to be told of very many registrations, that all is well with one is let go; that it is disabled is not.
func TestTooManyLessons(t *testing.T) {
	e := &Engine{policy: (&Policy{}).resolve()}
	en := &entry{Account: NewAccount("juliet@example.com", nil, nil)}
	s := &shard{accounts: map[string]*entry{}}
	en.getLane().writeAt = time.Unix(1, 0) // it has failed
	e.learned.Store(maxLearned - 1)
	k := func(node string) Key { return Key{"push.example.net", node} }
	e.learn(s, en, k("last"), Update{Succeeded: time.Unix(1, 0)})
	e.learn(s, en, k("well"), Update{Succeeded: time.Unix(1, 0)})
	e.learn(s, en, k("gone"), Update{Disabled: time.Unix(1, 0)})
	e.learn(s, en, k("last"), Update{Errors: 1})
	e.learn(s, en, k("last"), Update{Succeeded: time.Unix(2, 0)})
	assert.Equal(t, []lesson{{key: k("last"), succeeded: time.Unix(2, 0)}, {key: k("gone"), after: Update{Disabled: time.Unix(1, 0)}}}, en.lane.learned)
	assert.EqualValues(t, maxLearned+1, e.learned.Load())
}
