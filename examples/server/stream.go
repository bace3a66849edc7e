package main

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
)

const (
	// negotiateIn is how long the other side has to get from the first byte to a bound session.
	negotiateIn = 30 * time.Second
	// writeIn is how long the operating system may refuse to take what is written before the connection counts as lost.
	writeIn = 30 * time.Second
	// maxStranger and maxStanza are how many bytes an element may have, before the other side has logged in and after.
	maxStranger, maxStanza = 16 << 10, 256 << 10
	// maxOut is how many bytes may wait for a slow reader. A session's queue (maxQueueBytes) and a page of an archive fit.
	maxOut = 16 << 20
)

// stream is the XML stream on one connection. One goroutine reads; anybody may send, which never blocks.
type stream struct {
	conn net.Conn
	in   *element.Reader
	// space is the stream's own namespace.
	space string
	// served is closed when the goroutine that reads has done all it will do.
	served chan struct{}

	// framed: it is a WebSocket, and ends are where the messages in out end.
	framed bool

	mu      sync.Mutex
	out     []byte
	ends    []int
	wake    chan struct{}
	closing bool
	pumped  chan struct{}
}

func newStream(conn net.Conn, space string) *stream {
	_, framed := conn.(*socket)
	return &stream{
		conn: conn, framed: framed, in: element.NewReader(conn), space: space,
		served: make(chan struct{}), wake: make(chan struct{}, 1), pumped: make(chan struct{}),
	}
}

// open reads the other side's header, answers it, and returns it.
func (t *stream) open(domain string) (*element.Element, error) {
	t.in.Restart()
	head, err := t.in.Header()
	if err != nil {
		if errors.Is(err, element.ErrXML) {
			t.header(domain, "")
		}
		return nil, err
	}
	return head, nil
}

// header sends the stream header.
func (t *stream) header(from, id string) {
	if t.framed {
		t.send(element.New(nsFraming, "open", "from", from, "id", id, "version", "1.0"))
		return
	}
	h := []byte(`<?xml version='1.0'?><stream:stream xmlns='` + t.space + `' xmlns:stream='` + element.NSStream + `' version='1.0' xml:lang='en' from='`)
	h = element.Escape(h, from)
	h = append(h, "' id='"...)
	h = element.Escape(h, id)
	t.sendBytes(append(h, "'>"...))
}

// startTLS goes on with TLS. Nothing may be waiting to be sent.
func (t *stream) startTLS(cfg *tls.Config) error {
	c := tls.Server(t.conn, cfg)
	if err := c.Handshake(); err != nil {
		return err
	}
	t.conn, t.in = c, element.NewReader(c)
	t.in.Limit(maxStranger)
	return nil
}

// pump writes what is sent until the stream is closed or the connection breaks.
func (t *stream) pump() {
	defer close(t.pumped)
	defer t.conn.Close()
	for range t.wake {
		t.mu.Lock()
		b, ends, closing := t.out, t.ends, t.closing
		t.out, t.ends = nil, nil
		t.mu.Unlock()
		if len(b) > 0 {
			patience := writeIn
			if closing {
				patience = time.Second
			}
			t.conn.SetWriteDeadline(time.Now().Add(patience))
			if err := t.write(b, ends); err != nil {
				return
			}
		}
		if closing {
			return
		}
	}
}

// flush waits until all that was sent is written. It is for the negotiation, where conn changes.
func (t *stream) flush() error {
	t.mu.Lock()
	b, ends := t.out, t.ends
	t.out, t.ends = nil, nil
	t.mu.Unlock()
	return t.write(b, ends)
}

func (t *stream) write(b []byte, ends []int) error {
	if c, ok := t.conn.(*socket); ok {
		return c.frames(b, ends)
	}
	_, err := t.conn.Write(b)
	return err
}

func (t *stream) send(es ...*element.Element) {
	var b []byte
	if t.framed {
		for _, e := range es {
			t.sendBytes(e.AppendAlone(nil))
		}
		return
	}
	for _, e := range es {
		b = e.Append(b)
	}
	t.sendBytes(b)
}

// sendOwn sends an element that belongs to the stream itself; old clients want its prefix.
func (t *stream) sendOwn(local string, children ...*element.Element) {
	t.sendBytes(t.own(local, children...))
}

func (t *stream) own(local string, children ...*element.Element) []byte {
	b := []byte("<stream:" + local)
	if t.framed {
		b = append(b, " xmlns:stream='"+element.NSStream+"'"...)
	}
	b = append(b, '>')
	for _, c := range children {
		b = c.AppendAlone(b)
	}
	return append(b, "</stream:"+local+">"...)
}

// sendBytes sends a whole element or header.
func (t *stream) sendBytes(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return
	}
	t.put(b)
	if len(t.out) > maxOut {
		t.closing = true // whoever does not read is not there
	}
	t.poke()
}

func (t *stream) put(b []byte) {
	t.out = append(t.out, b...)
	if t.framed {
		t.ends = append(t.ends, len(t.out))
	}
}

func (t *stream) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// close ends the stream in good order, with a stream error (RFC 6120 §4.9) unless condition is empty.
func (t *stream) close(condition string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return
	}
	if condition != "" {
		t.put(t.own("error", element.New(element.NSStreams, condition)))
	}
	if t.framed {
		t.put([]byte("<close xmlns='" + nsFraming + "'/>"))
	} else {
		t.put([]byte("</stream:stream>"))
	}
	t.closing = true
	// What the other side sends now is for nobody, and it has a moment to take what is left.
	t.conn.SetDeadline(time.Now().Add(time.Second))
	t.poke()
}

// closeFor closes the stream because reading from it failed.
func (t *stream) closeFor(err error) {
	switch {
	case errors.Is(err, element.ErrXML):
		t.close("not-well-formed")
	case errors.Is(err, errBroken):
		t.close("internal-server-error")
	default:
		t.close("")
	}
}
