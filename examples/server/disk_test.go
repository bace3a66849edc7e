package main

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// Tests of the moment between a message and its commit, which may be long: here the disk is stopped by another process that locks the database.

// stopDisk keeps a server's database from committing, until the function that it returns is called.
func stopDisk(t *testing.T, dir string) (goOn func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "server.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err == nil {
		_, err = conn.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
			t.Error(err)
		}
		conn.Close()
		db.Close()
	}
}

// TestWokenBeforeTheDisk stops the disk. Phones are woken all the same, at once; but nothing is acknowledged, delivered or in the archive that is not on the disk.
// Phones that connect meanwhile have their message as soon as the disk goes on.
func TestWokenBeforeTheDisk(t *testing.T) {
	t.Parallel()
	const patience = 10 * time.Second
	dir := t.TempDir()
	p := start(t, dir, "-user", "juliet:pw", "-user", "romeo:pw", "-user", "nurse:pw", "-quiet")
	defer p.end(syscall.SIGKILL)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	within := func(d time.Duration) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		t.Cleanup(cancel)
		return ctx
	}
	login := func(user string) peer.Login {
		return peer.Login{Domain: "localhost", User: user, Password: "pw", Resource: "r", Resumable: true}
	}
	service, err := peer.ConnectService(p.dialService(), pushDomain, "s")
	ok(err)
	phone := make(map[string]*peer.Client)
	for _, user := range []string{"juliet", "nurse"} { // the one sleeps, the other is gone
		phone[user], err = peer.Connect(p.dial(), login(user))
		ok(err)
		ok(phone[user].Available())
		ok(phone[user].EnablePush(t.Context(), pushDomain, user, "s3"))
		ok(phone[user].Settle(t.Context()))
	}
	phone["juliet"].Drop()
	phone["nurse"].Close()
	romeo, err := peer.Connect(p.dial(), login("romeo"))
	ok(err)
	ok(romeo.Settle(t.Context()))

	goOn := stopDisk(t, dir)
	for user := range phone {
		_, err = romeo.Chat(user+"@localhost", "to "+user)
		ok(err)
	}
	woken := make(map[string]bool)
	for range phone {
		pub, err := service.Next(within(patience))
		ok(err)
		woken[pub.Node] = true
	}
	if !woken["juliet"] || !woken["nurse"] {
		t.Errorf("woken: %v", woken)
	}
	if err := romeo.Settle(within(300 * time.Millisecond)); err == nil {
		t.Error("the sender was told that its messages are accepted")
	}
	var juliet *peer.Client
	resumed := make(chan error, 1)
	go func() {
		var err error
		juliet, err = phone["juliet"].Resume(p.dial())
		resumed <- err
	}()
	nurse, err := peer.Connect(p.dial(), peer.Login{Domain: "localhost", User: "nurse", Password: "pw", Resource: "r"})
	ok(err)
	asked := make(chan []string, 1)
	go func() { asked <- archive(t, nurse) }()
	select {
	case err := <-resumed:
		t.Errorf("resumed: %v", err)
	case texts := <-asked:
		t.Errorf("the archive has %q", texts)
	case <-time.After(300 * time.Millisecond):
	}

	goOn()
	ok(<-resumed)
	ok(juliet.Body(within(patience), "to juliet"))
	if texts := <-asked; len(texts) != 1 || texts[0] != "to nurse" {
		t.Errorf("the archive has %q", texts)
	}
	ok(romeo.Settle(within(patience)))
	quiet := within(1500 * time.Millisecond)
	if pub, err := service.Next(quiet); err == nil {
		t.Errorf("published again: %+v", pub)
	}
}

// TestKilledBeforeTheDisk kills the server between a publish and the commit of what it tells of. The phone was woken too early, and the sender, who was not
// acknowledged, sends the message again: it is there once.
func TestKilledBeforeTheDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"-user", "juliet:pw", "-user", "romeo:pw", "-quiet"}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, dir, args...)
	service, err := peer.ConnectService(p.dialService(), pushDomain, "s")
	ok(err)
	login := func(user string) peer.Login {
		return peer.Login{Domain: "localhost", User: user, Password: "pw", Resource: "r", Resumable: true}
	}
	phone, err := peer.Connect(p.dial(), login("juliet"))
	ok(err)
	ok(phone.EnablePush(t.Context(), pushDomain, "n1", "s3"))
	phone.Close()
	romeo, err := peer.Connect(p.dial(), login("romeo"))
	ok(err)
	ok(romeo.Settle(t.Context()))
	goOn := stopDisk(t, dir)
	for i := range 3 {
		_, err = romeo.Chat("juliet@localhost", fmt.Sprint("message ", i))
		ok(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = service.Next(ctx)
	ok(err)
	p.end(syscall.SIGKILL)
	goOn()

	p = start(t, dir, args...)
	defer p.end(syscall.SIGTERM)
	service, err = peer.ConnectService(p.dialService(), pushDomain, "s")
	ok(err)
	romeo, err = romeo.Resume(p.dial())
	ok(err)
	_, err = service.Next(ctx)
	ok(err)
	ok(romeo.Settle(ctx))
	got := &bodies{seen: make(map[string]int)}
	again := login("juliet")
	again.Got = got.got
	phone, err = peer.Connect(p.dial(), again)
	ok(err)
	ok(phone.Send(element.New("", "presence")))
	got.check(t, "juliet", 3)
	if texts := archive(t, phone); len(texts) != 3 {
		t.Errorf("the archive has %q", texts)
	}
}
