package stanzaxml

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Scanner reads the XML of one stanza, whole and in memory, token by token. It exists because encoding/xml needs several times as long and an
// allocation for every token; it accepts only what RFC 6120 §11 lets a stanza contain, and what it accepts encoding/xml accepts too, with
// the same result (FuzzParseStanza of package push). The zero Scanner with Src is ready.
type Scanner struct {
	// Src is the stanza.
	Src string
	// Kind is what Next has read: an element's start with Space, Local and Attrs, text, or an element's end.
	Kind         Kind
	Space, Local string

	pos, depth int
	err        error
	empty      bool             // the start that was read is an end too
	raw        string           // text as written
	cdata      bool             // raw has no references
	open       [MaxDepth]string // names as written, for the end tags
	// decls are the namespace declarations in force, innermost last; base[d] is how many there were before element d.
	decls  [maxDecls]decl
	nDecl  int
	base   [MaxDepth]int
	attrs  [maxAttrs]Attr
	nAttrs int
}

// Kind is the kind of a token.
type Kind uint8

const (
	Start Kind = iota + 1
	Text
	End
)

// Attr is an attribute.
type Attr struct{ Name, Value string }

// maxDecls bounds the namespace declarations in force at one place. Real stanzas have fewer than ten.
const maxDecls = 32

// maxAttrs bounds the attributes of one element, which are compared with each other.
const maxAttrs = 32

type decl struct{ prefix, uri string }

// xmlNS is what the prefix xml stands for without a declaration.
const xmlNS = "http://www.w3.org/XML/1998/namespace"

var (
	errEOF    = errors.New("it ends too early")
	errSyntax = errors.New("not well-formed")
)

// Next reads the next token. It returns false after the end of the element, and at an error, which Err returns.
func (s *Scanner) Next() bool {
	if s.err != nil {
		return false
	}
	more, err := s.next()
	if err != nil {
		s.err = fmt.Errorf("%w: at byte %d: %w", ErrStanza, s.pos, err)
	}
	return more && err == nil
}

// Err is why there is no further token, or nil if the element ended and nothing comes after it.
func (s *Scanner) Err() error { return s.err }

// Attrs yields the attributes without a prefix of the element whose start was read.
func (s *Scanner) Attrs(yield func(Attr) bool) {
	for _, a := range s.attrs[:s.nAttrs] {
		if strings.IndexByte(a.Name, ':') < 0 && !yield(a) {
			return
		}
	}
}

// Text is the text that was read.
func (s *Scanner) Text() string {
	if s.cdata {
		return newlines(s.raw)
	}
	text, _ := unescape(s.raw, true) // Next has found no fault in it
	return text
}

func (s *Scanner) next() (bool, error) {
	switch {
	case s.empty:
		s.empty = false
		s.close()
		return true, nil
	case s.Kind == 0:
		if err := CheckText(s.Src); err != nil {
			return false, err
		}
		s.skipSpace()
	case s.depth == 0:
		if s.skipSpace(); s.pos < len(s.Src) {
			return false, fmt.Errorf("%w: more than one element", errSyntax)
		}
		return false, nil
	}
	switch rest := s.Src[s.pos:]; {
	case rest == "":
		return false, errEOF
	case rest[0] != '<' && s.depth == 0:
		return false, fmt.Errorf("%w: text outside of the element", errSyntax)
	case rest[0] != '<':
		return true, s.text()
	case strings.HasPrefix(rest, "</"):
		return true, s.endTag()
	case strings.HasPrefix(rest, "<![CDATA[") && s.depth > 0:
		return true, s.cdataSection()
	case strings.HasPrefix(rest, "<!"), strings.HasPrefix(rest, "<?"):
		return false, errors.New("comments, processing instructions and document types are forbidden in XMPP")
	}
	return true, s.startTag()
}

// CheckText refuses what no XML document may contain.
func CheckText(s string) error {
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b < ' ' && b != '\t' && b != '\n' && b != '\r' {
				return fmt.Errorf("%w: control character %#x", errSyntax, b)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || r == 0xfffe || r == 0xffff {
			return fmt.Errorf("%w: not UTF-8 text", errSyntax)
		}
		i += n
	}
	return nil
}

