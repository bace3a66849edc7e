package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// How long JetStream is waited for. What was asked of a leader that has died is answered by nobody, so it is asked again soon; but on a machine that has too much to
// do answers come late, and who always asks anew before they do never hears one. So each question is given more time than the one before, until one is answered.

const (
	// appendTimeout is how long the first answers are waited for. While the servers elect a leader there are none.
	appendTimeout = time.Second
	// appendLongest is how long an answer is waited for at most.
	appendLongest = 8 * time.Second
	// appendFor is for how long a batch is sent before those who wait for it are told that the log does not answer. While a leader is elected it may say so at once.
	appendFor = 16 * time.Second
)

// attempt is how long an answer is waited for when some in a row have not come.
func attempt(missed int) time.Duration {
	return min(appendTimeout<<min(max(missed-2, 0), 8), appendLongest)
}

// late tells whether an answer has not come in time.
func late(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
}

// sayEvery is how often a node that cannot join yet says what it waits for.
const sayEvery = 5 * time.Second

// patient tries until it succeeds or ctx ends: servers that have just started answer late, or not. Meanwhile it says what it waits for.
func (n *Node) patient(ctx context.Context, what string, f func(ctx context.Context) error) error {
	began, said, missed := time.Now(), time.Now(), 0
	var told error // by NATS, which says more than that there was no answer
	var toldAt time.Time
	for {
		try, cancel := context.WithTimeout(ctx, attempt(missed))
		err := f(try)
		cancel()
		if err != nil && !late(err) {
			told, toldAt = err, time.Now()
		}
		switch {
		case err == nil || errors.Is(err, ErrVersion) || errors.Is(err, ErrConfig) || errors.Is(err, ErrName):
			return err
		case n.cfg.Conn.IsClosed():
			return fmt.Errorf("%w: Config.Conn is closed: %w", ErrConfig, cmp.Or(n.cfg.Conn.LastError(), err))
		case late(err):
			missed++
		default:
			missed = 0
		}
		if told != nil && time.Since(toldAt) < 2*sayEvery {
			err = told
		}
		if time.Since(said) >= sayEvery {
			said = time.Now()
			n.log.LogAttrs(ctx, slog.LevelWarn, "push cluster: not joined yet", slog.String("node", n.cfg.Node), slog.String("waits_for", what),
				slog.Duration("since", time.Since(began).Round(time.Second)), slog.Any("error", n.why(err)))
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return fmt.Errorf("%w: waited %v for %s: %w", ErrUnreachable, time.Since(began).Round(100*time.Millisecond), what, n.why(err))
		}
	}
}

// why adds to an error what is known of its cause.
func (n *Node) why(err error) error {
	switch last := n.cfg.Conn.LastError(); {
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("NATS has no JetStream, or it is not ready: %w", err)
	case last != nil: // such as missing permissions, which the server tells apart from the answer
		return fmt.Errorf("%w; the connection says: %w", err, last)
	case (late(err) || apiError(err) == unavailable) && n.cfg.Conn.IsConnected():
		return fmt.Errorf("%w: NATS is connected, and no leader answers: do its servers reach each other, do more than half of them run, has the machine time for them?", err)
	case !n.cfg.Conn.IsConnected():
		return fmt.Errorf("%w: there is no connection to NATS", err)
	default:
		return err
	}
}
