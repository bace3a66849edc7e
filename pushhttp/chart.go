package pushhttp

import (
	"fmt"
	"strconv"
	"time"

	"github.com/xmpp-push/push"
)

// chart is stacked bars, the newest at the right, with times below and numbers at the left.
type chart struct {
	Title  string  `json:"title"`
	Layers []layer `json:"layers"`
	Bars   []bar   `json:"bars"`
	Ticks  []tick  `json:"-"` // times
	Lines  []tick  `json:"-"` // numbers
	Unit   string  `json:"unit"`
	Width  float64 `json:"-"`
	Empty  bool    `json:"-"`
	Says   string  `json:"-"` // all of it in a sentence, for those who do not see it
}

type layer struct {
	Name  string `json:"name"`
	Class string `json:"-"`
	Total uint64 `json:"total"`
}

// bar is one time's, its parts from the bottom.
type bar struct {
	At    time.Time `json:"at"`
	Span  int       `json:"seconds"`
	Parts []part    `json:"-"`
	Of    []uint32  `json:"of"` // by layer
	X, W  float64   `json:"-"`
	Tip   string    `json:"-"`
}

type part struct {
	Y, H  float64
	Class string
}

type tick struct {
	Pos  float64
	Text string
	At   time.Time
}

const (
	chartHeight = 100
	barWidth    = 8
	together    = 3 // slots to a bar
)

// draw makes a chart of bars that have their times and numbers.
func draw(title, unit string, layers []layer, bars []bar, tickEvery time.Duration) chart {
	c := chart{Title: title, Unit: unit, Layers: layers, Bars: bars, Width: float64(len(bars) * barWidth)}
	var top uint32
	for i := range bars {
		var sum uint32
		for j, n := range bars[i].Of {
			sum += n
			c.Layers[j].Total += uint64(n)
		}
		top = max(top, sum)
	}
	c.Empty = top == 0
	steps := round(top)
	high := float64(steps[len(steps)-1])
	for _, s := range steps {
		c.Lines = append(c.Lines, tick{Pos: chartHeight - float64(s)/high*chartHeight, Text: strconv.Itoa(int(s))})
	}
	for i := range bars {
		b := &c.Bars[i]
		b.X, b.W = float64(i*barWidth)+1, barWidth-2
		y := float64(chartHeight)
		b.Tip = ""
		for j, n := range b.Of {
			if n == 0 {
				continue
			}
			h := float64(n) / high * chartHeight
			y -= h
			b.Parts = append(b.Parts, part{y, h, layers[j].Class})
			b.Tip += fmt.Sprintf(", %d %s", n, layers[j].Name)
		}
		if mod(b.At.Unix(), int64(tickEvery/time.Second)) < int64(b.Span) {
			c.Ticks = append(c.Ticks, tick{Pos: b.X / c.Width * 100, At: b.At.Truncate(tickEvery)})
		}
	}
	for i, l := range c.Layers {
		if i > 0 {
			c.Says += ", "
		}
		c.Says += fmt.Sprintf("%d %s", l.Total, l.Name)
	}
	return c
}

// round returns numbers for an axis that goes up to top.
func round(top uint32) []uint32 {
	if top <= 2 {
		return axis(1, max(top, 1))
	}
	for step := uint32(1); ; step *= 10 {
		for _, f := range []uint32{1, 2, 5} {
			if step*f*4 >= top {
				return axis(step*f, top)
			}
		}
	}
}

func axis(step, top uint32) (out []uint32) {
	for n := uint32(0); ; n += step {
		out = append(out, n)
		if n >= top {
			return out
		}
	}
}

// slotBars are the bars of slots; values gives the numbers of one.
func slotBars(slots []slot, layers int, values func(*slot, []uint32)) []bar {
	bars := make([]bar, len(slots)/together)
	v := make([]uint32, layers)
	for i := range bars {
		b := &bars[i]
		b.At, b.Span, b.Of = time.Unix(0, slots[i*together].start*int64(slotTime)).UTC(), together*int(slotTime/time.Second), make([]uint32, layers)
		for j := range slots[i*together : (i+1)*together] {
			clear(v)
			values(&slots[i*together+j], v)
			for k, n := range v {
				b.Of[k] += n
			}
		}
	}
	return bars
}

func decisionsChart(slots []slot) chart {
	return draw("Decisions", "in 15 s", []layer{{Name: "to notify", Class: "good"}, {Name: "not to", Class: "dim"}},
		slotBars(slots, 2, func(s *slot, v []uint32) { v[0], v[1] = s.yes, s.no }), 5*time.Minute)
}

func publishesChart(slots []slot) chart {
	return draw("Replies of push services", "in 15 s", replyLayers(), slotBars(slots, 3, func(s *slot, v []uint32) { replies(&s.outcomes, v) }), 5*time.Minute)
}

func replyLayers() []layer {
	return []layer{{Name: "accepted", Class: "good"}, {Name: "tried again", Class: "wait"}, {Name: "failed", Class: "bad"}}
}

func replies(o *[push.OutcomeDropped + 1]uint32, v []uint32) {
	v[0] = o[push.OutcomeAccepted]
	v[1] = o[push.OutcomeTransient] + o[push.OutcomeTooBig]
	v[2] = o[push.OutcomeFatal] + o[push.OutcomeRefused] + o[push.OutcomeFailed]
}

// serviceChart is the last hour of a push service, in minutes.
func serviceChart(s *service, now time.Time) chart {
	bars := make([]bar, minuteCount)
	for i := range bars {
		b := &bars[i]
		ago := minuteCount - 1 - i
		b.At, b.Span, b.Of = now.UTC().Truncate(time.Minute).Add(-time.Duration(ago)*time.Minute), 60, make([]uint32, 3)
		if m := s.at(now, ago); m != nil {
			replies(&m.outcomes, b.Of)
		}
	}
	return draw("Replies", "a minute", replyLayers(), bars, 15*time.Minute)
}
