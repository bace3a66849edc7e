// Command mutate breaks a package in many small ways, one at a time, and tells which of them its tests do not notice.
//
//	go run ./internal/mutate [flags] DIR
//
// DIR is a package's directory. A mutant is a small change of its code: a comparison that is negated, or off by one at its boundary, a part of a condition that is
// left out, a statement that is not run, plus for minus, a returned value that is another. All of them are built into one test binary, which an environment
// variable tells the one to be, so that a mutant costs the run of some tests and no build. A first run notes which tests come by which mutant; then
// each mutant is run with those tests alone, the quick ones first, until one fails. A mutant that no test fails for has survived: either a test is
// missing, or the mutant does the same as the code. What was judged to do the same is listed in the file mutants.txt of the directory, a line each:
//
//	file.go: mutation: source line -- reason
//
// which is looked up by what is before the dashes. The exit code is 1 if others survived.
//
// It takes minutes to hours, and is not part of the gate.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	c := config{}
	flag.StringVar(&c.files, "files", ".", "mutate only the files whose name matches the `regexp`")
	flag.StringVar(&c.tests, "tests", ".", "run only the tests that match the `regexp`")
	flag.StringVar(&c.only, "only", ".", "run only the mutants whose line in the report matches the `regexp`")
	flag.StringVar(&c.args, "args", "-test.short", "arguments for the test binary")
	flag.IntVar(&c.workers, "workers", 1, "mutants that are run at a time")
	flag.BoolVar(&c.list, "list", false, "print the mutants and run none")
	flag.DurationVar(&c.slack, "slack", 20*time.Second, "how much longer than 20 times the usual processor time tests may take before the mutant counts as noticed")
	flag.DurationVar(&c.slowest, "slowest", time.Minute, "leave out tests that take longer")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	survivors, err := c.run(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(2)
	}
	if survivors > 0 {
		os.Exit(1)
	}
}

type config struct {
	files, tests, only, args string
	workers                  int
	list                     bool
	slack, slowest           time.Duration
}

// test is a top-level test of the package.
type test struct {
	name string
	took time.Duration
}

func (c config) run(dir string) (survivors int, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return 0, err
	}
	p, err := load(dir, regexp.MustCompile(c.files))
	if err != nil {
		return 0, err
	}
	known, err := readKnown(filepath.Join(dir, "mutants.txt"))
	if err != nil {
		return 0, err
	}
	temp, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(temp)
	bin, err := p.build(temp)
	if err != nil {
		return 0, err
	}
	only := regexp.MustCompile(c.only)
	var mutants []*mutant
	for _, m := range p.mutants {
		if !m.dropped && only.MatchString(m.String()) {
			mutants = append(mutants, m)
		}
	}
	if c.list {
		for _, m := range mutants {
			fmt.Println(m)
		}
		return 0, nil
	}
	r := &runner{config: c, dir: dir, bin: bin, temp: temp}
	if err := r.cover(mutants); err != nil {
		return 0, err
	}

	var wg sync.WaitGroup
	var mu sync.Mutex
	count, used := map[verdict]int{}, map[string]bool{}
	next := make(chan *mutant)
	for range max(1, c.workers) {
		wg.Go(func() {
			for m := range next {
				v := r.judge(m)
				key := m.key()
				mu.Lock()
				if _, ok := known[key]; ok {
					used[key] = true
					if v == survived || v == uncovered {
						v = equivalent
					}
				}
				count[v]++
				switch v {
				case survived, uncovered:
					fmt.Printf("%s: %s\n", v, m)
				case killed, timedOut:
					if _, ok := known[key]; ok {
						fmt.Printf("noticed, although %s lists it: %s\n", "mutants.txt", m)
					}
				}
				mu.Unlock()
			}
		})
	}
	for i, m := range mutants {
		next <- m
		if (i+1)%50 == 0 {
			fmt.Fprintf(os.Stderr, "%d of %d\n", i+1, len(mutants))
		}
	}
	close(next)
	wg.Wait()
	if c.only == "." && c.files == "." {
		for _, key := range slices.Sorted(maps.Keys(known)) {
			if !used[key] {
				fmt.Println("mutants.txt lists what is no mutant:", key)
			}
		}
	}
	n := len(mutants) - count[equivalent]
	noticed := count[killed] + count[timedOut]
	fmt.Printf("%d mutants, %d judged equivalent; of the other %d were noticed %d (%d by a timeout), survived %d, not reached %d: %.1f %%\n",
		len(mutants), count[equivalent], n, noticed, count[timedOut], count[survived], count[uncovered], 100*float64(noticed)/float64(max(n, 1)))
	return count[survived] + count[uncovered], nil
}

// readKnown reads mutants.txt: reasons by the keys of mutants. None is no error.
func readKnown(file string) (map[string]string, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	known := map[string]string{}
	for i, line := range strings.Split(string(data), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		cut := strings.LastIndex(line, " -- ")
		if cut < 0 {
			return nil, fmt.Errorf("%s:%d: no reason after \" -- \"", file, i+1)
		}
		known[line[:cut]] = line[cut+4:]
	}
	return known, nil
}

