package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"gopassivedns/testdata/bench/truth"
)

// line returns a record; changes are pairs of what is replaced in it.
func line(changes ...string) string {
	const l = `{"tstamp":"2025-06-02T08:00:00.000000001Z","sensor":"s","query_id":7,"src":"10.0.0.1","sport":"5353","dst":"192.0.2.53","dport":"53",` +
		`"protocol":"udp","q":"a\"status\":\"b.example","qtype":"A","rcode":0,"status":"answer","aname":"a.example","atype":"A","a":"203.0.113.1","ttl":60,` +
		`"elapsed":500,"bytes":60,"qbytes":30,"aa":false,"rd":true,"ra":true,"truncated":false,"ad":false,"cd":false}` + "\n"
	return strings.NewReplacer(changes...).Replace(l)
}

func TestCount(t *testing.T) {
	two := []string{`"answer"`, `"unanswered"`, `"atype":"A"`, `"atype":""`, `"elapsed":500,"bytes":60`, `"bytes":0`, `"qbytes":30`, `"attempts":2,"qbytes":30`}
	text := line() + line(`"A"`, `"CNAME"`) + // one lookup of two RRs
		line(`"sport":"5353"`, `"sport":"5354"`, `"udp"`, `"tcp"`) +
		line(two...) + line(append([]string{`"query_id":7`, `"query_id":8`}, two...)...)
	got, want := truth.New(), truth.New()
	if err := count(strings.NewReader(text), &got.Seen); err != nil {
		t.Fatal(err)
	}
	want.Seen = truth.Seen{
		LookupsTotal: 4, Lookups: map[string]int{"answer": 2, "unanswered": 2},
		RecordsTotal: 5, Records: map[string]int{"answer": 3, "unanswered": 2},
		Types:   map[string]int{"A": 2, "CNAME": 1, "": 2},
		Retried: 2, TCPLookups: 1, TCPRecords: 1, ElapsedNs: 1000, ResponseBytes: 120, QueryBytes: 120,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if d := want.Diff(&got.Seen); d != "" {
		t.Errorf("equal counts differ: %s", d)
	}
	got.Records["answer"]++
	if d, w := want.Diff(&got.Seen), "records with status \"answer\": 4, want 3 (+1)\n"; d != w {
		t.Errorf("got %q, want %q", d, w)
	}
}

func TestCountRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"{\n", "line 1: not JSON: {"},
		{line(`"status":"answer",`, ``), "line 1: no status: "},
		{line() + line(`"elapsed":500`, `"elapsed":0.5`), "line 2: elapsed is no integer: "},
		{line(`"atype":"A"`, `"atype":""`) + line(), "line 2: a second line of a lookup without an RR: "},
	} {
		err := count(strings.NewReader(c.text), &truth.New().Seen)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.text, err, c.want)
		}
	}
}

