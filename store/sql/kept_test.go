package sqlstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/wishes"
)

func mustKeep(tb testing.TB, s push.Keeper, account, state string) {
	tb.Helper()
	if err := s.Keep(ctx, account, []byte(state)); err != nil {
		tb.Fatal(err)
	}
}

// kept returns what a process gets back, as text.
func kept(tb testing.TB, s push.Keeper) (all string) {
	tb.Helper()
	for k, err := range s.Kept(ctx) {
		if err != nil {
			tb.Fatal(err)
		}
		all += fmt.Sprintf("%s=%.40s ", k.Account, k.State)
	}
	return strings.TrimSpace(all)
}

// TestKeptOfOthers: processes get back what they kept themselves, and an account that is removed loses it everywhere.
func TestKeptOfOthers(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		a, b := d.open(t, &sqlstore.Options{Owner: "a"}), d.open(t, &sqlstore.Options{Owner: "b"})
		for _, s := range []string{"romeo", "juliet"} {
			mustKeep(t, a, s, "of a")
			mustKeep(t, b, s, "of b")
		}
		if err := a.Keep(ctx, "romeo", nil); err != nil {
			t.Fatal(err)
		}
		if got := kept(t, a); got != "juliet=of a" {
			t.Errorf("a gets back %q", got)
		}
		if got := kept(t, b); got != "juliet=of b romeo=of b" {
			t.Errorf("b gets back %q", got)
		}
		mustRemove(t, a, "juliet", push.Key{})
		if got := kept(t, a) + "|" + kept(t, b); got != "|romeo=of b" {
			t.Errorf("after the account was removed: %q", got)
		}
		if got := kept(t, d.open(t, nil)); got != "" {
			t.Errorf("a process without a name gets back %q", got)
		}
	})
}

func TestKeptIsSealed(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		var told []*sqlstore.CorruptError
		open := func(owner string, k sqlstore.Keyring) *sqlstore.Store {
			return d.open(t, &sqlstore.Options{Owner: owner, Keys: k, Corrupt: func(e *sqlstore.CorruptError) { told = append(told, e) }})
		}
		db := d.handle(t)
		stored := func(account string) (state []byte) {
			if err := db.QueryRow("SELECT state FROM "+d.prefix+"kept WHERE owner = 'a' AND account = $1", account).Scan(&state); err != nil {
				t.Fatal(err)
			}
			return state
		}
		const n = 150 // several pages
		plain := open("a", sqlstore.Keyring{})
		for i := range n {
			mustKeep(t, plain, account(i), fmt.Sprint("the text of message ", i))
		}
		if !bytes.Contains(stored(account(7)), []byte("the text")) {
			t.Fatal("this test does not find a text that is there")
		}
		s := open("a", keyring("k1", "k1"))
		mustKeep(t, open("b", keyring("k1", "k1")), account(0), "of another")
		if got, err := s.Reseal(ctx); got != n || err != nil {
			t.Errorf("from plain: %d resealed, %v", got, err)
		}
		if bytes.Contains(stored(account(7)), []byte("the text")) {
			t.Error("a message's text is readable")
		}
		if got, err := open("", keyring("k2", "k1", "k2")).Reseal(ctx); got != n+1 || err != nil {
			t.Errorf("to another key: %d resealed, %v", got, err)
		}
		s = open("a", keyring("k2", "k2"))
		if got := strings.Count(kept(t, s), "the text of message"); got != n || len(told) > 0 {
			t.Errorf("%d of %d came back with the new key alone; reported %v", got, n, told)
		}

		// A key too few: reported, left as it is, and replaced by the next.
		lost := open("a", keyring("k3", "k3"))
		if got := kept(t, lost); got != "" || len(told) != n || !errors.Is(told[0], sqlstore.ErrKey) || !errors.Is(told[0], sqlstore.ErrCorrupt) ||
			!strings.Contains(told[0].Error(), "kept of "+account(0)) {
			t.Errorf("without the key %q came back; reported %d, %v", got, len(told), told[0])
		}
		told = nil
		if got, err := lost.Reseal(ctx); got != 0 || !errors.Is(err, sqlstore.ErrCorrupt) || len(told) != n+1 {
			t.Errorf("Reseal without the key: %d, %v, reported %d", got, err, len(told))
		}
		mustKeep(t, lost, account(3), "new")
		if got := kept(t, lost); got != account(3)+"=new" {
			t.Errorf("%q came back", got)
		}

		// What is sealed is bound to its account and owner.
		for what, q := range map[string]string{
			"account": "UPDATE %[1]s SET state = (SELECT state FROM %[1]s WHERE owner = 'a' AND account = $1) WHERE owner = 'a' AND account = $2",
			"owner":   "UPDATE %[1]s SET state = (SELECT state FROM %[1]s WHERE owner = 'b' AND account = '" + account(0) + "') WHERE owner = 'a' AND account IN ($1, $2)",
		} {
			mustKeep(t, s, account(0), "mine")
			mustKeep(t, s, account(1), "mine")
			if _, err := db.Exec(fmt.Sprintf(q, d.prefix+"kept"), account(1), account(0)); err != nil {
				t.Fatal(err)
			}
			told = nil
			if got := kept(t, s); strings.HasPrefix(got, account(0)) || len(told) == 0 || told[0].Account != account(0) || errors.Is(told[0], sqlstore.ErrKey) {
				t.Errorf("what was moved from another %s came back: %.60q, reported %v", what, got, told)
			}
		}
	})
}

