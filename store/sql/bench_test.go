package sqlstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/internal/pgtest"
	"github.com/xmpp-push/push/store/sql/postgres"
)

// benchmarked is how many registrations the benchmarks store, one an account. PUSH_BENCH_REGISTRATIONS is for a quicker look.
func benchmarked(b *testing.B) int {
	n := 1_000_000
	if v := os.Getenv("PUSH_BENCH_REGISTRATIONS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			b.Fatal(err)
		}
	}
	return n
}

// fill stores n registrations as Enable would have, in no order, each with a success today. It goes past the Store because a million commits take
// a while.
func fill(b *testing.B, d database, n int) {
	b.Helper()
	d.open(b, nil)
	options, err := json.Marshal(registration("", "", 0).Options)
	if err != nil {
		b.Fatal(err)
	}
	columns := []string{"account", "service", "node", "options", "key_id", "client", "enabled", "errors", "refusals", "succeeded", "disabled", "cause"}
	today := time.Now().UnixNano()
	order := rand.Perm(n)
	row := func(i int) []any {
		r := registration(account(order[i]), fmt.Sprintf("node-%08d-abcdef", order[i]), time.Duration(i))
		return []any{r.Account, r.Service, r.Node, options, "", r.Client, r.Enabled.UnixNano(), 0, 0, today, 0, ""}
	}
	if d.dialect == sqlstore.Postgres {
		conn, err := pgx.Connect(ctx, d.where)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close(ctx)
		i := -1
		rows := pgx.CopyFromFunc(func() ([]any, error) {
			if i++; i == n {
				return nil, nil
			}
			return row(i), nil
		})
		if _, err := conn.CopyFrom(ctx, pgx.Identifier{d.table()}, columns, rows); err != nil {
			b.Fatal(err)
		}
		for _, q := range []string{"VACUUM ANALYZE " + d.table(), "CHECKPOINT"} {
			if _, err := conn.Exec(ctx, q); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	db := d.fast().handle(b)
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("PRAGMA cache_size = -1000000"); err != nil {
		b.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		b.Fatal(err)
	}
	insert, err := tx.Prepare("INSERT INTO " + d.table() + " (" + strings.Join(columns, ", ") + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		if _, err := insert.Exec(row(i)...); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
}

// bytesOnDisk is the size of the table with its index.
func bytesOnDisk(b *testing.B, d database) (size int64) {
	b.Helper()
	if d.dialect == sqlstore.Postgres {
		if err := d.handle(b).QueryRow("SELECT pg_total_relation_size($1)", d.table()).Scan(&size); err != nil {
			b.Fatal(err)
		}
		return size
	}
	info, err := os.Stat(d.where)
	if err != nil {
		b.Fatal(err)
	}
	return info.Size()
}

// benchmarkDatabases runs f on both databases, which keep what was committed when the power goes off, with registrations in them.
func benchmarkDatabases(b *testing.B, f func(b *testing.B, d database, n int)) {
	n := benchmarked(b)
	for _, name := range []string{"sqlite", "postgres"} {
		b.Run(fmt.Sprintf("database=%s/registrations=%d", name, n), func(b *testing.B) {
			d := database{}
			if name == "sqlite" {
				d = newSQLite(b)
			} else {
				s := pgtest.New(b, true)
				d = database{sqlstore.Postgres, s.URL, "push_", postgres.Open, s}
			}
			fill(b, d, n)
			f(b, d, n)
		})
	}
}

// latencies runs call for each iteration, from so many goroutines, and reports percentiles.
func latencies(b *testing.B, goroutines int, call func(i int) error) {
	b.Helper()
	var mu sync.Mutex
	var all []time.Duration
	next := 0
	b.ResetTimer()
	begin := time.Now()
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			var own []time.Duration
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= b.N {
					break
				}
				t := time.Now()
				if err := call(i); err != nil {
					b.Error(err)
					break
				}
				own = append(own, time.Since(t))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
		})
	}
	wg.Wait()
	took := time.Since(begin)
	slices.Sort(all)
	if len(all) == 0 {
		return
	}
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "µs-p50")
	b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1e3, "µs-p99")
	b.ReportMetric(float64(b.N)/took.Seconds(), "calls/s")
}

