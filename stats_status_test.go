package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tinylib/msgp/msgp"

	"gopassivedns/testdata/bench/wire"
)

// statusRecord is a status record as a reader of the log decodes it.
type statusRecord struct {
	Type     string                       `json:"type"`
	Tstamp   string                       `json:"tstamp"`
	Sensor   string                       `json:"sensor"`
	Version  string                       `json:"version"`
	Uptime   float64                      `json:"uptime"`
	Interval float64                      `json:"interval"`
	Totals   map[string]uint64            `json:"totals"`
	Deltas   map[string]uint64            `json:"deltas"`
	Gauges   map[string]uint64            `json:"gauges"`
	Sinks    map[string]map[string]uint64 `json:"sinks"`
}

// statusRecords decodes the status records among lines; every other line must be a record without a type.
func statusRecords(t *testing.T, lines string) (status []statusRecord, records int) {
	t.Helper()
	for line := range strings.Lines(lines) {
		if !strings.HasPrefix(line, `{"type":"status",`) {
			var r map[string]any
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("not JSON: %v: %q", err, line)
			}
			if _, ok := r["type"]; ok {
				t.Fatalf("a record with a type: %s", line)
			}
			records++
			continue
		}
		var s statusRecord
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&s); err != nil {
			t.Fatalf("status record: %v: %q", err, line)
		}
		status = append(status, s)
	}
	return status, records
}

