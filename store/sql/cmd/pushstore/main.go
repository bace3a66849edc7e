// Command pushstore looks after the registrations of push in a SQL database, also while servers use it.
//
//	pushstore [flags] list    [filter]                print registrations, without their publish options
//	pushstore [flags] purge   [filter]                delete registrations; at least one part of a filter is needed
//	pushstore [flags] delete  ACCOUNT SERVICE [NODE]  delete one registration, or with no NODE given all of that service
//	pushstore [flags] reseal                          encrypt again whatever is not encrypted with the current key
//	pushstore [flags] migrate                         create the tables or bring them up to date, and nothing else
//
// A filter is any of -account, -service, -older (than this, without a sign of life) and -disabled. The database is a file or a URL, postgres://…; a
// URL with a password is best given by the environment variable PUSH_DATABASE, where other users do not see it.
package main

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/postgres"
	"github.com/xmpp-push/push/store/sql/sqlite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, errUsage), errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "pushstore:", err)
		os.Exit(1)
	}
}

// errUsage: the command line is wrong, and the user was told.
var errUsage = errors.New("usage")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	keys := sqlstore.Keyring{Keys: map[string][]byte{}}
	flags := flag.NewFlagSet("pushstore", flag.ContinueOnError)
	flags.SetOutput(stderr)
	database := flags.String("database", "", "SQLite `file` or postgres:// URL (default $PUSH_DATABASE)")
	prefix := flags.String("prefix", "push_", "`prefix` of the tables")
	flags.Func("key", "`ID=FILE`: an encryption key, 64 hexadecimal digits; several may be given (reseal)", func(v string) error {
		id, file, ok := strings.Cut(v, "=")
		if !ok {
			return errors.New("want ID=FILE")
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if keys.Keys[id], err = hex.DecodeString(strings.TrimSpace(string(text))); err != nil {
			return fmt.Errorf("%s has something other than hexadecimal digits", file)
		}
		return nil
	})
	flags.StringVar(&keys.Current, "current", "", "`ID` of the key that reseal encrypts with; none leaves the rows readable")
	flags.Usage = func() {
		fmt.Fprintln(stderr, `Usage: pushstore [flags] list|purge [-account A] [-service S] [-older 720h] [-disabled]
       pushstore [flags] delete ACCOUNT SERVICE [NODE]
       pushstore [flags] reseal|migrate
Flags:`)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	usage := func(text string) error {
		fmt.Fprintln(stderr, "pushstore:", text)
		flags.Usage()
		return errUsage
	}
	if *database == "" {
		*database = os.Getenv("PUSH_DATABASE") // not the flag's default, which would be printed with its password
	}
	if *database == "" {
		return usage("no -database")
	}
	if flags.NArg() == 0 {
		return usage("no command")
	}

	name, args := flags.Arg(0), flags.Args()[1:]
	var command func(*sqlstore.Store) error
	switch name {
	case "list", "purge":
		f, asJSON, err := filter(name, args, stderr)
		if err != nil {
			return errUsage
		}
		if name == "purge" {
			command = func(s *sqlstore.Store) error { return purge(ctx, s, f, stdout) }
		} else {
			command = func(s *sqlstore.Store) error { return list(ctx, s, f, asJSON, stdout) }
		}
	case "delete":
		if len(args) < 2 || len(args) > 3 {
			return usage("delete wants ACCOUNT SERVICE [NODE]")
		}
		k := push.Key{Service: args[1]}
		if len(args) == 3 {
			k.Node = args[2]
		}
		command = func(s *sqlstore.Store) error {
			removed, err := s.Remove(ctx, args[0], k)
			if err == nil && len(removed) == 0 {
				err = push.ErrNotRegistered
			}
			fmt.Fprintln(stdout, len(removed), "registrations deleted")
			return err
		}
	case "reseal":
		command = func(s *sqlstore.Store) error {
			n, err := s.Reseal(ctx)
			fmt.Fprintln(stdout, n, "registrations encrypted again")
			return err
		}
	case "migrate":
		command = func(*sqlstore.Store) error { return nil }
	default:
		return usage("no such command: " + name)
	}

	db, dialect, err := open(*database, name == "migrate")
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := sqlstore.Open(ctx, db, dialect, &sqlstore.Options{
		Prefix:     *prefix,
		KeepSchema: name != "migrate", // else a look at the database of an older server would keep that from starting again
		CacheSize:  -1,
		Keys:       keys,
		Corrupt:    func(e *sqlstore.CorruptError) { fmt.Fprintln(stderr, "pushstore:", e) },
	})
	if err != nil {
		return err
	}
	return command(store)
}

func open(database string, create bool) (*sql.DB, *sqlstore.Dialect, error) {
	if strings.HasPrefix(database, "postgres://") || strings.HasPrefix(database, "postgresql://") {
		db, err := postgres.Open(database)
		return db, sqlstore.Postgres, err
	}
	if _, err := os.Stat(database); err != nil && !create { // a typing error, rather than a new database
		return nil, nil, err
	}
	db, err := sqlite.Open(database)
	return db, sqlstore.SQLite, err
}

func filter(name string, args []string, stderr io.Writer) (f sqlstore.Filter, asJSON bool, err error) {
	flags := flag.NewFlagSet("pushstore "+name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&f.Account, "account", "", "bare `JID`")
	flags.StringVar(&f.Service, "service", "", "`JID` of the push service")
	flags.BoolVar(&f.Disabled, "disabled", false, "those that were disabled after errors only")
	older := flags.Duration("older", 0, "neither enabled nor published to with success for this `time`")
	if name == "list" {
		flags.BoolVar(&asJSON, "json", false, "one JSON object a line")
	}
	if err := flags.Parse(args); err != nil {
		return f, false, err
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "pushstore %s: unexpected %q\n", name, flags.Arg(0))
		return f, false, errUsage
	}
	if *older > 0 {
		f.Before = time.Now().Add(-*older)
	}
	return f, asJSON, nil
}

