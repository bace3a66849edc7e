package element

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode"
	"unicode/utf8"
)

// Limits on what the other side may send before it is thrown out.
const (
	maxBytes = 256 << 10 // unless Limit says otherwise
	maxDepth = 48
	maxAttr  = 64 // of one element
)

// Errors of a Reader. io.EOF is a connection that ended without its stream having been closed.
var (
	// ErrClosed: the other side closed its stream.
	ErrClosed = errors.New("stream closed")
	// ErrXML: what came is not XML as XMPP wants it, or is too much of it.
	ErrXML = errors.New("unusable XML")
)

// Reader reads the elements of a stream. It reads no further than it has to, so that the connection can be used for something else
// (TLS, a new stream) after any element.
type Reader struct {
	in    budget
	dec   *xml.Decoder
	space string
	own   bool // what comes was written by this program
}

// Limit sets how many bytes an element may have from the next one on.
func (r *Reader) Limit(bytes int) { r.in.max = bytes }

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	rd := &Reader{in: budget{r: bufio.NewReader(r), max: maxBytes}}
	rd.Restart()
	return rd
}

// Restart expects a new stream header.
func (r *Reader) Restart() {
	r.dec = xml.NewDecoder(&r.in)
	r.space = ""
}

// Header reads the stream's header and returns it as an element without children.
func (r *Reader) Header() (*Element, error) {
	r.in.left = r.in.max
	for {
		tok, err := r.dec.Token()
		if err != nil {
			return nil, fault(err)
		}
		switch t := tok.(type) {
		case xml.ProcInst:
			if t.Target != "xml" {
				return nil, fmt.Errorf("%w: a processing instruction", ErrXML)
			}
		case xml.CharData:
		case xml.StartElement:
			if t.Name.Local == "open" && t.Name.Space == NSFraming { // RFC 7395
				r.space = NSClient
				return r.start(t), r.dec.Skip()
			}
			if t.Name.Local != "stream" || t.Name.Space != NSStream {
				return nil, fmt.Errorf("%w: it starts with <%s/>", ErrXML, t.Name.Local)
			}
			for _, a := range t.Attr {
				if a.Name.Space == "" && a.Name.Local == "xmlns" {
					r.space = a.Value
				}
			}
			return r.start(t), nil
		default:
			return nil, fmt.Errorf("%w: no stream header", ErrXML)
		}
	}
}

// Trust takes the limits away, for what a program wrote that has them: that may be larger and deeper, and have more attributes, than what it was made of.
func (r *Reader) Trust() {
	r.own = true
	r.Limit(math.MaxInt)
}

// Parse returns the one element that b holds. It is for what Append wrote, which is trusted: what was accepted once is accepted for good.
func Parse(b []byte) (*Element, error) {
	r := NewReader(bytes.NewReader(b))
	r.Trust()
	e, err := r.Next()
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Next reads the next element.
func (r *Reader) Next() (*Element, error) {
	r.in.left = r.in.max
	var open []*Element
	for {
		tok, err := r.dec.Token()
		if err != nil {
			return nil, fault(err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if len(open) >= maxDepth && !r.own {
				return nil, fmt.Errorf("%w: elements nest deeper than %d", ErrXML, maxDepth)
			}
			e := r.start(t)
			if len(e.Attr) > maxAttr && !r.own || !e.writable() {
				return nil, fmt.Errorf("%w: names", ErrXML)
			}
			if len(open) > 0 {
				open[len(open)-1].Add(e)
			}
			open = append(open, e)
		case xml.EndElement:
			if len(open) == 0 {
				return nil, ErrClosed
			}
			if len(open) == 1 {
				if open[0].Is(NSFraming, "close") {
					return nil, ErrClosed
				}
				return open[0], nil
			}
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].Add(string(t))
			} else {
				r.in.left = r.in.max // white space between stanzas keeps connections alive
			}
		default:
			return nil, fmt.Errorf("%w: comments and the like (RFC 6120 §11.1)", ErrXML)
		}
	}
}

func (r *Reader) start(t xml.StartElement) *Element {
	e := &Element{Name: t.Name}
	if e.Name.Space == r.space || e.Name.Space == NSClient {
		e.Name.Space = ""
	}
	for _, a := range t.Attr {
		if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
			continue
		}
		e.Attr = append(e.Attr, a)
	}
	return e
}

// writable tells whether the names are such that others can read them again: encoding/xml lets pass <a:0/> and <a b="" b=""/>, which would end
// the streams of those who get them.
func (e *Element) writable() bool {
	ok := func(local string) bool {
		r, _ := utf8.DecodeRuneInString(local)
		return r == '_' || unicode.IsLetter(r)
	}
	for i, a := range e.Attr {
		if !ok(a.Name.Local) || slices.ContainsFunc(e.Attr[:i], func(b xml.Attr) bool { return a.Name == b.Name }) {
			return false
		}
	}
	return ok(e.Name.Local)
}

func fault(err error) error {
	var syntax *xml.SyntaxError
	if errors.As(err, &syntax) {
		if syntax.Msg == "unexpected EOF" {
			return io.EOF
		}
		return fmt.Errorf("%w: %s", ErrXML, syntax.Msg)
	}
	return err
}

// budget hands out no more bytes than are left for the current element. Being an io.ByteReader, it keeps the decoder from reading ahead.
type budget struct {
	r         *bufio.Reader
	left, max int
}

func (b *budget) ReadByte() (byte, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrXML, b.max)
	}
	b.left--
	return b.r.ReadByte()
}

func (b *budget) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c, err := b.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = c
	return 1, nil
}
