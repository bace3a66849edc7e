// Package docs has no code; its tests keep the pages from naming what is not there.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPages checks the links between pages and files, and that each test that a page names exists.
func TestPages(t *testing.T) {
	tests := make(map[string]bool)
	var pages []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
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
		for _, m := range regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`).FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
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