// queriesCapture writes a capture of n queries, a millisecond apart from 2023-11-14T22:13:20Z on. Where answered is true each
// has a response 100 µs later.
func queriesCapture(t testing.TB, n int, answered bool) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "queries.pcap")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := wire.NewPcap(f, true)
	if err != nil {
		t.Fatal(err)
	}
	client, server := &wire.Host{}, &wire.Host{}
	copy(client.Addr[:], []byte{192, 0, 2, 1})
	copy(server.Addr[:], []byte{192, 0, 2, 53})
	for i := range n {
		ns := 1_700_000_000_000_000_000 + int64(i)*1e6
		name := wire.AppendName(nil, fmt.Sprintf("host%d.example", i%1000))
		var m wire.Msg
		m.Begin(uint16(i), 0x0100, name, wire.TypeA)
		sport := uint16(1024 + i/65536)
		if err := p.Packet(ns, wire.AppendUDPFrame(nil, client, server, sport, 53, m.B, 0, true)); err != nil {
			t.Fatal(err)
		}
		if !answered {
			continue
		}
		m = wire.Msg{}
		m.Begin(uint16(i), 0x8180, name, wire.TypeA)
		if err := p.Packet(ns+100_000, wire.AppendUDPFrame(nil, server, client, 53, sport, m.B, 0, true)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestStatusRecords(t *testing.T) {
	const n = 12_500 // ms
	capture := queriesCapture(t, n, false)
	s, lines := replay(t, "-pcap", capture, "-status_interval=3", "-gc_age=2s", "-gc_interval=1s")
	status, records := statusRecords(t, lines)
	if got, want := uint64(records), s.work.records; got != want || got != n {
		t.Errorf("records: got %d, the account says %d, want %d", got, want, n)
	}
	// One every 3 s of packet time, the last one at the end of the input.
	var times []string
	sums := make(map[string]uint64)
	for i, r := range status {
		times = append(times, fmt.Sprint(r.Tstamp, " ", r.Uptime, " ", r.Interval))
		for name, d := range r.Deltas {
			sums[name] += d
			if d == 0 || sums[name] != r.Totals[name] {
				t.Errorf("status record %d: %s: delta %d, deltas up to here %d, total %d", i, name, d, sums[name], r.Totals[name])
			}
		}
	}
	want := []string{
		"2023-11-14T22:13:23.000000000Z 3 3", "2023-11-14T22:13:26.000000000Z 6 3", "2023-11-14T22:13:29.000000000Z 9 3",
		"2023-11-14T22:13:32.000000000Z 12 3", "2023-11-14T22:13:32.499000000Z 12.499 0.499",
	}
	if !slices.Equal(times, want) {
		t.Fatalf("times of status records:\ngot  %q\nwant %q", times, want)
	}
	first, last := status[0], status[len(status)-1]
	if first.Totals["packets"] != 3001 || first.Gauges["pending_lookups"]+first.Totals["unanswered_lookups"] != 3001 {
		t.Errorf("first status record: got %d packets, %d pending, %d unanswered; want 3001 packets, all of them pending or unanswered",
			first.Totals["packets"], first.Gauges["pending_lookups"], first.Totals["unanswered_lookups"])
	}
	wantLast := make(map[string]uint64)
	for _, c := range counterTable {
		if !c.gauge && !c.chance {
			wantLast[c.name] = c.get(s)
		}
	}
	wantLast["status_records"]-- // it does not count itself
	if !maps.Equal(last.Totals, wantLast) {
		t.Errorf("totals of the last status record:\ngot  %v\nwant %v", last.Totals, wantLast)
	}
	if last.Type != "status" || last.Sensor != "test" || last.Version != version || !reflect.DeepEqual(last.Sinks, map[string]map[string]uint64{"discard": {"dropped": 0, "failed": 0}}) {
		t.Errorf("last status record: %+v", last)
	}
	if !strings.HasPrefix(lines[strings.LastIndex(strings.TrimSuffix(lines, "\n"), "\n")+1:], `{"type":"status",`) {
		t.Error("the last line is no status record")
	}
}

// TestStatusRecordsAreDeterministic wants the same bytes from any number of workers, and from a capture that comes in small pieces.
func TestStatusRecordsAreDeterministic(t *testing.T) {
	capture := queriesCapture(t, 12_500, true)
	_, want := replay(t, "-pcap", capture, "-status_interval=2s", "-numprocs=1")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-numprocs=5", "-pcap", capture}, {"-numprocs=8", "-pcap", capture}, {"-numprocs=3", "-pcap", pipe}} {
		if args[2] == pipe {
			go trickle(pipe, capture)
		}
		if _, got := replay(t, append(args, "-status_interval=2s")...); got != want {
			t.Errorf("%v: other lines than of one worker", args)
		}
	}
}

// trickle copies a file into a pipe, in pieces that are no frames. What goes wrong the reader sees.
func trickle(pipe, file string) {
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer w.Close()
	b, _ := os.ReadFile(file)
	for piece := range slices.Chunk(b, 10_007) {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

func TestNoStatusRecords(t *testing.T) {
	_, lines := replay(t, "-pcap", queriesCapture(t, 5000, false))
	if status, records := statusRecords(t, lines); len(status) != 0 || records != 5000 {
		t.Errorf("got %d status records and %d others, want 0 and 5000", len(status), records)
	}
}

// TestStatusMsgpack wants the msgpack form to hold the same as the JSON.
func TestStatusMsgpack(t *testing.T) {
	w := newStatusWriter("sensor \"1\"", "v1")
	s := &snapshot{sinks: []sinkStats{{name: "kafka", dropped: 3, failed: 1 << 40}}}
	for round := range uint64(3) {
		s.capture.frames, s.capture.firstTs, s.work.pending = 7*round, 1e18, round
		line := w.appendJSON(nil, s, 1e18+int64(round)*1_500_000_000)
		packed := w.appendMsgpack(nil)
		var unpacked bytes.Buffer
		rest, err := msgp.UnmarshalAsJSON(&unpacked, packed)
		if err != nil || len(rest) != 0 {
			t.Fatalf("msgpack: %v, %d bytes left", err, len(rest))
		}
		var got, want any
		if err := json.Unmarshal(unpacked.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("msgpack:\ngot  %v\nwant %v", got, want)
		}
	}
}

// TestStatusClock lets the clock of the capture jump: a status record is due once an interval, at times an interval
// apart where ticks come late, and the clock going back starts anew.
func TestStatusClock(t *testing.T) {
	f := &feeder{statusNs: 10e9, defrag: newDefragmenter(fragLimits{trains: 1, bytes: 1 << 16, ageNs: 1e9})}
	var got []int64
	for _, ts := range []int64{100e9, 105e9, 109e9, 110e9, 119e9, 125e9, 130e9, 129e9, 50e9, 59e9, 60e9, 1<<63 - 1, 1<<63 - 1, -1 << 63, 0} {
		f.cur = &chunk{}
		f.tick(ts)
		if f.count.lastTs != ts {
			t.Errorf("last time: got %d, want %d", f.count.lastTs, ts)
		}
		if f.cur.statusDue {
			got = append(got, f.cur.statusTs)
			if !f.full() {
				t.Errorf("a status record is due at %d, but the chunk is not full", ts)
			}
		}
	}
	if want := []int64{110e9, 125e9, 130e9, 60e9, 1<<63 - 1, 1<<63 - 1, 0}; !slices.Equal(got, want) {
		t.Errorf("status records: got %v, want %v", got, want)
	}
}
