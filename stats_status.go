package main

// stats_status.go writes status records: lines among the records that say how much was seen, lost and written up to
// there, so that whoever reads the log later knows what it misses.
//
// In: a snapshot of the account, at every -status_interval and at the end of the run.
// Out: one JSON line, and the same as a msgpack map, appended to the output goroutine's batch.
//
// Rules: a status record has "type":"status" first; no other record has a field "type". The interval is packet time, and
// a chunk ends where a status record is due, so that reading a capture again gives the same bytes at the same places
// whatever -numprocs is. Therefore it holds nothing that depends on the clock or on how far a sink has come; of the
// sinks only what they lost, and of the account not what hangs on the random keys of the hashes.

import (
	"strconv"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// statusWriter encodes status records. One goroutine owns it.
type statusWriter struct {
	sensor, version string

	written  bool // a status record was written before
	prevTs   int64
	prev     []uint64 // the account at the last status record, by index of counterTable
	now      []uint64
	ts       int64
	uptime   float64 // seconds of packet time since the first packet
	interval float64 // and since the last status record
	sinks    []sinkStats
}

func newStatusWriter(sensor, version string) *statusWriter {
	return &statusWriter{sensor: sensor, version: version, prev: make([]uint64, len(counterTable)), now: make([]uint64, len(counterTable))}
}

// take makes s, at packet time ts, the account to encode.
func (w *statusWriter) take(s *snapshot, ts int64) {
	w.prev, w.now = w.now, w.prev
	for i := range counterTable {
		w.now[i] = counterTable[i].get(s)
	}
	if !w.written {
		w.prevTs = s.capture.firstTs
		w.written = true
	} else {
		w.prevTs = w.ts
	}
	w.ts = ts
	w.uptime = seconds(ts, s.capture.firstTs)
	w.interval = seconds(ts, w.prevTs)
	w.sinks = s.sinks
}

// seconds is the packet time from one moment to another in whole milliseconds; 0 where the clock was set back.
func seconds(to, from int64) float64 {
	if to < from {
		return 0
	}
	return float64((uint64(to)-uint64(from))/1e6) / 1e3
}

// appendJSON appends the status record of s at packet time ts (ns) as a JSON line.
func (w *statusWriter) appendJSON(dst []byte, s *snapshot, ts int64) []byte {
	w.take(s, ts)
	b := append(dst, `{"type":"status","tstamp":"`...)
	b = w.appendTime(b)
	b = append(b, `","sensor":"`...)
	b = appendJSONText(b, w.sensor)
	b = append(b, `","version":"`...)
	b = appendJSONText(b, w.version)
	b = append(b, `","uptime":`...)
	b = strconv.AppendFloat(b, w.uptime, 'f', -1, 64)
	b = append(b, `,"interval":`...)
	b = strconv.AppendFloat(b, w.interval, 'f', -1, 64)
	w.groups(func(group string, n int, each func(item func(name string, n uint64))) {
		b = append(b, `,"`...)
		b = append(b, group...)
		b = append(b, `":{`...)
		sep := ""
		each(func(name string, n uint64) {
			b = append(b, sep...)
			b = append(b, '"')
			b = append(b, name...)
			b = append(b, `":`...)
			b = appendUint(b, n)
			sep = ","
		})
		b = append(b, '}')
	})
	b = append(b, `,"sinks":{`...)
	for i := range w.sinks {
		q := &w.sinks[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, q.name...)
		b = append(b, `":{"dropped":`...)
		b = appendUint(b, q.dropped)
		b = append(b, `,"failed":`...)
		b = appendUint(b, q.failed)
		b = append(b, '}')
	}
	return append(b, "}}\n"...)
}

// appendMsgpack appends the record that appendJSON encoded last, as a map with the same fields.
func (w *statusWriter) appendMsgpack(b []byte) []byte {
	b = msgp.AppendMapHeader(b, 10)
	text := func(name, value string) {
		b = msgp.AppendString(b, name)
		b = msgp.AppendString(b, value)
	}
	text("type", "status")
	text("tstamp", string(w.appendTime(nil)))
	text("sensor", w.sensor)
	text("version", w.version)
	b = msgp.AppendString(b, "uptime")
	b = msgp.AppendFloat64(b, w.uptime)
	b = msgp.AppendString(b, "interval")
	b = msgp.AppendFloat64(b, w.interval)
	w.groups(func(group string, n int, each func(item func(name string, n uint64))) {
		b = msgp.AppendString(b, group)
		b = msgp.AppendMapHeader(b, uint32(n))
		each(func(name string, n uint64) {
			b = msgp.AppendString(b, name)
			b = msgp.AppendUint64(b, n)
		})
	})
	b = msgp.AppendString(b, "sinks")
	b = msgp.AppendMapHeader(b, uint32(len(w.sinks)))
	for i := range w.sinks {
		q := &w.sinks[i]
		b = msgp.AppendString(b, q.name)
		b = msgp.AppendMapHeader(b, 2)
		b = msgp.AppendString(b, "dropped")
		b = msgp.AppendUint64(b, q.dropped)
		b = msgp.AppendString(b, "failed")
		b = msgp.AppendUint64(b, q.failed)
	}
	return b
}

// groups calls f for the objects totals, deltas and gauges, with their number of items. Deltas are since the last status
// record, and only those that are not zero.
func (w *statusWriter) groups(f func(group string, n int, each func(item func(name string, n uint64)))) {
	kinds := [...]struct {
		group string
		value func(i int) (n uint64, in bool)
	}{
		{"totals", func(i int) (uint64, bool) { return w.now[i], !counterTable[i].gauge && !counterTable[i].chance }},
		{"deltas", func(i int) (uint64, bool) {
			return w.now[i] - w.prev[i], !counterTable[i].gauge && !counterTable[i].chance && w.now[i] != w.prev[i]
		}},
		{"gauges", func(i int) (uint64, bool) { return w.now[i], counterTable[i].gauge }},
	}
	for _, k := range kinds {
		n := 0
		for i := range counterTable {
			if _, in := k.value(i); in {
				n++
			}
		}
		f(k.group, n, func(item func(string, uint64)) {
			for i := range counterTable {
				if n, in := k.value(i); in {
					item(counterTable[i].name, n)
				}
			}
		})
	}
}

func (w *statusWriter) appendTime(b []byte) []byte {
	return time.Unix(0, w.ts).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
}

// statusTick notes, at a tick at packet time ts, whether a status record is due: then the current chunk ends with the
// frame that brought the tick. The times at which one is due are an interval apart, so that ticks that come a little late do
// not make the interval longer. Called before started is set by the first tick.
func (f *feeder) statusTick(ts int64) {
	late := uint64(ts) - uint64(f.nextStatus) // where ts is not before it
	switch {
	case !f.started || ts < f.nextStatus && -late > uint64(f.statusNs)+uint64(tickNs): // the first frame, or the clock was set back
		late = 0
		f.nextStatus = ts
	case ts < f.nextStatus:
		return
	default:
		f.cur.statusDue, f.cur.statusTs = true, ts
		f.cur.total = viewsPerChunk // full
	}
	step := f.statusNs - int64(late%uint64(f.statusNs))
	if f.nextStatus = ts + step; f.nextStatus < ts {
		f.nextStatus = 1<<63 - 1
	}
}
