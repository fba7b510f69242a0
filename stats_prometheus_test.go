package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// get fetches url without keeping the connection.
func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// samples reads Prometheus' text format: values by name and labels as they stand there.
func samples(t *testing.T, text string) map[string]float64 {
	t.Helper()
	found := make(map[string]float64)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		n, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
		if err != nil {
			t.Fatalf("not a sample: %q", line)
		}
		found[line[:at]] = n
	}
	return found
}

// endedSink is a sink whose receiver goes away at the first write.
type endedSink struct{ discardSink }

func (s *endedSink) write(*batch) error { return errSinkClosed }
func (s *endedSink) name() string       { return "ended" }

func TestHealth(t *testing.T) {
	log := &userLog{stderr: io.Discard}
	good, bad := newSinkQueue(new(discardSink), sinkOptions{log: log}), newSinkQueue(new(endedSink), sinkOptions{log: log})
	defer func() {
		if err := errors.Join(good.drain(context.Background()), bad.drain(context.Background())); err != nil {
			t.Error(err)
		}
	}()
	start := time.Unix(1000, 0)
	a := newAccount(1, []*sinkQueue{good, bad})
	check := func(when string, after, silence time.Duration, want string) {
		t.Helper()
		got := "healthy"
		if err := a.health(start, start.Add(after), silence); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", when, got, want)
		}
	}
	check("at start", 0, 10*time.Second, "healthy")
	check("before the first chunk", 11*time.Second, 10*time.Second, "nothing was captured or written for 11s")
	check("reading a file", time.Hour, 0, "healthy")
	a.at = start.Add(time.Minute)
	check("after a chunk", 70*time.Second, 10*time.Second, "healthy")
	check("long after a chunk", 71*time.Second, 10*time.Second, "nothing was captured or written for 11s")

	b := newBatchPool(1).get()
	b.json, b.ends = append(b.json, "{}\n"...), append(b.ends, 3)
	bad.submit(b)
	b.release()
	<-bad.done()
	check("a sink ended", time.Minute, 10*time.Second, "sink ended has ended: receiver closed")

	a.queues = a.queues[:1]
	check("without it", time.Minute, 10*time.Second, "healthy")
	a.end(outputCounters{})
	check("at the end", time.Minute, 10*time.Second, "the input has ended")
}

func TestMetricsAddressTaken(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := listenMetrics("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	var stdout, stderr strings.Builder
	code := run(t.Context(), []string{"-env_file=", "-pcap=testdata/pcap/vlan.pcap", "-metrics_addr", addr}, strings.NewReader(""), &stdout, &stderr)
	want := "gopassivedns: listen on -metrics_addr \"" + addr + "\": bind: address already in use\n"
	if code != exitFailure || stderr.String() != want || stdout.String() != "" {
		t.Errorf("got exit %d, %q, want exit 1, %q", code, stderr.String(), want)
	}
}

func TestMetricsServer(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := listenMetrics("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := serveMetrics(l, newAccount(1, nil), 0)
	url := "http://" + l.Addr().String()
	for path, want := range map[string]int{"/metrics": 200, "/healthz": 200, "/": 404, "/debug/pprof/": 404} {
		if code, _ := get(t, url+path); code != want {
			t.Errorf("GET %s: got %d, want %d", path, code, want)
		}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Post(url+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics: got %d, want 405", r.StatusCode)
	}
	m.close()
	again, err := listenMetrics(strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatalf("the address is not free after close: %v", err)
	}
	again.Close()
}

// exposedNames returns the names of all time series that /metrics may hold.
func exposedNames(t *testing.T) map[string]bool {
	t.Helper()
	q := newSinkQueue(new(discardSink), sinkOptions{log: &userLog{stderr: io.Discard}})
	defer q.drain(context.Background())
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newAccountCollector(newAccount(1, []*sinkQueue{q})), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{"up": true}
	for _, f := range families {
		names[f.GetName()] = true
		if f.GetMetric()[0].GetHistogram() != nil {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				names[f.GetName()+suffix] = true
			}
		}
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
	}
	return names
}

var metricName = regexp.MustCompile(`\b(gopassivedns|go|process)_[a-z0-9_]+`)

// TestDashboard wants the Grafana dashboard to be JSON whose every query names metrics that exist.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("packaging/grafana/gopassivedns.json")
	if err != nil {
		t.Fatal(err)
	}
	type panel struct {
		Title   string
		Targets []struct{ Expr string }
	}
	var dashboard struct {
		UID, Title string
		Panels     []panel
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	names := exposedNames(t)
	queries := 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries++
			used := metricName.FindAllString(target.Expr, -1)
			if len(used) == 0 {
				t.Errorf("panel %q: a query without a metric: %s", p.Title, target.Expr)
			}
			for _, name := range used {
				if !names[name] {
					t.Errorf("panel %q: there is no metric %s", p.Title, name)
				}
			}
		}
	}
	if queries < 10 || dashboard.UID == "" || dashboard.Title == "" {
		t.Errorf("dashboard %q (%s) has %d queries, want 10 or more", dashboard.Title, dashboard.UID, queries)
	}
}

func TestAlertsUseMetricsThatExist(t *testing.T) {
	text, err := os.ReadFile("packaging/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	names := exposedNames(t)
	used := metricName.FindAllString(string(text), -1)
	for _, name := range used {
		if !names[name] {
			t.Errorf("there is no metric %s", name)
		}
	}
	if len(used) < 8 {
		t.Errorf("got %d names of metrics, want 8 or more", len(used))
	}
}

// BenchmarkScrape is what one scrape costs the program.
func BenchmarkScrape(b *testing.B) {
	handler := metricsHandler(newAccount(8, nil), 0)
	request := httptest.NewRequest("GET", "/metrics", nil)
	for b.Loop() {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, request)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}

// BenchmarkScrapedReplay replays a capture with ten scrapes a second, and reports which share of the CPU time of the whole
// run they took. What a scrape takes is measured first, in the same process when it has nothing else to do; both are CPU
// times, which other load on the machine moves little.
func BenchmarkScrapedReplay(b *testing.B) {
	cfg := testConfig(b, "-pcap", queriesCapture(b, 200_000, true), "-quiet", "-numprocs=2")
	log := &userLog{stderr: io.Discard}
	scrape := func(h http.Handler) {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	}
	idle := metricsHandler(newAccount(2, nil), 0)
	from := cpuTime(b)
	for range 500 {
		scrape(idle)
	}
	each := float64(cpuTime(b)-from) / 500

	var handler atomic.Pointer[http.Handler]
	handler.Store(&idle)
	scrapes := 0
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				scrape(*handler.Load())
				scrapes++
			}
		}
	}()
	from = cpuTime(b)
	for b.Loop() {
		p := newPipeline(cfg, nil, false, make(chan struct{}))
		h := metricsHandler(p.acct, 0)
		handler.Store(&h)
		if err := readCaptures(p.feeder, []string{cfg.pcap}, nil, log); err != nil {
			b.Fatal(err)
		}
		p.finish()
	}
	all := float64(cpuTime(b) - from)
	close(end)
	<-ended
	b.ReportMetric(each/1e3, "CPU-µs/scrape")
	b.ReportMetric(100*float64(scrapes)*each/all, "%-of-CPU")
	b.ReportMetric(float64(scrapes)/b.Elapsed().Seconds(), "scrapes/s")
}

// cpuTime returns the CPU time in ns that the process has taken.
func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
