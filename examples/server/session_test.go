package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// world is a server with a push service and clients, over net.Pipe. Within a bubble of testing/synctest its time is virtual.
type world struct {
	t   testing.TB
	srv *Server
	svc *peer.PushService
}

const pushDomain = "push.localhost"

func newWorld(t testing.TB, users int) *world { return newWorldWith(t, users, push.Policy{}) }

func newWorldWith(t testing.TB, users int, policy push.Policy) *world {
	return newWorldLogged(t, users, policy, slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo})))
}

func newWorldLogged(t testing.TB, users int, policy push.Policy, log *slog.Logger) *world {
	s, err := NewServer(Config{
		Policy: policy,
		Domain: "localhost", ComponentSecret: "secret",
		AckDelay: 3 * time.Second, ResumeTimeout: 10 * time.Minute, MaxResume: 72 * time.Hour, MaxErrors: 16,
		Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range users {
		if err := s.AddAccount(user(i), "pw"); err != nil {
			t.Fatal(err)
		}
	}
	closing(t, s)
	w := &world{t: t, srv: s}
	w.svc, err = peer.ConnectService(pipe(s.ServeComponent), pushDomain, "secret")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

func user(i int) string { return [...]string{"juliet", "romeo", "nurse"}[i] }

// pipe connects to whatever serves the other end.
func pipe(serve func(net.Conn)) net.Conn {
	here, there := net.Pipe()
	go serve(there)
	return here
}

// closing closes the server when the test is over, also when it has failed: that ends the connections and their goroutines on both sides. In a bubble of
// testing/synctest those that are left would panic, and hide why it failed, and what other tests say.
func closing(t testing.TB, s *Server) {
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // for the other side to notice
	})
}

func (w *world) ctx() context.Context { return w.t.Context() }

func (w *world) login(user, resource string) peer.Login {
	return peer.Login{Domain: "localhost", User: user, Password: "pw", Resource: resource, Resumable: true}
}

func (w *world) connect(user, resource string) *peer.Client {
	w.t.Helper()
	c, err := peer.Connect(pipe(w.srv.ServeClient), w.login(user, resource))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.Available(); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) resume(c *peer.Client) *peer.Client {
	w.t.Helper()
	n, err := c.Resume(pipe(w.srv.ServeClient))
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// drop loses a client's connection, once nothing is on its way.
func (w *world) drop(c *peer.Client) {
	synctest.Wait()
	c.Drop()
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// published checks what the push service was told since the last time, once everything has settled.
func (w *world) published(after time.Duration, want ...string) {
	w.t.Helper()
	time.Sleep(after)
	synctest.Wait()
	var got []string
	for {
		ctx, cancel := context.WithTimeout(w.ctx(), time.Millisecond)
		p, err := w.svc.Next(ctx)
		cancel()
		if err != nil {
			break
		}
		kind := "plain"
		if p.Alert {
			kind = "alert"
		}
		got = append(got, p.Node+" "+kind)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("published %q, want %q", got, want)
	}
}

// TestLife is the whole life of a session, with three days of sleep in it.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		romeo := w.connect("romeo", "balcony")
		phone := w.connect("juliet", "phone")
		w.ok(phone.EnablePush(w.ctx(), pushDomain, "n1", "s3"))

		// Online: nothing is published.
		_, err := romeo.Chat("juliet@localhost", "one")
		w.ok(err)
		w.ok(phone.Body(w.ctx(), "one"))
		w.published(time.Minute)

		// It does not acknowledge: published after the ack delay, once.
		phone.Deaf()
		romeo.Chat("juliet@localhost", "two")
		w.published(2900 * time.Millisecond)
		w.published(200*time.Millisecond, "n1 alert")
		romeo.Chat("juliet@localhost", "three")
		w.published(800 * time.Millisecond) // within a second of the last
		w.published(200*time.Millisecond, "n1 alert")

		// Connection lost: both are known already.
		w.drop(phone)
		w.published(time.Second)

		// It resumes and has both.
		phone = w.resume(phone)
		w.ok(phone.Body(w.ctx(), "two"))
		w.ok(phone.Body(w.ctx(), "three"))

		// Asleep for nearly three days, during which it is not notified of anything, because nothing happens.
		w.drop(phone)
		w.published(72*time.Hour - time.Minute)
		romeo.Chat("juliet@localhost", "four")
		w.published(2*time.Second, "n1 alert")
		phone = w.resume(phone)
		w.ok(phone.Body(w.ctx(), "four"))

		// Once the user was alerted, the session lives no longer than the server's normal time.
		w.drop(phone)
		w.published(time.Hour)
		romeo.Chat("juliet@localhost", "five")
		w.published(2*time.Second, "n1 alert")
		w.published(10 * time.Minute)
		if _, err := phone.Resume(pipe(w.srv.ServeClient)); err == nil {
			t.Error("a session was resumed that had run out")
		}

		// What it had not acknowledged is offline, and was not notified again. Now there is no session.
		romeo.Chat("juliet@localhost", "six")
		w.published(time.Second, "n1 alert")
		phone = w.connect("juliet", "phone")
		w.ok(phone.Body(w.ctx(), "five"))
		w.ok(phone.Body(w.ctx(), "six"))
		w.ok(phone.EnablePush(w.ctx(), pushDomain, "n1", "s3"))
		w.ok(phone.DisablePush(w.ctx(), pushDomain, "n1"))
		w.drop(phone)
		romeo.Chat("juliet@localhost", "seven")
		w.published(time.Hour)
		romeo.Close()
	})
}

// TestResumeRace lets a client resume at every moment around the one at which a waiting publish goes out. Whichever is first, it is
// published at most once and the message arrives exactly once.
func TestResumeRace(t *testing.T) {
	for _, after := range []time.Duration{0, 999 * time.Millisecond, time.Second - time.Nanosecond, time.Second, time.Second + time.Nanosecond, 1001 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldWith(t, 2, push.Policy{DelayImportant: true})
				romeo := w.connect("romeo", "balcony")
				phone := w.connect("juliet", "phone")
				w.ok(phone.EnablePush(w.ctx(), pushDomain, "n1", ""))
				w.drop(phone)
				synctest.Wait()
				romeo.Chat("juliet@localhost", "hello")
				time.Sleep(after)
				phone = w.resume(phone)
				w.ok(phone.Body(w.ctx(), "hello"))
				time.Sleep(time.Minute)
				n := len(w.svc.Seen())
				if n > 1 || n == 1 && after < time.Second-time.Nanosecond || n == 0 && after > time.Second {
					t.Errorf("resumed after %v: published %d times", after, n)
				}
				ctx, cancel := context.WithTimeout(w.ctx(), time.Hour)
				defer cancel()
				if err := phone.Body(ctx, "hello"); err == nil {
					t.Error("it arrived twice")
				}
				w.drop(phone)
				w.drop(romeo)
			})
		})
	}
}