// TestSealedColumnsCannotBeExchanged: what is sealed in one column does not open in the other.
func TestSealedColumnsCannotBeExchanged(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		var told []error
		s := d.open(t, &sqlstore.Options{CacheSize: -1, Keys: keyring("k1", "k1"), Corrupt: func(e *sqlstore.CorruptError) { told = append(told, e) }})
		r := registration(account(0), "n1", 0)
		r.Wishes = &wishes.Wishes{Name: "phone"}
		mustEnable(t, s, r, 5)
		db := d.handle(t)
		for _, q := range []string{"SET wishes = options", "SET options = wishes"} {
			if rs := mustList(t, s, r.Account); len(rs) != 1 || !rs[0].Wishes.Equal(r.Wishes) || len(told) > 0 {
				t.Fatalf("before: %+v, reported %v", rs, told)
			}
			if _, err := db.Exec("UPDATE " + d.table() + " " + q); err != nil {
				t.Fatal(err)
			}
			if rs := mustList(t, s, r.Account); len(rs) != 0 || len(told) != 1 || errors.Is(told[0], sqlstore.ErrKey) {
				t.Errorf("%s: accepted %+v, reported %v", q, rs, told)
			}
			mustEnable(t, s, r, 5)
			told = nil
		}
	})
}

func TestWishesAreResealed(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		r := registration(account(0), "n1", 0)
		r.Options, r.Wishes = nil, &wishes.Wishes{Name: "Julia's phone", Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret("0123456789abcdef")}}
		mustEnable(t, d.open(t, nil), r, 5)
		readable := func() bool {
			var data []byte
			if err := d.handle(t).QueryRow("SELECT wishes FROM " + d.table()).Scan(&data); err != nil {
				t.Fatal(err)
			}
			return bytes.Contains(data, []byte("0123456789abcdef"))
		}
		if !readable() {
			t.Fatal("this test does not find a key that is there")
		}
		s := d.open(t, &sqlstore.Options{Keys: keyring("k1", "k1")})
		if n, err := s.Reseal(ctx); n != 1 || err != nil {
			t.Fatalf("Reseal: %d, %v", n, err)
		}
		if readable() {
			t.Error("after Reseal the client's key is readable")
		}
		if rs := mustList(t, s, r.Account); len(rs) != 1 || !rs[0].Wishes.Equal(r.Wishes) || rs[0].Options != nil {
			t.Errorf("after Reseal there is %+v", rs)
		}
	})
}

func TestUnreadableWishes(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		var told []*sqlstore.CorruptError
		s := d.open(t, &sqlstore.Options{CacheSize: -1, Corrupt: func(e *sqlstore.CorruptError) { told = append(told, e) }})
		for i := range 2 {
			mustEnable(t, s, registration(account(0), fmt.Sprint("n", i), 0), 5)
		}
		for _, data := range []string{"", "\x63", "\x01\x01\xff\xff\xff\xff\x7f" + plainSecret} {
			if _, err := d.handle(t).Exec("UPDATE "+d.table()+" SET wishes = $1 WHERE node = 'n1'", []byte(data)); err != nil {
				t.Fatal(err)
			}
			told = nil
			if rs := mustList(t, s, account(0)); len(rs) != 1 || rs[0].Node != "n0" || len(told) != 1 || told[0].Node != "n1" {
				t.Errorf("wishes %q: the account's other registrations are %+v, reported %v", data, rs, told)
			}
			if len(told) > 0 && strings.Contains(told[0].Error(), plainSecret) {
				t.Errorf("the report has the secret: %v", told[0])
			}
		}
	})
}

func init() {
	// keep keeps 20 states for each of a few accounts, says so after each answer, and is killed in between.
	roles["keep"] = func() {
		_, s := roleDatabase()
		for i := 0; ; i++ {
			state := fmt.Append(nil, i, " ", strings.Repeat(fmt.Sprint(i, " "), 500))
			if err := s.Keep(ctx, account(i%5), state); err != nil {
				log.Fatal(err)
			}
			if _, err := os.Stdout.WriteString(fmt.Sprint(i, "\n")); err != nil {
				return
			}
		}
	}
}

// TestKillWhileKeeping: what was answered is there after the process was killed, and none is half there.
func TestKillWhileKeeping(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, d database) {
		s := d.open(t, nil)
		for round := range 10 {
			p := run(t, d, "keep")
			last := -1
			for line := range p.lines {
				if _, err := fmt.Sscan(line, &last); err != nil {
					t.Fatal(line, err)
				}
				if last == 10+round {
					time.Sleep(time.Duration(round) * 100 * time.Microsecond)
					_ = p.Process.Signal(syscall.SIGKILL)
				}
			}
			_ = p.Wait()
			n := 0
			for k, err := range s.Kept(ctx) {
				if err != nil {
					t.Fatal(err)
				}
				var i int
				if _, err := fmt.Sscan(string(k.State), &i); err != nil || string(k.State) != fmt.Sprint(i, " ", strings.Repeat(fmt.Sprint(i, " "), 500)) {
					t.Fatalf("round %d: half of a state: %.50q", round, k.State)
				}
				if k.Account != account(i%5) || i > last+1 || i < last-4 {
					t.Errorf("round %d: %s has state %d, the last that was answered is %d", round, k.Account, i, last)
				}
				n++
			}
			if n != 5 {
				t.Errorf("round %d: %d accounts came back, want 5", round, n)
			}
		}
	})
}