func purge(ctx context.Context, s *sqlstore.Store, f sqlstore.Filter, stdout io.Writer) error {
	n, err := s.Purge(ctx, f)
	if errors.Is(err, sqlstore.ErrFilter) {
		return errors.New("purge wants at least one of -account, -service, -older and -disabled")
	}
	fmt.Fprintln(stdout, n, "registrations deleted")
	return err
}

// line is a registration for list -json.
type line struct {
	Account   string     `json:"account"`
	Service   string     `json:"service"`
	Node      string     `json:"node"`
	Client    string     `json:"client,omitempty"`
	Enabled   time.Time  `json:"enabled"`
	Succeeded *time.Time `json:"succeeded,omitempty"`
	Errors    int        `json:"errors,omitempty"`
	Refusals  int        `json:"refusals,omitempty"`
	Disabled  *time.Time `json:"disabled,omitempty"`
	Cause     string     `json:"cause,omitempty"`
}

func list(ctx context.Context, s *sqlstore.Store, f sqlstore.Filter, asJSON bool, stdout io.Writer) error {
	encoder := json.NewEncoder(stdout)
	for r, err := range s.All(ctx, f) {
		if err != nil {
			return err
		}
		if asJSON {
			l := line{r.Account, r.Service, r.Node, r.Client, r.Enabled, known(r.Health.Succeeded), r.Health.Errors, r.Health.Refusals,
				known(r.Health.Disabled), r.Health.Cause}
			if err := encoder.Encode(l); err != nil {
				return err
			}
			continue
		}
		state := "enabled"
		if !r.Health.Disabled.IsZero() {
			state = "disabled " + day(r.Health.Disabled) + " " + r.Health.Cause
		}
		_, err := fmt.Fprintf(stdout, "%s\t%s\t%q\tenabled %s\tsucceeded %s\terrors %d+%d\t%s\n", r.Account, r.Service, r.Node,
			day(r.Enabled), day(r.Health.Succeeded), r.Health.Errors, r.Health.Refusals, state)
		if err != nil {
			return err
		}
	}
	return nil
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func day(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Format(time.DateOnly)
}
