// Package docs has no code; its tests keep the pages from naming what is not there.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// slug is what a heading is linked by.
func slug(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ' || r == '-':
			b.WriteByte('-')
		case r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

// anchors are those of a page.
func anchors(page string) map[string]bool {
	found := make(map[string]bool)
	b, _ := os.ReadFile(page)
	for _, m := range regexp.MustCompile(`(?m)^#+ +(.+)$`).FindAllStringSubmatch(string(b), -1) {
		found[slug(m[1])] = true
	}
	return found
}

// TestRunbook checks that each alert links to a section that is there.
func TestRunbook(t *testing.T) {
	b, err := os.ReadFile("../metrics/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	at := anchors("runbook.md")
	links := regexp.MustCompile(`docs/runbook\.md#(\S+)`).FindAllStringSubmatch(string(b), -1)
	if n := strings.Count(string(b), "- alert:"); n == 0 || n != len(links) {
		t.Errorf("%d alerts, %d links", n, len(links))
	}
	for _, m := range links {
		if !at[m[1]] {
			t.Errorf("the runbook has no section %s", m[1])
		}
	}
}

// TestPages checks the links between pages and files, and that each test and file that a page names exists.
func TestPages(t *testing.T) {
	tests, files := make(map[string]bool), make(map[string]bool)
	var pages []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files[d.Name()] = true
		switch {
		case d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".."):
			return filepath.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`).FindAllStringSubmatch(string(b), -1) {
				tests[m[1]] = true
			}
		case strings.HasSuffix(path, ".md"):
			pages = append(pages, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]+))?[^)]*\)`).FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			to := page
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			} else if m[2] != "" && !anchors(to)[m[2]] {
				t.Errorf("%s links to %s#%s, which is not there", page, m[1], m[2])
			}
		}
		for _, m := range regexp.MustCompile("`(\\w+\\.(?:go|md|yml|lua))`").FindAllStringSubmatch(string(b), -1) {
			if !files[m[1]] {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
		for _, m := range regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`").FindAllStringSubmatch(string(b), -1) {
			if !tests[m[1]] {
				t.Errorf("%s names %s, which is no test", page, m[1])
			}
		}
		for _, m := range regexp.MustCompile("`([\\w*-]+\\.txt)`").FindAllStringSubmatch(string(b), -1) {
			if found, _ := filepath.Glob(filepath.Join("../testdata/rules", m[1])); found == nil && strings.HasPrefix(page, "../docs/") {
				t.Errorf("%s names %s, which is no scenario", page, m[1])
			}
		}
		for _, m := range regexp.MustCompile("`((?:testdata/|docs/|examples/|store/|cmd/)[\\w./*-]+)`").FindAllStringSubmatch(string(b), -1) {
			for _, from := range []string{"..", filepath.Dir(page)} {
				if found, _ := filepath.Glob(filepath.Join(from, m[1])); found != nil {
					m = nil
					break
				}
			}
			if m != nil {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
	}
}

// TestEveryEventIsExplained checks that the guide for hosts says of each event where it is raised.
func TestEveryEventIsExplained(t *testing.T) {
	src, err := os.ReadFile("../events.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("hosts.md")
	if err != nil {
		t.Fatal(err)
	}
	events := regexp.MustCompile(`(?m)^func \((?:\w+ )?(\w+)\) Name\(\)`).FindAllStringSubmatch(string(src), -1)
	if len(events) < 20 {
		t.Fatalf("only %d events found", len(events))
	}
	for _, m := range events {
		if !regexp.MustCompile("(?m)^\\| [^|]*`" + m[1] + "`[^|]*\\|").Match(page) {
			t.Errorf("hosts.md has no row for %s", m[1])
		}
	}
}