// build builds the test binary with all mutants in it. Mutants on lines that do not compile are dropped.
func (p *pkg) build(temp string) (bin string, err error) {
	bin = filepath.Join(temp, "test")
	for range 30 {
		replace := map[string]string{filepath.Join(p.dir, supportFile): filepath.Join(temp, supportFile)}
		if err := os.WriteFile(filepath.Join(temp, supportFile), support(p.name, len(p.mutants)), 0o600); err != nil {
			return "", err
		}
		for _, f := range p.files {
			mutated := filepath.Join(temp, filepath.Base(f.path))
			if err := os.WriteFile(mutated, f.mutated(), 0o600); err != nil {
				return "", err
			}
			replace[f.path] = mutated
		}
		overlay, err := json.Marshal(map[string]any{"Replace": replace})
		if err != nil {
			return "", err
		}
		overlayFile := filepath.Join(temp, "overlay.json")
		if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
			return "", err
		}
		cmd := exec.Command("go", "test", "-c", "-vet=off", "-gcflags=-e", "-overlay", overlayFile, "-o", bin, ".")
		cmd.Dir = p.dir
		out, err := cmd.CombinedOutput()
		if err == nil {
			return bin, nil
		}
		if !p.drop(out) {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
	}
	return "", errors.New("it does not compile")
}

var compileError = regexp.MustCompile(`(?m)([^\s/:]+\.go):(\d+):\d+: `)

// drop drops the mutants on the lines that the compiler complains about.
func (p *pkg) drop(out []byte) (any bool) {
	for _, e := range compileError.FindAllSubmatch(out, -1) {
		line, _ := strconv.Atoi(string(e[2]))
		for _, m := range p.mutants {
			if !m.dropped && filepath.Base(m.file.path) == string(e[1]) && m.line <= line && line <= m.endLine {
				m.dropped, any = true, true
			}
		}
	}
	return any
}

type verdict string

const (
	killed     verdict = "noticed"
	timedOut   verdict = "timed out"
	survived   verdict = "survived"
	uncovered  verdict = "not reached"
	equivalent verdict = "equivalent"
)

type runner struct {
	config
	dir, bin, temp string
	covering       map[int][]test // mutant to tests
}

// exec runs tests with one mutant, or none, and tells whether they passed, and what processor time that took, which depends less on what else is going on.
func (r *runner) exec(timeout time.Duration, tests, reached string, id int) (passed, late bool, took time.Duration, out []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	args := append(strings.Fields(r.args), "-test.run", tests, "-test.failfast", "-test.timeout", (timeout + 10*time.Second).String())
	cmd := exec.CommandContext(ctx, r.bin, args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "MUTATE_ID="+strconv.Itoa(id), "MUTATE_REACHED="+reached)
	cmd.WaitDelay = 2 * time.Second
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	if s := cmd.ProcessState; s != nil {
		took = s.UserTime() + s.SystemTime()
	}
	return err == nil, ctx.Err() != nil, took, b.Bytes()
}

// cover runs each test by itself without a mutant, and notes what it came by.
func (r *runner) cover(mutants []*mutant) error {
	list := exec.Command(r.bin, "-test.list", r.tests)
	list.Dir = r.dir
	out, err := list.Output()
	if err != nil {
		return err
	}
	r.covering = map[int][]test{}
	for _, name := range strings.Fields(string(out)) {
		if !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Example") && !strings.HasPrefix(name, "Fuzz") {
			continue
		}
		reached := filepath.Join(r.temp, "reached")
		if err := os.WriteFile(reached, nil, 0o600); err != nil {
			return err
		}
		passed, late, took, out := r.exec(r.slowest, "^"+name+"$", reached, 0)
		t := test{name, took}
		switch {
		case late:
			fmt.Printf("left out, because it takes too long: %s\n", name)
			continue
		case !passed:
			fmt.Printf("left out, because it fails without a mutant: %s\n%s\n", name, tail(out, 600))
			continue
		}
		data, err := os.ReadFile(reached)
		if err != nil {
			return err
		}
		seen := map[int]bool{}
		for _, field := range strings.Fields(string(data)) {
			if id, err := strconv.Atoi(field); err == nil && !seen[id] {
				seen[id] = true
				r.covering[id] = append(r.covering[id], t)
			}
		}
	}
	for _, tests := range r.covering {
		slices.SortStableFunc(tests, func(a, b test) int { return int(a.took - b.took) })
	}
	return nil
}

func tail(out []byte, n int) []byte { return out[max(0, len(out)-n):] }

// judge runs the tests that come by a mutant with it: some of the quickest, then more, and more.
func (r *runner) judge(m *mutant) verdict {
	tests := r.covering[m.id]
	if len(tests) == 0 {
		return uncovered
	}
	for n := 4; len(tests) > 0; n *= 3 {
		n = min(n, len(tests))
		var names []string
		var usual time.Duration
		for _, t := range tests[:n] {
			names = append(names, t.name)
			usual += t.took
		}
		tests = tests[n:]
		passed, late, _, _ := r.exec(20*usual+r.slack, "^("+strings.Join(names, "|")+")$", "", m.id)
		switch {
		case late:
			return timedOut
		case !passed:
			return killed
		}
	}
	return survived
}
