package pushhttp

import "github.com/xmpp-push/push"

// chart is stacked bars, the newest at the right.
type chart struct {
	Title  string
	Layers []layer
	Top    string // the highest bar, a second
	Bars   []bar
	Span   string
	Width  int
	Empty  bool
}

type layer struct{ Name, Class string }

// bar is a rectangle of the chart, in its own units.
type bar struct {
	X, Y, W, H float64
	Class      string
}

const (
	chartHeight = 60
	barWidth    = 4
	together    = 3 // slots to a bar
)

// makeChart draws layers; values gives those of a slot.
func makeChart(title string, slots []slot, layers []layer, values func(*slot, []uint32)) chart {
	c := chart{Title: title, Layers: layers, Width: len(slots) / together * barWidth, Span: span(slotTime * slotCount)}
	sums := make([][]uint32, len(slots)/together)
	var top uint32
	v := make([]uint32, len(layers))
	for i := range sums {
		sums[i] = make([]uint32, len(layers))
		var all uint32
		for _, s := range slots[i*together : (i+1)*together] {
			clear(v)
			values(&s, v)
			for j, n := range v {
				sums[i][j] += n
				all += n
			}
		}
		top = max(top, all)
	}
	c.Top = rate(float64(top)/slotTime.Seconds()/together) + "/s"
	c.Empty = top == 0
	for i := range sums {
		y := float64(chartHeight)
		for j, n := range sums[i] {
			if n == 0 {
				continue
			}
			h := max(float64(n)/float64(top)*(chartHeight-2), 1)
			y -= h
			c.Bars = append(c.Bars, bar{float64(i * barWidth), y, barWidth - 1, h, layers[j].Class})
		}
	}
	return c
}

func decisionsChart(slots []slot) chart {
	return makeChart("Decisions", slots, []layer{{"notify", "good"}, {"do not", "dim"}}, func(s *slot, v []uint32) { v[0], v[1] = s.yes, s.no })
}

func publishesChart(slots []slot) chart {
	return makeChart("Replies", slots, []layer{{"accepted", "good"}, {"tried again", "wait"}, {"failed", "bad"}}, func(s *slot, v []uint32) {
		o := &s.outcomes
		v[0] = o[push.OutcomeAccepted]
		v[1] = o[push.OutcomeTransient] + o[push.OutcomeTooBig]
		v[2] = o[push.OutcomeFatal] + o[push.OutcomeRefused] + o[push.OutcomeFailed]
	})
}
