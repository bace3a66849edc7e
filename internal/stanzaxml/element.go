// Package stanzaxml reads the XML of stanzas within limits, as RFC 6120 §11 lets them be: Scanner the many that pass by, Element the few that
// are answered.
package stanzaxml

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
)

// ErrStanza is wrapped by every error of this package: push.ErrStanza.
var ErrStanza = errors.New("push: unusable stanza")

// Limits on a stanza's XML: push.MaxStanzaBytes, push.MaxStanzaDepth.
const (
	MaxBytes = 1 << 20
	MaxDepth = 64
)

// Element reads the one element of a stanza from tokens that a stranger wrote, within limits. Unlike Scanner it is for the few stanzas
// that are answered, not for all that pass by.
type Element struct {
	// Limit bounds its size in bytes.
	Limit int

	r           xml.TokenReader
	depth, size int
	end         error // came with the last token
}

// Parse reads from the bytes of one whole stanza.
func Parse(data []byte) (*Element, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrStanza, len(data), MaxBytes)
	}
	if bytes.Contains(data, []byte("&#")) { // encoding/xml takes a reference to half of a surrogate pair for U+FFFD
		s := Scanner{Src: string(data)}
		for s.Next() {
		}
		if s.Err() != nil {
			return nil, s.Err()
		}
	}
	return New(xml.NewDecoder(bytes.NewReader(data))), nil
}

// New reads from a reader that is positioned before the element. Of nil there is an error to read.
func New(r xml.TokenReader) *Element {
	if r == nil {
		r = none{}
	}
	return &Element{r: r, Limit: MaxBytes}
}

// none is the reader of those who have none.
type none struct{}

func (none) Token() (xml.Token, error) { return nil, ErrNoReader }

// ErrNoReader is what a nil reader is answered with.
var ErrNoReader = errors.New("the reader is nil; give one that is positioned before the stanza's start element, such as an *xml.Decoder")

// Token returns the next token. It is an error if the tokens end, and if there is one that XMPP forbids.
func (e *Element) Token() (xml.Token, error) {
	for {
		if e.end != nil {
			return nil, e.broken(e.end)
		}
		tok, err := e.r.Token()
		e.end = err
		e.size++ // so that a reader of nothing ends too
		switch t := tok.(type) {
		case nil:
		case xml.StartElement:
			e.depth++
			e.size += len(t.Name.Space) + len(t.Name.Local)
			if err := distinct(t.Attr); err != nil {
				return nil, err
			}
			for _, a := range t.Attr {
				e.size += len(a.Name.Local) + len(a.Value)
			}
		case xml.EndElement:
			e.depth--
		case xml.CharData:
			e.size += len(t)
		default:
			return nil, fmt.Errorf("%w: comments, processing instructions and document types are forbidden in XMPP", ErrStanza)
		}
		switch {
		case e.depth > MaxDepth:
			return nil, fmt.Errorf("%w: elements nest deeper than %d", ErrStanza, MaxDepth)
		case e.depth < 0:
			return nil, fmt.Errorf("%w: an end without a start", ErrStanza)
		case e.size > e.Limit:
			return nil, fmt.Errorf("%w: more than %d bytes", ErrStanza, e.Limit)
		case tok != nil:
			return tok, nil
		}
	}
}

// distinct refuses an attribute that is given twice, of which encoding/xml takes no note and each of its readers another one.
func distinct(attrs []xml.Attr) error {
	if len(attrs) > maxAttrs {
		return fmt.Errorf("%w: more than %d attributes", ErrStanza, maxAttrs)
	}
	for i, a := range attrs {
		for _, o := range attrs[:i] {
			if o.Name == a.Name {
				return fmt.Errorf("%w: attribute given twice", ErrStanza)
			}
		}
	}
	return nil
}

func (e *Element) broken(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrStanza, err)
}

// Open reads the element's start.
func (e *Element) Open() (xml.StartElement, error) {
	for {
		tok, err := e.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			return t.Copy(), nil
		case xml.CharData:
			if len(bytes.TrimSpace(t)) == 0 {
				continue
			}
		}
		return xml.StartElement{}, fmt.Errorf("%w: it does not start with an element", ErrStanza)
	}
}

// Children reads to the end of the open element. It calls child after the start of each child element; what child leaves of it is
// skipped. It hands text between the children to text, which may be nil.
func (e *Element) Children(child func(xml.StartElement) error, text func(xml.CharData)) error {
	level := e.depth
	for {
		tok, err := e.Token()
		if err != nil {
			return err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if err := child(t.Copy()); err != nil {
				return err
			}
			for e.depth > level {
				if _, err := e.Token(); err != nil {
					return err
				}
			}
		case xml.EndElement:
			if e.depth < level {
				return nil
			}
		case xml.CharData:
			if text != nil {
				text(t)
			}
		}
	}
}

// Text reads the open element's text, and calls other if there are elements in it. Of text of more than limit bytes it returns only enough to
// be more.
func (e *Element) Text(limit int, other func()) (string, error) {
	var text []byte
	err := e.Children(func(xml.StartElement) error {
		other()
		return nil
	}, func(t xml.CharData) {
		if len(text) <= limit {
			text = append(text, t...)
		}
	})
	return string(text), err
}

// Close makes sure that nothing comes after the element.
func (e *Element) Close() error {
	for e.end == nil {
		tok, err := e.r.Token()
		e.end = err
		if t, ok := tok.(xml.CharData); tok != nil && !(ok && len(bytes.TrimSpace(t)) == 0) {
			return fmt.Errorf("%w: more than one element", ErrStanza)
		}
	}
	if !errors.Is(e.end, io.EOF) {
		return e.broken(e.end)
	}
	return nil
}

// Attribute returns an attribute that has no prefix.
func Attribute(start xml.StartElement, name string) string {
	for _, a := range start.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}
