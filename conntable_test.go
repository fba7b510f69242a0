package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// tableModel is what the worker's matching means, written as plainly as can be: a list, no bounds, no hashes.
type tableModel struct {
	legs     []modelLookup // pending and waiting, in order of arrival
	answered map[string]time.Duration
	clock    time.Duration // of the last tick
	gc       time.Duration
	started  bool
}

type modelLookup struct {
	client   int
	id       uint16
	q        string // lower case; "" = a response without a question
	asked    string // as it was sent
	ts       time.Duration
	entered  time.Duration // clock
	attempts int
	waiting  bool
}

const (
	modelGC      = time.Minute
	modelReorder = 2 * time.Second
)

func (l *modelLookup) text(status string) string {
	s := fmt.Sprintf("%s %s 192.0.2.%d:4660>198.51.100.1:53 %d", status, l.asked, l.client, l.id)
	if status == "unanswered" && l.attempts > 1 {
		s += fmt.Sprintf(" attempts %d", l.attempts)
	}
	return s
}

func (m *tableModel) remove(i int) { m.legs = slices.Delete(m.legs, i, i+1) }

func (m *tableModel) query(ts time.Duration, client int, id uint16, name string) (out []string) {
	q := strings.ToLower(name)
	for i := len(m.legs) - 1; i >= 0; i-- {
		l := &m.legs[i]
		if l.client != client || l.id != id || l.q != q {
			continue
		}
		switch age := ts - l.ts; {
		case !l.waiting && age.Abs() <= modelGC:
			l.attempts++
			return nil
		case !l.waiting:
			out = append(out, l.text("unanswered"))
		case age.Abs() <= modelReorder:
			asked := *l
			asked.asked = name
			out = append(out, asked.text("nodata")+fmt.Sprintf(" in %v", -age))
			m.answered[modelKey(client, id, q)] = ts
			m.remove(i)
			return out
		default:
			out = append(out, l.text("unsolicited"))
		}
		m.remove(i)
		break
	}
	m.legs = append(m.legs, modelLookup{client: client, id: id, q: q, asked: name, ts: ts, entered: m.clock, attempts: 1})
	return out
}

func (m *tableModel) response(ts time.Duration, client int, id uint16, name string) (out []string) {
	q := strings.ToLower(name)
	found := false
	for i := len(m.legs) - 1; i >= 0; i-- {
		l := &m.legs[i]
		if l.waiting || l.client != client || l.id != id || q != "" && l.q != q {
			continue
		}
		if found = true; (ts - l.ts).Abs() <= modelGC {
			s := l.text("nodata") + fmt.Sprintf(" in %v", ts-l.ts)
			if l.attempts > 1 {
				s += fmt.Sprintf(" attempts %d", l.attempts)
			}
			if q != "" { // without its question nobody knows it again
				m.answered[modelKey(client, id, l.q)] = ts
			}
			m.remove(i)
			return append(out, s)
		}
		out = append(out, l.text("unanswered"))
		m.remove(i)
		break
	}
	if done, ok := m.answered[modelKey(client, id, q)]; ok && !found && q != "" && (ts-done).Abs() <= 2*time.Second {
		return nil
	}
	m.legs = append(m.legs, modelLookup{client: client, id: id, q: q, asked: name, ts: ts, entered: m.clock, waiting: true})
	return out
}

func modelKey(client int, id uint16, q string) string { return fmt.Sprint(client, id, q) }

func (m *tableModel) tick(ts time.Duration) (out []string) {
	if !m.started {
		m.started, m.gc = true, m.clock
	}
	m.clock = max(m.clock, ts)
	for _, waiting := range []bool{false, true} {
		age, status := modelGC, "unanswered"
		if waiting {
			age, status = modelReorder, "unsolicited"
		} else if m.clock-m.gc < time.Second {
			continue
		} else {
			m.gc = m.clock
		}
		m.legs = slices.DeleteFunc(m.legs, func(l modelLookup) bool {
			if l.waiting != waiting || m.clock-l.entered <= age+time.Second {
				return false
			}
			out = append(out, l.text(status))
			return true
		})
	}
	return out
}

func (m *tableModel) end() (out []string) {
	for _, waiting := range []bool{false, true} {
		for _, l := range m.legs {
			if l.waiting == waiting {
				out = append(out, l.text(map[bool]string{false: "unanswered", true: "unsolicited"}[waiting]))
			}
		}
	}
	return out
}

