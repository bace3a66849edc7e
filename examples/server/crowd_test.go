package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// TestCrowd lets some hundred clients (a thousand with PUSH_TEST_FULL) lose their connections at random for a virtual day while messages come in. In the end every message has
// arrived, none twice, and whoever was not there for one was woken for it.
func TestCrowd(t *testing.T) {
	t.Parallel()
	clients := 300
	if os.Getenv("PUSH_TEST_FULL") == "1" {
		clients = 1000
	}
	const (
		senders  = 10
		messages = 3 // to each client
		day      = 26 * time.Hour
		// in is how soon a message is notified, the ack delay and the batching second included.
		in = 5 * time.Second
	)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		s, err := NewServer(Config{
			Domain: "localhost", ComponentSecret: "secret",
			AckDelay: 3 * time.Second, ResumeTimeout: 10 * time.Minute, MaxResume: 72 * time.Hour, MaxErrors: 16,
		})
		if err != nil {
			t.Fatal(err)
		}
		closing(t, s)
		for i := range clients {
			s.AddAccount("c"+strconv.Itoa(i), "pw")
		}
		for i := range senders {
			s.AddAccount("s"+strconv.Itoa(i), "pw")
		}
		svc, err := peer.ConnectService(pipe(s.ServeComponent), pushDomain, "secret")
		if err != nil {
			t.Fatal(err)
		}
		dial := func() net.Conn { return pipe(s.ServeClient) }
		crowd := make([]*crowdClient, clients)
		var going sync.WaitGroup
		for i := range crowd {
			c := &crowdClient{t: t, dial: dial, rand: rand.New(rand.NewPCG(seed, uint64(i))), got: make(map[string][]arrival)}
			c.login = peer.Login{Domain: "localhost", User: "c" + strconv.Itoa(i), Password: "pw", Resource: "r", Resumable: true, Got: c.receive}
			crowd[i] = c
			going.Go(func() { c.live(day) })
		}
		sent := make([]map[string]time.Time, clients)
		for i := range sent {
			sent[i] = make(map[string]time.Time)
		}
		for i := range senders {
			going.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(1_000_000+i)))
				c, err := peer.Connect(dial(), peer.Login{Domain: "localhost", User: "s" + strconv.Itoa(i), Password: "pw", Resource: "r", Resumable: true})
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Second)
				n := messages * clients / senders
				for k := range n {
					time.Sleep(time.Duration(r.Int64N(int64(2 * day / time.Duration(n)))))
					to := i + senders*(k%(clients/senders)) // those that only this goroutine sends to
					body := fmt.Sprintf("%d from %d", k, i)
					sent[to][body] = time.Now()
					if _, err := c.Chat(fmt.Sprintf("c%d@localhost", to), body); err != nil {
						t.Error(err)
					}
				}
				c.Close()
			})
		}
		going.Wait()
		published := make(map[string][]time.Time)
		for _, p := range svc.Seen() {
			published[p.Node] = append(published[p.Node], p.At)
		}
		lost, twice, unwoken, late := 0, 0, 0, 0
		for i, c := range crowd {
			for body, at := range sent[i] {
				arrivals := c.got[body]
				if len(arrivals) == 0 {
					lost++
					continue
				}
				for _, a := range arrivals[1:] {
					// A session that ran out may have taken a message and not said so. Its next one gets it again, and knows it by its ID.
					if a.id != arrivals[0].id || a.life == arrivals[0].life {
						twice++
					}
				}
				if arrivals[0].at.Sub(at) <= in {
					continue
				}
				late++
				if !slices.ContainsFunc(published[c.login.User], func(p time.Time) bool { return !p.Before(at) && p.Sub(at) <= in }) {
					unwoken++
				}
			}
		}
		if lost+twice+unwoken > 0 {
			t.Errorf("%d messages lost, %d twice, %d missed and not notified", lost, twice, unwoken)
		}
		t.Logf("%d messages, %d of them missed at first; %d publishes", clients*messages, late, len(svc.Seen()))
		if late < messages*clients/10 {
			t.Error("hardly anybody missed anything")
		}
	})
}

// arrival is when a message came, in which of the client's sessions, under which ID.
type arrival struct {
	at   time.Time
	life int
	id   string
}

// crowdClient is a client with bad luck.
type crowdClient struct {
	t     *testing.T
	dial  func() net.Conn
	login peer.Login
	rand  *rand.Rand
	life  int
	mu    sync.Mutex
	got   map[string][]arrival
}

func (c *crowdClient) receive(e *element.Element) {
	if body := peer.BodyOf(e); body != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got[body] = append(c.got[body], arrival{time.Now(), c.life, e.Child(nsStanID, "stanza-id").Get("id")})
	}
}

func (c *crowdClient) connect() *peer.Client {
	c.mu.Lock()
	c.life++
	c.mu.Unlock()
	p, err := peer.Connect(c.dial(), c.login)
	if err != nil {
		c.t.Error(err)
		return nil
	}
	p.Available()
	if err := p.EnablePush(c.t.Context(), pushDomain, c.login.User, ""); err != nil {
		c.t.Error(err)
	}
	return p
}

// live connects and loses the connection again and again, in all the ways there are, and is there in the end.
func (c *crowdClient) live(d time.Duration) {
	end := time.Now().Add(d * 5 / 4)
	p := c.connect()
	for p != nil && time.Now().Before(end) {
		time.Sleep(time.Duration(c.rand.Int64N(int64(6 * time.Hour))))
		away := time.Duration(c.rand.Int64N(int64(3 * time.Hour)))
		switch c.rand.IntN(5) {
		case 0: // it stops answering, and is back before the loss was noticed
			p.Deaf()
			time.Sleep(away)
			go func(old *peer.Client) { time.Sleep(time.Second); old.Drop() }(p)
		case 1: // it stops answering, then the connection is lost
			p.Deaf()
			time.Sleep(away / 2)
			p.Drop()
			time.Sleep(away / 2)
		case 2, 3:
			p.Drop()
			time.Sleep(away)
		case 4:
			p.Close()
			time.Sleep(away)
			p = c.connect()
			continue
		}
		n, err := p.Resume(c.dial())
		if err != nil {
			n = c.connect()
		}
		p = n
	}
	time.Sleep(time.Minute)
	if p != nil {
		p.Close()
	}
}
