// Package deadline is a queue of things by the time at which something is due for them.
package deadline

import (
	"container/heap"
	"time"
)

// Item is what a Queue holds; embed it. The zero Item is in no queue.
type Item struct {
	at    int64 // nanoseconds since 1970
	seq   uint64
	index int // in the heap, plus one
}

func (i *Item) item() *Item { return i }

// At returns when the item is due; zero while it is in no queue.
func (i *Item) At() time.Time {
	if i.index == 0 {
		return time.Time{}
	}
	return time.Unix(0, i.at)
}

// Entry is a pointer to a struct that embeds Item.
type Entry interface {
	comparable
	item() *Item
}

// Queue orders entries by time, and those of one time by when they were set to it. The zero Queue is empty. Not safe for simultaneous use.
type Queue[E Entry] struct {
	h   entries[E]
	seq uint64
}

// Set puts e into the queue, or moves it there. A zero time takes it out.
func (q *Queue[E]) Set(e E, at time.Time) {
	it := e.item()
	switch {
	case at.IsZero():
		if it.index > 0 {
			heap.Remove(&q.h, it.index-1)
		}
	case it.index > 0 && it.at == at.UnixNano():
	default:
		q.seq++
		it.at, it.seq = at.UnixNano(), q.seq
		if it.index > 0 {
			heap.Fix(&q.h, it.index-1)
		} else {
			heap.Push(&q.h, e)
		}
	}
}

// Next returns when the first entry is due; zero if there is none.
func (q *Queue[E]) Next() time.Time {
	if len(q.h) == 0 {
		return time.Time{}
	}
	return q.h[0].item().At()
}

// Pop takes out the first entry if it is due at now.
func (q *Queue[E]) Pop(now time.Time) (e E, ok bool) {
	if len(q.h) == 0 || now.UnixNano() < q.h[0].item().at {
		return e, false
	}
	return heap.Pop(&q.h).(E), true
}

// Len is the number of entries.
func (q *Queue[E]) Len() int { return len(q.h) }

type entries[E Entry] []E

func (h entries[E]) Len() int { return len(h) }
func (h entries[E]) Less(i, j int) bool {
	a, b := h[i].item(), h[j].item()
	if a.at == b.at {
		return a.seq < b.seq
	}
	return a.at < b.at
}
func (h entries[E]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].item().index, h[j].item().index = i+1, j+1
}
func (h *entries[E]) Push(x any) {
	e := x.(E)
	*h = append(*h, e)
	e.item().index = len(*h)
}
func (h *entries[E]) Pop() any {
	old := *h
	e := old[len(old)-1]
	var none E
	old[len(old)-1] = none
	*h = old[:len(old)-1]
	if len(*h) < cap(*h)/4 && cap(*h) > 16 { // what was needed once is given back
		*h = append(make(entries[E], 0, 2*len(*h)), *h...)
	}
	e.item().index = 0
	return e
}