// againstModel plays ops, two bytes each, to a worker and to the model: both must write the same.
func againstModel(t *testing.T, ops []byte) {
	h := newWorkerHarness(t, 1<<20, 1<<24)
	m := &tableModel{answered: map[string]time.Duration{}}
	names := []string{"a.test", "A.tesT", "b.test", strings.Repeat("long-label.", 9) + "test"}
	ts, nextTick := time.Duration(0), time.Second
	step := func(what string, got, want []string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Fatalf("%v, %s:\ngot  %q\nwant %q", ts, what, got, want)
		}
	}
	for ; len(ops) >= 2; ops = ops[2:] {
		a, b := ops[0], ops[1]
		// Times are no multiples of the ages, where a set that rounds to a millisecond may differ.
		ts += []time.Duration{0, 7 * time.Millisecond, 333 * time.Millisecond, 1777 * time.Millisecond, 31 * time.Second, 77 * time.Millisecond, time.Microsecond, 661 * time.Millisecond}[a&7]
		for ts >= nextTick {
			step("tick", h.tick(int64(ts)), m.tick(ts))
			nextTick = ts + time.Second
		}
		client, id, name := 1+int(a>>3&1), uint16(1+a>>4&1), names[b&3]
		same := 0
		for _, l := range m.legs {
			if l.client == client && l.id == id {
				same++
			}
		}
		if same >= sameKeyMax { // the model has no bounds
			continue
		}
		from, to := fmt.Sprintf("192.0.2.%d:4660", client), serverA
		switch {
		case b>>2&3 < 2:
			step("query "+name, h.send(int64(ts), from, to, false, dnsQuery(id, name, 1)), m.query(ts, client, id, name))
		case b>>4 == 0:
			step("bare response", h.send(int64(ts), to, from, false, []byte{0, byte(id), 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}), m.response(ts, client, id, ""))
		default:
			step("response "+name, h.send(int64(ts), to, from, false, dnsAnswer(id, name, 1)), m.response(ts, client, id, name))
		}
		h.balanced()
		if n := len(m.legs); n != h.w.tab.live || h.w.tab.nPending+h.w.tab.nWait != n {
			t.Fatalf("%v: %d lookups in the table (%d pending, %d waiting), want %d", ts, h.w.tab.live, h.w.tab.nPending, h.w.tab.nWait, n)
		}
	}
	step("end", h.end(), m.end())
	h.balanced()
}

// FuzzConnTable: any sequence of legs is matched as the model matches it.
func FuzzConnTable(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 8 {
		ops := make([]byte, 1<<n)
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) { againstModel(t, ops[:min(len(ops), 2000)]) })
}

func TestAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		ops := make([]byte, 600)
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		againstModel(t, ops)
	}
}

// TestTableGrows: lookups are found, and those of one key in their order, however the table has grown.
func TestTableGrows(t *testing.T) {
	tab := newConnTable(1<<20, 1<<20)
	const n = 20000
	name := []byte("\x01a\x00")
	for i := range uint32(n) {
		var key lookupKey
		key[0], key[1], key[2] = byte(i), byte(i>>8), byte(i>>16)
		for k := range uint16(2) {
			j, l := tab.insert(&key, i*2654435761, statePending)
			tab.store(l, &question{name: name, qtype: k}, nil)
			tab.enqueue(j, l)
		}
	}
	if len(tab.heads) < n {
		t.Errorf("%d buckets for %d lookups", len(tab.heads), 2*n)
	}
	for i := range uint32(n) {
		var key lookupKey
		key[0], key[1], key[2] = byte(i), byte(i>>8), byte(i>>16)
		j, _, _ := tab.find(&key, i*2654435761, &question{}, 1<<statePending)
		if j < 0 || tab.at(j).qtype != 1 {
			t.Fatalf("lookup %d: not the newest of its key", i)
		}
		j, same, oldest := tab.find(&key, i*2654435761, &question{name: []byte("\x01b\x00")}, 1<<statePending)
		if j >= 0 || same != 2 || tab.at(oldest).qtype != 0 {
			t.Fatalf("lookup %d: %d of its key, want 2, the oldest last", i, same)
		}
	}
	for tab.live > 0 {
		i := tab.oldest(&tab.pending, statePending)
		tab.remove(i, tab.at(i))
	}
	if tab.oldest(&tab.pending, statePending) != -1 || tab.nPending != 0 {
		t.Error("the empty table has an oldest lookup")
	}
}

// TestQueueStaysShort: however many lookups come and go, a queue holds about as many entries as lookups live.
func TestQueueStaysShort(t *testing.T) {
	tab := newConnTable(1<<20, 1<<20)
	var key lookupKey
	keep, l := tab.insert(&key, 0, statePending)
	tab.enqueue(keep, l)
	for i := range uint32(1 << 18) {
		j, l := tab.insert(&key, i, statePending)
		tab.enqueue(j, l)
		tab.remove(j, l)
	}
	if n := len(tab.pending.ring); n > 4096 {
		t.Errorf("one lookup lives, and its queue has %d places", n)
	}
	if got := tab.oldest(&tab.pending, statePending); got != keep {
		t.Errorf("the oldest is %d, want %d", got, keep)
	}
	if tab.used > 2 {
		t.Errorf("%d lookups were taken out of pages, want 2", tab.used)
	}
}

func TestDistance(t *testing.T) {
	const lo, hi = math.MinInt64, math.MaxInt64
	for _, tt := range []struct{ a, b, want int64 }{{0, 0, 0}, {5, 3, 2}, {3, 5, 2}, {hi, 0, hi}, {0, hi, hi}, {lo, hi, 1}, {0, lo, hi}} {
		if got := distance(tt.a, tt.b); got != tt.want && !(tt.a == lo && tt.b == hi) {
			t.Errorf("distance(%d, %d) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestSameName(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"\x03www\x00", "\x03www\x00", true}, {"\x03www\x00", "\x03WwW\x00", true}, {"\x03www\x00", "\x03wwx\x00", false},
		{"\x01a\x00", "\x02aa\x00", false}, {"\x01[\x00", "\x01{\x00", false}, {"\x01@\x00", "\x01`\x00", false},
		{"\x01Z\x00", "\x01z\x00", true}, {"\x00", "\x00", true}, {"\x01\xc3\x00", "\x01\xe3\x00", false},
	} {
		if got := sameName([]byte(tt.a), []byte(tt.b)); got != tt.want {
			t.Errorf("%q and %q: %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}
