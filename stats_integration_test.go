//go:build integration

package main

// The monitors against what they are made for: the original statsd daemon (node and npm, or STATSD_JS naming its stats.js),
// Debian's prometheus, and promtool. Run with
//
//	go test -tags integration -run 'RealDaemons|AlertRules' .

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// freeTCPPort returns a port of the loopback address that was free a moment ago.
func freeTCPPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startDaemon runs a program until the test ends.
func startDaemon(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	log, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(name)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s said:\n%s", name, text)
		}
	})
}

// eventually calls f until it is true or 30 s have passed.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited 30 s: %s", what)
		}
	}
}

// statsdAdmin sends a command to statsd's management port and returns the answer, which ends with END.
func statsdAdmin(port int, command string) (string, error) {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintln(c, command)
	var text strings.Builder
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(line) == "END" {
			return text.String(), nil
		}
		text.WriteString(line)
	}
}

// statsdDaemon runs the original statsd (npm statsd@0.9.0) and returns its UDP and management ports. STATSD_JS names its
// stats.js; without it the package is fetched with npm.
func statsdDaemon(t *testing.T) (udp, admin int) {
	t.Helper()
	js := os.Getenv("STATSD_JS")
	dir := t.TempDir()
	if js == "" {
		cmd := exec.Command("npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--omit=optional", "statsd@0.9.0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		js = filepath.Join(dir, "node_modules/statsd/stats.js")
	}
	udp, admin = freeTCPPort(t), freeTCPPort(t)
	config := filepath.Join(dir, "config.js")
	// The daemon empties its counters at each flush: there is none before the test has read them.
	text := fmt.Sprintf(`{address:"127.0.0.1",port:%d,mgmt_address:"127.0.0.1",mgmt_port:%d,flushInterval:3600000,backends:["./backends/console"]}`, udp, admin)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startDaemon(t, "node", js, config)
	eventually(t, "statsd answers", func() bool {
		_, err := statsdAdmin(admin, "counters")
		return err == nil
	})
	return udp, admin
}

// statsdValues reads the daemon's counters or gauges, which it prints as a JavaScript object.
func statsdValues(t *testing.T, port int, kind, prefix string) map[string]uint64 {
	t.Helper()
	text, err := statsdAdmin(port, kind)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]uint64)
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.Trim(strings.TrimSpace(line), "{},"), ": ")
		name, ours := strings.CutPrefix(strings.Trim(strings.TrimSpace(name), "'\""), prefix)
		if !ok || !ours {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		if err != nil {
			t.Fatalf("statsd's %s: %q", kind, line)
		}
		values[name] = n
	}
	return values
}

