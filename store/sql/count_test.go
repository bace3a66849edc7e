package sqlstore_test

import (
	"testing"

	"github.com/xmpp-push/push"
	sqlstore "github.com/xmpp-push/push/store/sql"
)

func TestCount(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		s := d.fast().open(t, nil)
		if c, err := s.Count(ctx); err != nil || c != (push.RegistrationCounts{}) {
			t.Fatalf("of an empty store: %+v, %v", c, err)
		}
		populate(t, s, 300)
		var want push.RegistrationCounts
		for r, err := range s.All(ctx, sqlstore.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			want.Add(r.Health)
		}
		got, err := s.Count(ctx)
		if err != nil || got != want || want.Disabled == 0 {
			t.Errorf("Count: %+v, %v, want %+v", got, err, want)
		}
	})
}
