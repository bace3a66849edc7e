// Package enum gives the values of an enumeration their tokens in text and JSON.
package enum

import "fmt"

// Token is the token of v, whose value is its place among tokens. Values of a later version have their number.
func Token[T ~uint8](what string, tokens []string, v T) string {
	if int(v) < len(tokens) {
		return tokens[v]
	}
	return fmt.Sprintf("%s(%d)", what, uint8(v))
}

// Read sets v to the value with that token. One that is not known is an error, and leaves v alone.
func Read[T ~uint8](what string, tokens []string, v *T, text []byte) error {
	for i, t := range tokens {
		if t == string(text) {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("push: there is no %s %.64q", what, text)
}