// prometheusDaemon runs Debian's prometheus, which scrapes target every second, and returns its URL.
func prometheusDaemon(t *testing.T, target string) string {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs("packaging/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n- job_name: gopassivedns\n  static_configs: [{targets: [%q]}]\n", rules, target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("127.0.0.1:%d", freeTCPPort(t))
	startDaemon(t, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+base)
	eventually(t, "Prometheus is ready", func() bool {
		r, err := http.Get("http://" + base + "/-/ready")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return "http://" + base
}

// prometheusValues runs an instant query and returns the values by the label given ("" where there is one value).
func prometheusValues(t *testing.T, base, query, label string) map[string]float64 {
	t.Helper()
	_, text := get(t, base+"/api/v1/query?query="+url.QueryEscape(query))
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%s: %v: %s", query, err, text)
	}
	values := make(map[string]float64)
	for _, r := range answer.Data.Result {
		n, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		values[r.Metric[label]] = n
	}
	return values
}

// TestMonitorsWithRealDaemons runs the program on a capture through a pipe that stays open, so that it is still there when
// all is read, and compares statsd, Prometheus, SIGUSR1, the status record and the summary.
func TestMonitorsWithRealDaemons(t *testing.T) {
	const lookups = 20_000
	bin := filepath.Join(t.TempDir(), "gopassivedns")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	capture, err := os.ReadFile(queriesCapture(t, lookups, true))
	if err != nil {
		t.Fatal(err)
	}
	udp, admin := statsdDaemon(t)
	metrics := fmt.Sprintf("127.0.0.1:%d", freeTCPPort(t))
	base := prometheusDaemon(t, metrics)

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-env_file=", "-name=ns1.example", "-pcap=-", "-numprocs=3", "-status_interval=1h",
		"-statsd_host", fmt.Sprintf("127.0.0.1:%d", udp), "-statsd_interval=1", "-metrics_addr", metrics)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr lockedBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(capture); err != nil {
		t.Fatal(err)
	}

	// Everything is read, but the input has not ended.
	eventually(t, "Prometheus has scraped all packets", func() bool {
		return prometheusValues(t, base, "sum(gopassivedns_packets_total)", "")[""] == 2*lookups
	})
	scraped := map[string]map[string]float64{
		"messages_": prometheusValues(t, base, "gopassivedns_messages_total", "transport"),
		"lookups_":  prometheusValues(t, base, "gopassivedns_lookups_total", "status"),
		"packets_":  prometheusValues(t, base, "gopassivedns_packets_total", "result"),
	}
	if up := prometheusValues(t, base, "up", "")[""]; up != 1 {
		t.Errorf("up: got %v, want 1", up)
	}
	for _, alert := range []string{"GopassivednsDown", "GopassivednsRecordsLost", "GopassivednsKernelDrops"} {
		if n := len(prometheusValues(t, base, fmt.Sprintf("ALERTS{alertname=%q,alertstate=\"firing\"}", alert), "alertname")); n != 0 {
			t.Errorf("alert %s fires", alert)
		}
	}
	_, page := get(t, "http://"+metrics+"/metrics")
	lint := exec.Command("promtool", "check", "metrics")
	lint.Stdin = strings.NewReader(page)
	if out, err := lint.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "SIGUSR1 has a report", func() bool { return strings.Contains(stderr.String(), "equations of the account hold\n") })
	report := stderr.String()
	if want := fmt.Sprintf("%d  matched_lookups\n", lookups); !strings.Contains(report, want) {
		t.Errorf("SIGUSR1: no line %q in:\n%s", want, report)
	}

	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	status, records := statusRecords(t, stdout.String())
	if len(status) != 1 || records != lookups {
		t.Fatalf("got %d status records and %d others, want 1 and %d", len(status), records, lookups)
	}
	totals := status[0].Totals
	eventually(t, "statsd has the last report", func() bool {
		return statsdValues(t, admin, "counters", "gopassivedns.ns1_example.")["status_records"] == 1
	})
	counters := statsdValues(t, admin, "counters", "gopassivedns.ns1_example.")
	for name, n := range totals {
		if name != "status_records" && counters[name] != n {
			t.Errorf("statsd: %s: got %d, the status record says %d", name, counters[name], n)
		}
	}
	if got := counters["sink_stdout_written"]; got != lookups+1 {
		t.Errorf("statsd: records written: got %d, want %d", got, lookups+1)
	}
	gauges := statsdValues(t, admin, "gauges", "gopassivedns.ns1_example.")
	if n, ok := gauges["pending_lookups"]; !ok || n != 0 || gauges["memory_bytes"] == 0 {
		t.Errorf("statsd: gauges: %v", gauges)
	}
	if text, err := statsdAdmin(admin, "timers"); err != nil || !strings.Contains(text, "gopassivedns.ns1_example.lookup_latency_p95") {
		t.Errorf("statsd: timers: %v\n%s", err, text)
	}
	for prefix, values := range scraped {
		for value, n := range values {
			if totals[prefix+value] != uint64(n) {
				t.Errorf("Prometheus: %s%s: got %v, the status record says %d", prefix, value, n, totals[prefix+value])
			}
		}
	}
	summary := strings.TrimPrefix(stderr.String(), report)
	if want := fmt.Sprintf("%d packets read, %d DNS messages (%d UDP, 0 TCP), %d lookups, %d records\n", 2*lookups, 2*lookups, 2*lookups, lookups, lookups); !strings.HasPrefix(summary, want) {
		t.Errorf("summary: got %q, want %q", summary, want)
	}
}

// TestAlertRules runs promtool on the packaged rules and their tests.
func TestAlertRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = "packaging/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", cmd, err, out)
		}
	}
}

// lockedBuffer is a buffer for a process's output that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
