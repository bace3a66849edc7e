package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
)

// all lists what a store has of some accounts, as a database would.
func all(s push.Store, accounts int) iter.Seq2[push.Registration, error] {
	return func(yield func(push.Registration, error) bool) {
		for i := range accounts {
			list, err := s.List(context.Background(), userAccount(i))
			for _, r := range list {
				if !yield(r, err) {
					return
				}
			}
		}
	}
}

// A server that becomes a cluster brings its registrations along, and can take them back.
func TestImportAndExport(t *testing.T) {
	t.Parallel()
	const accounts = 300
	svc := newService()
	srv := start(t, embedded.Config{})
	a, b := join(t, srv, "a", svc), join(t, srv, "b", svc)
	old := push.NewMemoryStore()
	now := time.Now().UTC().Truncate(time.Second)
	for i := range accounts {
		for d := range 1 + i%3 {
			r := push.Registration{Account: userAccount(i), Key: push.Key{Service: "push.example.net", Node: fmt.Sprint("n", d)}, Client: fmt.Sprint("c", d), Enabled: now,
				Options: []push.Field{{Var: "secret", Values: []string{fmt.Sprint("s", i)}}}}
			_, err := old.Enable(t.Context(), r, 0)
			require.NoError(t, err)
		}
	}
	gone := push.Key{Service: "push.example.net", Node: "n0"}
	require.NoError(t, old.Update(t.Context(), userAccount(1), gone, push.Update{Succeeded: now}))
	require.NoError(t, old.Update(t.Context(), userAccount(2), gone, push.Update{Disabled: now, Cause: "item-not-found", Errors: 3}))
	// One phone has enabled push at the cluster before the import comes to it.
	newer := []push.Field{{Var: "secret", Values: []string{"newer"}}}
	handle(t, b, push.PushEnable{Session: push.SessionID{Account: userAccount(0)}, Key: gone, Options: newer})

	// What fails can be done again.
	broken := errors.New("the database went away")
	_, err := a.Import(t.Context(), old, func(yield func(push.Registration, error) bool) {
		n := 0
		for r := range all(old, accounts) {
			if n++; n == 100 {
				yield(push.Registration{}, broken)
				return
			}
			if !yield(r, nil) {
				return
			}
		}
	})
	require.ErrorIs(t, err, broken)
	n, err := a.Import(t.Context(), old, all(old, accounts))
	require.NoError(t, err)
	assert.Equal(t, accounts*2, n)

	assert.Equal(t, accounts, b.Status().Accounts, "the other node knows them at once")
	st, err := b.Inspect(t.Context(), userAccount(2))
	require.NoError(t, err)
	require.Len(t, st.Registrations, 3)
	assert.Equal(t, "item-not-found", st.Registrations[0].Health.Cause, "what was given up stays so")
	handle(t, b, push.ArchiveAdded{Account: userAccount(2), Stanza: push.Stanza{ID: "m1", From: "romeo@example.net/x", To: userAccount(2), Class: push.ClassImportant}})
	keys := map[string]bool{}
	for range 2 {
		n := svc.next(t, 10*time.Second)
		assert.Equal(t, "s2", n.Options[0].Values[0])
		keys[n.Node] = true
	}
	assert.Equal(t, map[string]bool{"n1": true, "n2": true}, keys)

	back := push.NewMemoryStore()
	var sum int
	require.Eventually(t, func() bool { // health is written behind
		sum, err = b.Export(t.Context(), back)
		list, _ := back.List(t.Context(), userAccount(2))
		return err == nil && len(list) == 3 && !list[1].Health.Succeeded.IsZero()
	}, 10*time.Second, 100*time.Millisecond)
	assert.Equal(t, accounts*2, sum)
	for i := range accounts {
		want, err := old.List(t.Context(), userAccount(i))
		require.NoError(t, err)
		got, err := back.List(t.Context(), userAccount(i))
		require.NoError(t, err)
		switch i {
		case 0:
			assert.Equal(t, newer, got[0].Options)
		case 2:
			assert.Equal(t, want[0], got[0])
		default:
			assert.Equal(t, want, got, userAccount(i))
		}
	}
}
