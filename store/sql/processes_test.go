package sqlstore_test

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xmpp-push/push"
)

func pushErrors(n int) push.Update { return push.Update{Errors: n} }

// process is this program in another role.
type process struct {
	*exec.Cmd
	in    io.WriteCloser
	lines chan string // of its standard output; closed at its end
}

func run(t *testing.T, d database, role string, env ...string) *process {
	t.Helper()
	return begin(t, exec.Command(os.Args[0]), append(d.env(role), env...))
}

// begin starts a command with its input and output at hand.
func begin(t *testing.T, cmd *exec.Cmd, env []string) *process {
	t.Helper()
	p := &process{Cmd: cmd, lines: make(chan string, 10_000)}
	p.Env = env
	p.Stderr = os.Stderr
	var err error
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	return p
}

// runTogether runs n processes that start at the same time, and returns what they printed.
func runTogether(t *testing.T, d database, role string, n int) (lines []string) {
	t.Helper()
	var ps []*process
	for i := range n {
		ps = append(ps, run(t, d, role, fmt.Sprint("PUSH_TEST_NUMBER=", i)))
	}
	for _, p := range ps {
		_ = p.in.Close()
	}
	for _, p := range ps {
		for line := range p.lines {
			lines = append(lines, line)
		}
		if err := p.Wait(); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	return lines
}

const (
	competitors = 2
	competes    = 60
	sharedLimit = 3
)

func init() {
	// compete enables and counts on the same few accounts as another process.
	roles["compete"] = func() {
		_, s := roleDatabase()
		number := os.Getenv("PUSH_TEST_NUMBER")
		untilClosed()
		for i := range competes {
			r := registration(account(i%2), fmt.Sprint(number, "-", i), time.Duration(rand.IntN(1e6)))
			before, err := s.Enable(ctx, r, sharedLimit)
			if err != nil {
				log.Fatal(err)
			}
			_, _, evicted := push.Enroll(before, r, sharedLimit)
			fmt.Println("enabled", r.Node)
			for _, k := range evicted {
				fmt.Println("evicted", k.Node)
			}
			rs, err := s.List(ctx, r.Account)
			if err != nil || len(rs) > sharedLimit {
				log.Fatal(len(rs), err)
			}
			if err := s.Update(ctx, account(9), push.Key{Service: "push.example.net", Node: "counted"}, push.Update{Errors: 1, Refusals: 2}); err != nil {
				log.Fatal(err)
			}
		}
	}
	// survive enables until it is killed, and says so after each answer. With PUSH_TEST_DIE it kills itself between that answer and saying so.
	roles["survive"] = func() {
		_, s := roleDatabase()
		round, die := os.Getenv("PUSH_TEST_NUMBER"), os.Getenv("PUSH_TEST_DIE")
		for i := 1; ; i++ {
			if _, err := s.Enable(ctx, survivor(round, i), sharedLimit); err != nil {
				log.Fatal(err)
			}
			if strconv.Itoa(i) == die {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			if _, err := os.Stdout.WriteString(strconv.Itoa(i) + "\n"); err != nil {
				return
			}
		}
	}
}

func TestTwoProcesses(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		s := d.open(t, nil)
		mustEnable(t, s, registration(account(9), "counted", 0), 5)
		count := map[string]int{}
		for _, line := range runTogether(t, d, "compete", competitors) {
			verb, node, _ := strings.Cut(line, " ")
			switch verb {
			case "enabled":
				count[node]++
			case "evicted":
				count[node] += 10
			}
		}
		for i := range 2 {
			rs := mustList(t, s, account(i))
			if len(rs) != sharedLimit {
				t.Errorf("%d registrations are left, want %d", len(rs), sharedLimit)
			}
			for _, r := range rs {
				count[r.Node] += 100
			}
		}
		if len(count) != competitors*competes {
			t.Errorf("%d registrations were enabled, want %d", len(count), competitors*competes)
		}
		for node, n := range count {
			if n != 11 && n != 101 {
				t.Errorf("%s was enabled %d times, evicted %d times, and is stored %d times", node, n%10, n/10%10, n/100)
			}
		}
		h := mustList(t, s, account(9))[0].Health
		if h.Errors != competitors*competes || h.Refusals != 2*competitors*competes {
			t.Errorf("counters are %d and %d, want %d and %d", h.Errors, h.Refusals, competitors*competes, 2*competitors*competes)
		}
	})
}

// survivor has its number in several columns, so that half of a row would show.
func survivor(round string, i int) push.Registration {
	r := registration("round"+round+"@example.com", fmt.Sprintf("n%06d", i), time.Duration(i)*time.Second)
	r.Client = r.Node
	for j := range r.Options {
		r.Options[j].Values = []string{r.Node, strings.Repeat(r.Node, 50)}
	}
	return r
}

func TestKill(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, d database) {
		kills := 100
		if testing.Short() || d.dialect.Name() == "postgres" {
			kills = 20 // the server is another process, and not the one that is killed: see TestServerCrash
		}
		d.open(t, nil)
		answered, unanswered := 0, 0
		for round := range kills {
			number := strconv.Itoa(round)
			last, kill := 0, 1+rand.IntN(10)
			env := []string{"PUSH_TEST_NUMBER=" + number}
			if round%4 == 0 {
				env, kill = append(env, "PUSH_TEST_DIE="+strconv.Itoa(kill)), -1
			}
			p := run(t, d, "survive", env...)
			for line := range p.lines {
				last++
				if line != strconv.Itoa(last) {
					t.Fatalf("round %d: got %q, want %d", round, line, last)
				}
				if last == kill {
					// Somewhere in what it does next.
					for begin, wait := time.Now(), rand.N(time.Millisecond); time.Since(begin) < wait; {
						runtime.Gosched()
					}
					_ = p.Process.Kill()
				}
			}
			if err := p.Wait(); p.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("round %d: %v", round, err)
			}

			// The last three that were answered are there, or the one that was not answered has come and the first of them is gone.
			db, err := d.openHandle(d.where)
			if err != nil {
				t.Fatal(err)
			}
			s, err := d.tryOpen(db, nil)
			if err != nil {
				t.Fatal(err)
			}
			rs := mustList(t, s, survivor(number, 0).Account)
			_ = db.Close()
			slices.SortFunc(rs, func(a, b push.Registration) int { return a.Key.Compare(b.Key) })
			newest := last
			if len(rs) > 0 && rs[len(rs)-1].Node == survivor(number, last+1).Node {
				newest++
				unanswered++
			}
			var want []push.Registration
			for i := max(1, newest-sharedLimit+1); i <= newest; i++ {
				want = append(want, survivor(number, i))
			}
			if fmt.Sprint(rs) != fmt.Sprint(want) {
				t.Fatalf("round %d, %d answered\n have %+v\n want %+v", round, last, rs, want)
			}
			answered += last
		}
		if unanswered < kills/4 {
			t.Errorf("only %d enables were committed without an answer; the processes did not die in between", unanswered)
		}
		t.Logf("%d kills, %d enables answered, %d more committed", kills, answered, unanswered)
	})
}
