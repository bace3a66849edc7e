// Package page reads docs/metrics.md, for the tests that compare it with what the exporters tell.
package page

import (
	"os"
	"slices"
	"strings"
)

// Row is a metric of the page. One that an exporter does not have has an empty name there.
type Row struct {
	Prometheus, OpenTelemetry, Kind, Unit string
	Labels                                []string // sorted
	Answers                               string
}

// Attributes are those of OpenTelemetry that labels have there, if they are not "push." and the label.
type Attributes map[string]string

// Of returns the attribute of a label.
func (a Attributes) Of(label string) string {
	if to, ok := a[label]; ok {
		return to
	}
	return "push." + label
}

// Read reads the page.
func Read(path string) (rows []Row, attributes Attributes, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	attributes = make(Attributes)
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case len(cells) == 6 && strings.HasPrefix(cells[0], "`"):
			r := Row{name(cells[0]), name(cells[1]), cells[2], cells[3], nil, cells[5]}
			for l := range strings.SplitSeq(cells[4], ", ") {
				if l != "" {
					r.Labels = append(r.Labels, name(l))
				}
			}
			slices.Sort(r.Labels)
			rows = append(rows, r)
		case len(cells) == 2 && strings.HasPrefix(cells[0], "`") && strings.HasPrefix(cells[1], "`") && strings.Count(line, "`") == 4 && !strings.HasPrefix(cells[0], "`push_"):
			attributes[name(cells[0])] = name(cells[1])
		}
	}
	return rows, attributes, nil
}

func name(cell string) string { return strings.Trim(cell, "`") }