func (s *Scanner) skipSpace() {
	for s.pos < len(s.Src) && isSpace(s.Src[s.pos]) {
		s.pos++
	}
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

// name reads an element's or attribute's name. Beyond ASCII it takes more characters than XML does, which does no harm: such names mean
// nothing to the rules.
func (s *Scanner) name() (string, error) {
	start := s.pos
	for s.pos < len(s.Src) && isNameByte(s.Src[s.pos]) {
		s.pos++
	}
	n := s.Src[start:s.pos]
	prefix, local, ok := strings.Cut(n, ":")
	if !ok {
		local = prefix
	}
	if prefix == "" || local == "" || strings.IndexByte(local, ':') >= 0 || !isNameStart(prefix[0]) || !isNameStart(local[0]) {
		return "", fmt.Errorf("%w: a name is missing or cannot be one", errSyntax)
	}
	return n, nil
}

func isNameStart(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b == '_' || b >= utf8.RuneSelf
}

func isNameByte(b byte) bool {
	return isNameStart(b) || '0' <= b && b <= '9' || b == '-' || b == '.' || b == ':'
}

func (s *Scanner) startTag() error {
	s.pos++
	name, err := s.name()
	if err != nil {
		return err
	}
	d := s.depth
	if d >= MaxDepth {
		return fmt.Errorf("elements nest deeper than %d", MaxDepth)
	}
	s.open[d] = name
	s.base[d] = s.nDecl
	s.nAttrs = 0
	for {
		before := s.pos
		s.skipSpace()
		if s.pos >= len(s.Src) {
			return errEOF
		}
		if b := s.Src[s.pos]; b == '>' || b == '/' {
			break
		}
		if s.pos == before {
			return fmt.Errorf("%w: attributes need space between them", errSyntax)
		}
		a, err := s.attr()
		if err != nil {
			return err
		}
		if err := s.add(a); err != nil {
			return err
		}
	}
	if s.Space, s.Local, err = s.resolve(name); err != nil {
		return err
	}
	for _, a := range s.attrs[:s.nAttrs] {
		if strings.IndexByte(a.Name, ':') >= 0 && !strings.HasPrefix(a.Name, "xmlns:") {
			if _, _, err := s.resolve(a.Name); err != nil {
				return err
			}
		}
	}
	if s.Src[s.pos] == '/' {
		s.pos++
		if s.pos >= len(s.Src) {
			return errEOF
		}
		if s.Src[s.pos] != '>' {
			return fmt.Errorf("%w: a / in a tag", errSyntax)
		}
		s.empty = true
	}
	s.pos++
	s.depth++
	s.Kind = Start
	return nil
}

// add takes an attribute, which may declare a namespace.
func (s *Scanner) add(a Attr) error {
	for _, o := range s.attrs[:s.nAttrs] {
		if o.Name == a.Name {
			return fmt.Errorf("%w: attribute given twice", errSyntax)
		}
	}
	if s.nAttrs == maxAttrs {
		return fmt.Errorf("more than %d attributes", maxAttrs)
	}
	s.attrs[s.nAttrs] = a
	s.nAttrs++
	if a.Name != "xmlns" && !strings.HasPrefix(a.Name, "xmlns:") {
		return nil
	}
	if s.nDecl == maxDecls {
		return fmt.Errorf("more than %d namespace declarations", maxDecls)
	}
	prefix := strings.TrimPrefix(strings.TrimPrefix(a.Name, "xmlns"), ":")
	if prefix != "" && a.Value == "" {
		return fmt.Errorf("%w: a prefix without a namespace", errSyntax)
	}
	if prefix == "xmlns" || prefix == "xml" && a.Value != xmlNS {
		return fmt.Errorf("%w: a prefix that is reserved", errSyntax)
	}
	s.decls[s.nDecl] = decl{prefix, a.Value}
	s.nDecl++
	return nil
}

// close ends the innermost open element.
func (s *Scanner) close() {
	s.depth--
	s.nDecl = s.base[s.depth]
	s.Kind = End
}

func (s *Scanner) resolve(name string) (space, local string, err error) {
	prefix, local, ok := strings.Cut(name, ":")
	if !ok {
		prefix, local = "", name
	}
	for i := s.nDecl - 1; i >= 0; i-- {
		if s.decls[i].prefix == prefix {
			return s.decls[i].uri, local, nil
		}
	}
	switch prefix {
	case "":
		return "", local, nil
	case "xml":
		return xmlNS, local, nil
	}
	return "", "", fmt.Errorf("%w: prefix %.40q is not declared", errSyntax, prefix)
}

func (s *Scanner) attr() (Attr, error) {
	name, err := s.name()
	if err != nil {
		return Attr{}, err
	}
	s.skipSpace()
	if s.pos >= len(s.Src) || s.Src[s.pos] != '=' {
		return Attr{}, fmt.Errorf("%w: an attribute without a value", errSyntax)
	}
	s.pos++
	s.skipSpace()
	if s.pos >= len(s.Src) {
		return Attr{}, errEOF
	}
	q := s.Src[s.pos]
	if q != '"' && q != '\'' {
		return Attr{}, fmt.Errorf("%w: an attribute's value without quotes", errSyntax)
	}
	end := strings.IndexByte(s.Src[s.pos+1:], q)
	if end < 0 {
		return Attr{}, errEOF
	}
	raw := s.Src[s.pos+1 : s.pos+1+end]
	if strings.IndexByte(raw, '<') >= 0 {
		return Attr{}, fmt.Errorf("%w: < in an attribute's value", errSyntax)
	}
	value, err := unescape(raw, true)
	if err != nil {
		return Attr{}, err
	}
	s.pos += end + 2
	return Attr{name, value}, nil
}

func (s *Scanner) endTag() error {
	if s.depth == 0 {
		return fmt.Errorf("%w: an end without a start", errSyntax)
	}
	s.pos += 2
	name, err := s.name()
	if err != nil {
		return err
	}
	if name != s.open[s.depth-1] {
		return fmt.Errorf("%w: <%.40s> ends as </%.40s>", errSyntax, s.open[s.depth-1], name)
	}
	s.skipSpace()
	if s.pos >= len(s.Src) {
		return errEOF
	}
	if s.Src[s.pos] != '>' {
		return fmt.Errorf("%w: an end tag with more than a name", errSyntax)
	}
	s.pos++
	s.close()
	return nil
}

func (s *Scanner) text() error {
	end := strings.IndexByte(s.Src[s.pos:], '<')
	if end < 0 {
		return errEOF
	}
	raw := s.Src[s.pos : s.pos+end]
	if strings.Contains(raw, "]]>") {
		return fmt.Errorf("%w: ]]> in text", errSyntax)
	}
	if _, err := unescape(raw, false); err != nil {
		return err
	}
	s.Kind, s.raw, s.cdata = Text, raw, false
	s.pos += end
	return nil
}

func (s *Scanner) cdataSection() error {
	start := s.pos + len("<![CDATA[")
	end := strings.Index(s.Src[start:], "]]>")
	if end < 0 {
		return errEOF
	}
	s.Kind, s.raw, s.cdata = Text, s.Src[start:start+end], true
	s.pos = start + end + len("]]>")
	return nil
}

// newlines is XML's end-of-line handling.
func newlines(s string) string {
	if strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// unescape replaces references, and checks them even if the result is not wanted.
func unescape(s string, wanted bool) (string, error) {
	if wanted {
		s = newlines(s)
	}
	amp := strings.IndexByte(s, '&')
	if amp < 0 {
		return s, nil
	}
	var b strings.Builder
	for {
		if wanted {
			b.WriteString(s[:amp])
		}
		s = s[amp+1:]
		semi := strings.IndexByte(s[:min(len(s), 12)], ';')
		if semi < 0 {
			return "", fmt.Errorf("%w: a bare &", errSyntax)
		}
		r, err := reference(s[:semi])
		if err != nil {
			return "", err
		}
		if wanted {
			b.WriteRune(r)
		}
		s = s[semi+1:]
		if amp = strings.IndexByte(s, '&'); amp < 0 {
			if wanted {
				b.WriteString(s)
			}
			return b.String(), nil
		}
	}
}

func reference(name string) (rune, error) {
	switch name {
	case "amp":
		return '&', nil
	case "lt":
		return '<', nil
	case "gt":
		return '>', nil
	case "quot":
		return '"', nil
	case "apos":
		return '\'', nil
	}
	digits, ok := strings.CutPrefix(name, "#")
	base := 10
	if hex, isHex := strings.CutPrefix(digits, "x"); isHex {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	r := rune(n)
	if !ok || err != nil || n > utf8.MaxRune || !utf8.ValidRune(r) || r == 0xfffe || r == 0xffff ||
		r < ' ' && r != '\t' && r != '\n' && r != '\r' {
		return 0, fmt.Errorf("%w: a reference that XMPP does not allow", errSyntax)
	}
	return r, nil
}
