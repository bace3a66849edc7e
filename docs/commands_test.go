package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// command is what a page tells its reader to run.
type command struct {
	page string
	dir  string // where it runs, from here
	args []string
}

// commands are those that begin with go, of code blocks and of code in a line. Variables before them, quotes and what follows a # are left out.
func commands(t *testing.T, page string) (cs []command) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)(?:^|`)(?:[A-Z_]+=\\S+ )*(go (?:run|test|vet|generate|doc) [^`\n#]*)").FindAllStringSubmatch(string(b), -1) {
		args := strings.Fields(strings.NewReplacer("'", "", `"`, "").Replace(strings.Split(m[1], " | ")[0]))
		cs = append(cs, command{page, filepath.Dir(page), args})
	}
	return cs
}

// TestCommands checks of each go command that a page shows what can be known without running it: the packages are there, a test or benchmark matches, and the flags
// of the repository's own programs are among theirs.
func TestCommands(t *testing.T) {
	functions := make(map[string][]string) // by Test, Benchmark, …
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func (Test|Fuzz|Benchmark|Example)(\w*)\(`).FindAllStringSubmatch(string(b), -1) {
			functions[m[1]] = append(functions[m[1]], m[1]+m[2])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	matches := func(pattern string, kinds ...string) bool {
		first, _, _ := strings.Cut(pattern, "/")
		re, err := regexp.Compile(first)
		return err == nil && slices.ContainsFunc(kinds, func(k string) bool { return slices.ContainsFunc(functions[k], re.MatchString) })
	}
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, page := range append(pages, "../README.md", "../CONTRIBUTING.md", "../pushhttp/README.md", "../store/sql/README.md") {
		for _, c := range commands(t, page) {
			total++
			if filepath.Dir(page) == "." {
				c.dir = ".." // pages of docs/ are read from the repository's folder
			}
			line := strings.Join(c.args, " ")
			// A page says in words where, if that is not the repository's folder or its own.
			there := func(path string) bool {
				return slices.ContainsFunc([]string{c.dir, "..", "../cluster/jetstream"}, func(dir string) bool {
					_, err := os.Stat(filepath.Join(dir, strings.TrimSuffix(path, "/...")))
					return err == nil
				})
			}
			for i, a := range c.args[2:] {
				next := ""
				if i+3 < len(c.args) {
					next = c.args[i+3]
				}
				switch {
				case strings.HasPrefix(a, "./") && !strings.HasSuffix(a, ".test") && !there(a) && c.args[1] != "doc":
					t.Errorf("%s: %s: %s is not there", page, line, a)
				case a == "-bench" && next != "." && !matches(next, "Benchmark"):
					t.Errorf("%s: %s: no benchmark is %s", page, line, next)
				case a == "-run" && next != "^$" && next != "NAME" && !matches(next, "Test", "Fuzz", "Example"):
					t.Errorf("%s: %s: no test is %s", page, line, next)
				}
			}
			if c.args[1] != "run" {
				continue
			}
			// The program is the first argument that is a folder; flags after it are its own.
			at := slices.IndexFunc(c.args, func(a string) bool { return strings.HasPrefix(a, "./") })
			if at < 0 {
				continue
			}
			sources, _ := filepath.Glob(filepath.Join(c.dir, c.args[at], "*.go"))
			for _, a := range c.args[at+1:] {
				if !strings.HasPrefix(a, "-") {
					continue
				}
				name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
				defined := slices.ContainsFunc(sources, func(f string) bool {
					b, _ := os.ReadFile(f)
					return regexp.MustCompile(`(?:Var|Bool|Int|String|Duration|Float64|Func)\((?:&?[\w.]+, )?"` + regexp.QuoteMeta(name) + `"`).Match(b)
				})
				if !defined {
					t.Errorf("%s: %s: there is no flag -%s", page, line, name)
				}
			}
		}
	}
	if total < 20 {
		t.Errorf("only %d commands were found", total)
	}
}
