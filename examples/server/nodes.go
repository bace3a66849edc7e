package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// nodesDemo tells the story of several servers that are one, each a process of its own: a phone at one, messages at the others, the push service at a
// third, a session that moves, and a server that is killed.
func nodesDemo(ctx context.Context, w io.Writer, n int) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f := &nodes{ctx: ctx, t: newTimeline(w), self: self}
	defer func() {
		for _, p := range f.list {
			p.kill()
		}
		if r := recover(); r != nil {
			fail, ok := r.(failure)
			if !ok {
				panic(r)
			}
			err = fail.error
			f.t.print(f.t.paint(red, "\nThis should not have happened: ") + err.Error())
			for _, p := range f.list {
				f.t.print(fmt.Sprintf("%s logged:\n%s", p.name, &p.log))
			}
		}
	}()
	f.start(n)
	f.tell()
	return nil
}

type nodes struct {
	ctx  context.Context
	t    *timeline
	self string // this program
	list []*nodeProcess
}

// nodeProcess is one of the servers.
type nodeProcess struct {
	name                string
	cmd                 *exec.Cmd
	clients, components string
	// log is what it logged. Of a server that is killed the others have errors to tell, which are no part of the story unless that goes wrong.
	log bytes.Buffer
}

func (p *nodeProcess) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

func (f *nodes) must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func (f *nodes) say(who, what string) { f.t.say(who, what) }

// start runs the servers, and waits until they serve.
func (f *nodes) start(n int) {
	addrs := make([]string, n)
	for i := range addrs {
		var err error
		addrs[i], err = peer.FreePort()
		f.must(err)
	}
	f.t.print(fmt.Sprintf("%d servers are started, each a process with a NATS inside. Nothing else is needed.", n))
	ready := make(chan error, n)
	for i := range n {
		p := &nodeProcess{name: fmt.Sprint("server", i+1)}
		routes := make([]string, 0, n-1)
		for j, a := range addrs {
			if j != i {
				routes = append(routes, a)
			}
		}
		p.cmd = exec.CommandContext(f.ctx, f.self, "-node", p.name, "-cluster", addrs[i], "-routes", strings.Join(routes, ","), "-cluster-secret", "demo", "-cluster-lease", "1500ms",
			"-c2s", "127.0.0.1:0", "-component", "127.0.0.1:0", "-component-secret", "demo", "-user", "juliet:demo", "-user", "romeo:demo", "-resume-timeout", "5s", "-quiet")
		p.cmd.Stderr = &p.log
		out, err := p.cmd.StdoutPipe()
		f.must(err)
		f.must(p.cmd.Start())
		f.list = append(f.list, p)
		go func() { ready <- p.read(out) }()
	}
	for range f.list {
		f.must(<-ready)
	}
	f.t.start = time.Now()
}

// read learns where the server listens.
func (p *nodeProcess) read(out io.Reader) error {
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		if w := strings.Fields(sc.Text()); len(w) > 1 && w[0] == "clients" {
			p.clients = w[1]
		} else if len(w) > 1 && w[0] == "components" {
			p.components = w[1]
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return nil
		}
	}
	return errors.New(p.name + " does not come up")
}

func (f *nodes) dial(addr string) net.Conn {
	conn, err := net.Dial("tcp", addr)
	f.must(err)
	return conn
}

func (f *nodes) connect(p *nodeProcess, user, resource string) *peer.Client {
	f.say(user, "connects to "+p.name+" as "+resource)
	c, err := peer.Connect(f.dial(p.clients), peer.Login{Domain: "localhost", User: user, Password: "demo", Resource: resource, Resumable: true})
	f.must(err)
	f.must(c.Available())
	f.must(c.Settle(f.ctx))
	return c
}

// rings waits for the push service to be told, and makes sure that it is told once.
func (f *nodes) rings(s *peer.PushService, within time.Duration) {
	ctx, cancel := context.WithTimeout(f.ctx, within)
	defer cancel()
	p, err := s.Next(ctx)
	f.must(err)
	f.say("push", "the phone rings: "+p.Body+" (count "+p.Count+")")
	quiet, stop := context.WithTimeout(f.ctx, 700*time.Millisecond)
	defer stop()
	if p, err := s.Next(quiet); err == nil {
		f.must(fmt.Errorf("it rings again: %+v", p))
	}
}

func (f *nodes) tell() {
	first, second, third := f.list[0], f.list[1], f.list[len(f.list)-1]
	service, err := peer.ConnectService(f.dial(third.components), "push.localhost", "demo")
	f.must(err)
	defer service.Close()
	f.say("push", "push.localhost connects to "+third.name)
	time.Sleep(1200 * time.Millisecond) // the others hear of it
	phone := f.connect(first, "juliet", "phone")
	f.must(phone.EnablePush(f.ctx, "push.localhost", "n1", "s3cret"))
	f.say("juliet", "enables push at "+first.name+"; all servers know when she has the answer")
	romeo := f.connect(second, "romeo", "orchard")
	time.Sleep(1200 * time.Millisecond)

	f.t.print("\nA message to a phone that is connected to another server: it is delivered, and nothing is pushed.")
	_, err = romeo.Chat("juliet@localhost", "But soft, what light")
	f.must(err)
	f.must(phone.Body(f.ctx, "But soft, what light"))
	f.must(phone.Settle(f.ctx))

	f.t.print("\nThe phone loses its connection. What comes now rings, once, whichever server it comes to.")
	phone.Drop()
	time.Sleep(300 * time.Millisecond)
	_, err = romeo.Chat("juliet@localhost", "through yonder window breaks?")
	f.must(err)
	f.rings(service, 10*time.Second)

	f.t.print("\nThe phone is back, at another server. Its session moves there, with all that it missed.")
	phone, err = phone.Resume(f.dial(second.clients))
	f.must(err)
	f.must(phone.Body(f.ctx, "through yonder window breaks?"))
	f.must(phone.Settle(f.ctx))
	f.say("juliet", "resumed at "+second.name)
	phone.Drop()
	time.Sleep(300 * time.Millisecond)
	romeo.Close()
	romeo = f.connect(third, "romeo", "balcony")
	phone, err = phone.Resume(f.dial(first.clients))
	f.must(err)
	f.must(phone.Settle(f.ctx))
	f.say("juliet", "resumed at "+first.name)

	// What was left to a node's sessions in the last 3 s before it was heard of last is decided again when it dies, for they may not have it.
	time.Sleep(3 * time.Second)

	f.t.print("\nNow " + first.name + " is killed, with the phone connected to it. Its session dies with it; the message must not.")
	first.kill()
	killed := time.Now()
	_, err = romeo.Chat("juliet@localhost", "Call me but love")
	f.must(err)
	f.rings(service, 20*time.Second)
	f.say("", fmt.Sprintf("that was within %.1f s of the kill: the others noticed, chose new leaders, and took over", time.Since(killed).Seconds()-0.7))
	phone = f.connect(second, "juliet", "phone")
	phone.Close()
	romeo.Close()
}