func BenchmarkStore(b *testing.B) {
	benchmarkDatabases(b, func(b *testing.B, d database, n int) {
		b.Run("call=open", func(b *testing.B) {
			size := float64(bytesOnDisk(b, d)) / float64(n)
			for b.Loop() {
				db, err := d.openHandle(d.where)
				if err != nil {
					b.Fatal(err)
				}
				s, err := d.tryOpen(db, nil)
				if err != nil {
					b.Fatal(err)
				}
				if rs := mustList(b, s, account(rand.IntN(n))); len(rs) != 1 {
					b.Fatal(len(rs))
				}
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(size, "B/registration")
		})
		s := d.open(b, &sqlstore.Options{CacheSize: -1})
		sealed := d.open(b, &sqlstore.Options{CacheSize: -1, Keys: keyring("k1", "k1")})
		list := func(want int, pick func() string) func(int) error {
			return func(int) error {
				rs, err := s.List(ctx, pick())
				if err == nil && len(rs) != want {
					err = fmt.Errorf("%d registrations, want %d", len(rs), want)
				}
				return err
			}
		}
		enable := func(s *sqlstore.Store, changed bool) func(int) error {
			return func(i int) error {
				j := rand.IntN(n)
				r := registration(account(j), fmt.Sprintf("node-%08d-abcdef", j), time.Hour)
				if changed {
					r.Client = fmt.Sprintf("a3d1f0c2-5e0b-4c55-8d6e-%012x", i)
				}
				_, err := s.Enable(ctx, r, 5)
				return err
			}
		}
		update := func(int) error {
			j := rand.IntN(n)
			return s.Update(ctx, account(j), push.Key{Service: "push.example.net", Node: fmt.Sprintf("node-%08d-abcdef", j)}, pushErrors(1))
		}
		known := func() string { return account(rand.IntN(n)) }
		b.Run("call=List/account=known", func(b *testing.B) { latencies(b, 1, list(1, known)) })
		b.Run("call=List/account=known/goroutines=8", func(b *testing.B) { latencies(b, 8, list(1, known)) })
		b.Run("call=List/account=unknown", func(b *testing.B) {
			latencies(b, 1, list(0, func() string { return account(rand.IntN(n)) + ".net" }))
		})
		for _, goroutines := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("call=Enable/changed=false/goroutines=%d", goroutines), func(b *testing.B) {
				before := s.Stats().Writes
				latencies(b, goroutines, enable(s, false))
				b.ReportMetric(float64(s.Stats().Writes-before), "writes")
			})
		}
		for _, goroutines := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("call=Enable/changed=true/goroutines=%d", goroutines), func(b *testing.B) {
				before := s.Stats()
				latencies(b, goroutines, enable(s, true))
				after := s.Stats()
				b.ReportMetric(float64(after.Writes-before.Writes)/float64(after.Commits-before.Commits), "writes/commit")
			})
		}
		b.Run("call=Update/goroutines=1", func(b *testing.B) { latencies(b, 1, update) })
		b.Run("call=Update/goroutines=64", func(b *testing.B) { latencies(b, 64, update) })
		b.Run("call=Enable/changed=true/goroutines=64/encrypted=true", func(b *testing.B) { latencies(b, 64, enable(sealed, true)) })
	})
}

// BenchmarkBurst has 10,000 offline events of as many accounts that no engine has in memory come at once: in an iteration each.
func BenchmarkBurst(b *testing.B) {
	const events, goroutines = 10_000, 8
	benchmarkDatabases(b, func(b *testing.B, d database, n int) {
		for _, registered := range []bool{true, false} {
			for _, cached := range []bool{false, true} {
				b.Run(fmt.Sprintf("events=%d/registered=%v/cached=%v", events, registered, cached), func(b *testing.B) {
					o := &sqlstore.Options{}
					var took time.Duration
					var queries, count uint64
					for b.Loop() {
						b.StopTimer()
						e := newNode(b, d, o, 5)
						first := rand.IntN(max(1, n-events))
						name := func(i int) string {
							if registered {
								return account(first + i)
							}
							return account(i) + ".net"
						}
						if cached {
							for i := range events {
								mustList(b, e.store, name(i))
							}
						}
						before := e.store.Stats().Queries
						b.StartTimer()
						begin := time.Now()
						var wg sync.WaitGroup
						for g := range goroutines {
							wg.Go(func() {
								for i := g; i < events; i += goroutines {
									a := name(i)
									st := push.Stanza{ID: "m", Kind: push.KindMessage, From: "romeo@example.com/x", To: a, Class: push.ClassImportant}
									dec, err := e.Handle(context.Background(), push.Offline{Account: a, Stanza: st})
									if err != nil || (len(dec.Verdicts) == 1 && dec.Verdicts[0].Notify) != registered {
										b.Error(err, dec)
										return
									}
								}
							})
						}
						wg.Wait()
						took += time.Since(begin)
						queries += e.store.Stats().Queries - before
						count += events
						b.StopTimer()
						if registered {
							for range events {
								<-e.sent
							}
						}
						b.StartTimer()
					}
					b.ReportMetric(float64(count)/took.Seconds(), "events/s")
					b.ReportMetric(float64(queries)/float64(count), "queries/event")
				})
			}
		}
	})
}

// BenchmarkCrowd has accounts that were never seen before enable, from 64 goroutines, into an empty table.
func BenchmarkCrowd(b *testing.B) {
	for name, d := range map[string]database{"sqlite": newSQLite(b), "postgres": newPostgres(b)} {
		b.Run("database="+name, func(b *testing.B) {
			s := d.open(b, nil)
			round := rand.Uint64()
			before := s.Stats()
			latencies(b, 64, func(i int) error {
				_, err := s.Enable(ctx, registration(fmt.Sprint(round, "-", i, "@example.com"), "n1", 0), 5)
				return err
			})
			after := s.Stats()
			b.ReportMetric(float64(after.Writes-before.Writes)/float64(after.Commits-before.Commits), "writes/commit")
		})
	}
}
