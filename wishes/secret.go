package wishes

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is text that never prints: fmt, log/slog and encoding/json write "secret" in its place. The zero Secret has no text.
type Secret struct {
	text *string // so that what prints by reflection meets an address
}

// NewSecret returns a Secret with that text, which may be any bytes.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero tells whether there is no text.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal tells whether both have the same text.
func (s Secret) Equal(o Secret) bool { return s.Reveal() == o.Reveal() }

// standIn is what is printed in place of a text.
const standIn = "secret"

// standsIn tells whether it was read from what was printed of another, as those in recordings are.
func (s Secret) standsIn() bool { return s.Reveal() == standIn }

func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return standIn
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return s.String() }

// Format implements fmt.Formatter, for all verbs.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText does not give the text either.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText makes a Secret of the text; of what MarshalText gave, a stand-in.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
