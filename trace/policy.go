package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/xmpp-push/push"
)

// Policy is a push.Policy as a config line has it: an object with a key for each field that is not its zero value, the field's name in small letters
// with underscores, such as max_errors. Durations are in milliseconds, and their keys end in _ms. A key that is not known is an error: a replay
// under another policy than the one that was meant would decide otherwise, and say nothing of it.
type Policy push.Policy

// policyFields are the fields of push.Policy by their keys.
var policyFields = func() map[string]int {
	fields := make(map[string]int)
	t := reflect.TypeFor[push.Policy]()
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		key := snake(f.Name)
		if f.Type == reflect.TypeFor[time.Duration]() {
			key += "_ms"
		}
		fields[key] = i
	}
	return fields
}()

func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// MarshalJSON writes the object, its keys in order.
func (p Policy) MarshalJSON() ([]byte, error) {
	v := reflect.ValueOf(push.Policy(p))
	out := make(map[string]any)
	for key, i := range policyFields {
		f := v.Field(i)
		if f.IsZero() {
			continue
		}
		if d, ok := f.Interface().(time.Duration); ok {
			out[key] = inMillis(d)
		} else {
			out[key] = f.Interface()
		}
	}
	return json.Marshal(out)
}

// inMillis makes a duration that milliseconds cannot tell from zero, which means the default, the shortest that they can.
func inMillis(d time.Duration) int64 {
	switch ms := d.Milliseconds(); {
	case ms == 0 && d > 0:
		return 1
	case ms == 0 && d < 0:
		return -1
	default:
		return ms
	}
}

// UnmarshalJSON reads the object. It reports every key that is not known.
func (p *Policy) UnmarshalJSON(data []byte) error {
	var in map[string]json.RawMessage
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("policy is not an object: %w", err)
	}
	var out push.Policy
	v := reflect.ValueOf(&out).Elem()
	var errs []error
	for key, raw := range in {
		i, ok := policyFields[key]
		if !ok {
			errs = append(errs, fmt.Errorf("policy has no %q", cut(key)))
			continue
		}
		f := v.Field(i)
		if f.Type() == reflect.TypeFor[time.Duration]() {
			var ms int64
			if err := json.Unmarshal(raw, &ms); err != nil || ms > maxAt || ms < -maxAt {
				errs = append(errs, fmt.Errorf("policy: %s is not a number of milliseconds", key))
				continue
			}
			f.SetInt(ms * int64(time.Millisecond))
		} else if err := json.Unmarshal(raw, f.Addr().Interface()); err != nil {
			errs = append(errs, fmt.Errorf("policy: %s: %w", key, err))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if err := errors.Join(errs...); err != nil {
		return err
	}
	*p = Policy(out)
	return nil
}