func TestJudge(t *testing.T) {
	at := func(name string, packets int, cpu, wall, memoryMB float64) *capture {
		n := truth.New()
		n.Packets = packets
		second := cost{cpu: time.Second, wall: time.Second, memoryMB: 6}
		return &capture{name: name, truth: n, peer: []cost{second},
			ours: []cost{{cpu: time.Duration(cpu * 1e9), wall: time.Duration(wall * 1e9), memoryMB: memoryMB}}}
	}
	for _, c := range []struct {
		name     string
		captures []*capture
		want     []string
	}{
		{"met", []*capture{at("udp", 100, 5, 3, 150), at("tcp", 50, 5, 9, 150), at("vxlan", 100, 9, 6, 150)}, nil},
		{"missed", []*capture{at("udp", 100, 5.5, 3.5, 151), at("tcp", 50, 6, 1, 1), at("vxlan", 100, 1, 8, 1)}, []string{
			"udp: peak memory in MB is 151.00, the limit is 150",
			"udp: CPU as a multiple of tcpdump's is 5.50, the limit is 5",
			"udp: wall time as a multiple of tcpdump's is 3.50, the limit is 3",
			"tcp: CPU per packet as a multiple of plain UDP's is 2.18, the limit is 2",
			"vxlan: packets per second as a share of plain UDP's is 0.44, the limit is 0.5",
		}},
		{"alone", []*capture{at("vxlan", 100, 90, 60, 150)}, nil},
	} {
		if got := judge(c.captures); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCountGood(t *testing.T) {
	text := `{"q":"good-1.example","status":"answer"}` + "\n" + `{"q":"bad","status":"unanswered"}` + "\n" +
		`{"q":"good-2.example","status":"answer"}` + "\n"
	for _, c := range []struct {
		text, wrong string
		found       int
	}{
		{text, "", 2},
		{text + `{"q":"good-2.example","status":"answer"}`, `{"q":"good-2.example","status":"answer"}`, 2},
		{text + `{"q":"good-3.example","status":"unanswered"}`, `{"q":"good-3.example","status":"unanswered"}`, 2},
		{"{\n" + text, "{\n", 2},
	} {
		found, wrong, err := countGood(strings.NewReader(c.text), "good-")
		if found != c.found || wrong != c.wrong || err != nil {
			t.Errorf("%q: got %d, %q, %v, want %d, %q", c.text, found, wrong, err, c.found, c.wrong)
		}
	}
}

func TestMedian(t *testing.T) {
	v := []float64{9, 1, 5, 3}
	for n, want := range map[int]float64{1: 9, 2: 5, 3: 5, 4: 4} {
		if got := median(n, func(i int) float64 { return v[i] }); got != want {
			t.Errorf("of %d: got %g, want %g", n, got, want)
		}
	}
}

func TestFloodRules(t *testing.T) {
	at := func(change func(r *floodRun)) *floodRun {
		r := &floodRun{kind: floodKind{name: "x"}, packets: 1000, read: 150_000, written: 500_000, got: cost{wall: time.Second, memoryMB: 352}, found: 9, expected: 9}
		r.ordinary.packets, r.ordinary.read, r.ordinary.written = 4000, 600_000, 2_000_000
		change(r)
		return r
	}
	for _, c := range []struct {
		name string
		run  *floodRun
		unit string
		want []string
	}{
		{"met", at(func(r *floodRun) {}), "packets", nil},
		{"slow", at(func(r *floodRun) { r.got.wall *= 2 }), "packets", []string{"x: 0.12 of ordinary traffic's packets/s, the limit is 0.2"}},
		{"large", at(func(r *floodRun) { r.read *= 5; r.got.wall *= 4 }), "bytes read", nil},
		{"large and slow", at(func(r *floodRun) { r.read *= 5; r.got.wall *= 7 }), "bytes read", []string{"x: 0.18 of ordinary traffic's bytes read/s, the limit is 0.2"}},
		{"growing", at(func(r *floodRun) { r.written *= 10; r.got.wall *= 10 }), "bytes written", nil},
		{"growing and slow", at(func(r *floodRun) { r.written *= 10; r.got.wall *= 13 }), "bytes written", []string{"x: 0.19 of ordinary traffic's bytes written/s, the limit is 0.2"}},
		{"memory and losses", at(func(r *floodRun) { r.got.memoryMB, r.found, r.wrong = 353, 8, "{" }), "packets",
			[]string{"x: peak memory is 353 MB, the bound is 352", "x: 8 good lookups found, want 9", "x: {"}},
	} {
		_, unit := c.run.rate()
		if got := c.run.missed(); !reflect.DeepEqual(got, c.want) || unit != c.unit {
			t.Errorf("%s: got %q in %s, want %q in %s", c.name, got, unit, c.want, c.unit)
		}
	}
	if got := lostIn("1 packet\nlost or odd: 3 evicted_lookups, 1 packets_cut\nend\n"); got != "3 evicted_lookups, 1 packets_cut" {
		t.Errorf("got %q", got)
	}
}
