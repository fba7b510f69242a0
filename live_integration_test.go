//go:build integration

// Long tests of live capture, for "make integration": a resolver under load, packet rates beside tcpdump's in the same run,
// memory over minutes, and kill -9. They print what they measured; the README's table is made of that.
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// netnsCommand is a command in a namespace.
func netnsCommand(ns string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...)
}

// startServer starts a command in a namespace, in a process group of its own, until the end of the test.
func startServer(t *testing.T, ns string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := netnsCommand(ns, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", args[0], err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return cmd
}

// number finds the number behind a regular expression.
func number(t *testing.T, text, pattern string) int {
	t.Helper()
	m := regexp.MustCompile(pattern + `(\d+)`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %q in:\n%s", pattern, text)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatalf("%q: %v", m[0], err)
	}
	return n
}

// TestIntegrationResolver puts unbound between dnsperf and NSD and wants every lookup of both legs, once, by the count of
// dnsperf and of unbound.
func TestIntegrationResolver(t *testing.T) {
	needRoot(t, "nsd", "nsd-control", "unbound", "unbound-control", "dnsperf", "dig")
	w := newWire(t) // clients and resolver
	authority := newNetns(t)
	command(t, "ip", "-n", authority, "link", "add", "a0", "type", "veth", "peer", "name", "r1", "netns", w.server)
	for ns, dev := range map[string]string{authority: "a0", w.server: "r1"} {
		last := map[string]int{"a0": 3, "r1": 2}[dev]
		command(t, "ip", "-n", ns, "addr", "add", fmt.Sprintf("10.0.1.%d/24", last), "dev", dev)
		command(t, "ip", "-n", ns, "link", "set", dev, "up")
	}
	nsd := startNSD(t, authority, "10.0.1.3")
	dir := publicDir(t)
	control := filepath.Join(dir, "control")
	conf := fmt.Sprintf("server:\n  interface: 10.0.0.2\n  interface: fd00::2\n  access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n"+
		"  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  directory: %q\n  module-config: \"iterator\"\n"+
		"  do-not-query-localhost: no\n  num-threads: 1\n  outgoing-range: 1024\n  statistics-cumulative: yes\n  extended-statistics: yes\n  incoming-num-tcp: 200\n"+
		"remote-control:\n  control-enable: yes\n  control-use-cert: no\n  control-interface: %q\nstub-zone:\n  name: example\n  stub-addr: 10.0.1.3\n", dir, control)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	startServer(t, w.server, "unbound", "-c", filepath.Join(dir, "conf"))
	waitFor(t, "unbound", func() bool {
		return exec.Command("unbound-control", "-c", filepath.Join(dir, "conf"), "status").Run() == nil
	})
	file := filepath.Join(publicDir(t), "dns.log")
	r := runLive(t, runOptions{ns: w.server}, "-dev", "s0,r1", "-layout", "lookup", "-quiet", "-logfile", file, "-logMaxSize", "10000")

	command(t, "nsd-control", "-c", nsd, "stats") // and begin anew: its first query was the test's
	const each = 10_000
	names := new(strings.Builder)
	sent, answered := 0, 0
	for i, how := range []struct{ server, mode string }{{"10.0.0.2", "udp"}, {"fd00::2", "udp"}, {"10.0.0.2", "tcp"}, {"fd00::2", "tcp"}} {
		names.Reset()
		for n := range each {
			fmt.Fprintf(names, "n%d-%d.w.example. A\n", i, n)
		}
		list := filepath.Join(dir, "names")
		if err := os.WriteFile(list, []byte(names.String()), 0o644); err != nil {
			t.Fatalf("%v", err)
		}
		out, err := netnsCommand(w.client, "dnsperf", "-s", how.server, "-m", how.mode, "-d", list, "-n", "1", "-c", "20", "-Q", "4000").CombinedOutput()
		if err != nil {
			t.Fatalf("dnsperf: %v\n%s", err, out)
		}
		answered += number(t, string(out), `Queries completed:\s+`)
		sent += number(t, string(out), `Queries sent:\s+`)
	}
	for _, args := range [][]string{{"@10.0.0.2", "+notcp"}, {"@10.0.0.2", "+tcp"}, {"@fd00::2", "+notcp"}, {"@fd00::2", "+tcp"}} {
		out, err := netnsCommand(w.client, append([]string{"dig", "+tries=1", "big.example", "TXT"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("dig: %v\n%s", err, out)
		}
		sent++
		answered++
		if bytes.Contains(out, []byte("retrying in TCP mode")) {
			sent++
			answered++
		}
	}
	stats := command(t, "unbound-control", "-c", filepath.Join(dir, "conf"), "stats_noreset")
	if code := r.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(r.said(), "kernel dropped") {
		t.Errorf("packets were dropped:\n%s", r.said())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v", err)
	}
	byStatus, seen := map[string]int{}, map[string]int{}
	atClients, atAuthority, responses := 0, 0, 0
	for line := range strings.Lines(string(text)) {
		rec := parseLiveRecord(t, line)
		queries := max(rec.Attempts, 1)
		leg := "clients"
		if rec.Src == "10.0.1.2" {
			leg = "authority"
			atAuthority += queries
		} else {
			atClients += queries
			if rec.Status != "unanswered" {
				responses++
			}
		}
		byStatus[leg+" "+rec.Status]++
		if strings.HasSuffix(rec.Q, ".w.example") && rec.Qtype == "A" {
			seen[leg+" "+rec.Q]++
			if leg == "clients" && seen[leg+" "+rec.Q] > 1 {
				t.Errorf("clients' lookup of %s has more than one record", rec.Q)
			}
		}
	}
	if want := 2 * 4 * each; len(seen) != want {
		t.Errorf("%d different lookups on both legs, want %d", len(seen), want)
	}
	unboundCount := number(t, stats, `total\.num\.queries=`)
	nsdCount := number(t, "\n"+command(t, "nsd-control", "-c", nsd, "stats"), `\nnum\.queries=`)
	if atClients != sent || responses != answered {
		t.Errorf("the clients' leg: %d queries and %d responses in the log, %d and %d by dnsperf and dig", atClients, responses, sent, answered)
	}
	// A server's socket may overflow: then it counts less than what was on the wire.
	if sent == answered && atClients != unboundCount || atAuthority != nsdCount {
		t.Errorf("queries in the log: %d at unbound and %d at NSD; by their own counts %d and %d", atClients, atAuthority, unboundCount, nsdCount)
	}
	t.Logf("sent %d, answered %d; unbound counts %d queries, NSD %d; in the log %d and %d: %v\n%s", sent, answered, unboundCount, nsdCount, atClients, atAuthority, byStatus, r.said())
}

// benchCapture generates the bench capture, once, and returns its name.
func benchCapture(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("BENCHDIR")
	if dir == "" {
		dir = "build/bench"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("%v", err)
	}
	name, err := filepath.Abs(filepath.Join(dir, "live.pcap"))
	if err != nil {
		t.Fatalf("%v", err)
	}
	if _, err := os.Stat(name); err != nil {
		command(t, "go", "run", "./testdata/bench/gen", "-packets", strconv.Itoa(benchPackets), "-o", name, "-truth", name+".truth.json")
	}
	return name
}

const benchPackets = 1_000_000

// quietWire is a pair of namespaces in which only the test talks.
func quietWire(t *testing.T) liveWire {
	t.Helper()
	w := liveWire{newNetns(t), newNetns(t)}
	for _, ns := range []string{w.client, w.server} {
		command(t, "ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	}
	command(t, "ip", "-n", w.client, "link", "add", "c0", "type", "veth", "peer", "name", "s0", "netns", w.server)
	command(t, "ip", "-n", w.client, "link", "set", "c0", "up")
	command(t, "ip", "-n", w.server, "link", "set", "s0", "up")
	return w
}

// replayLive sends a capture at a rate (0: as fast as it can) and returns the packets sent and the rate reached.
func replayLive(t *testing.T, ns, name string, rate, loops int) (sent int, pps float64) {
	t.Helper()
	args := []string{"tcpreplay", "-q", "-K", "-i", "c0", "--loop", strconv.Itoa(loops)}
	if rate > 0 {
		args = append(args, "--pps", strconv.Itoa(rate))
	} else {
		args = append(args, "-t")
	}
	out, err := netnsCommand(ns, append(args, name)...).CombinedOutput()
	if err != nil {
		t.Fatalf("tcpreplay: %v\n%s", err, out)
	}
	sent = number(t, string(out), `Actual: `)
	m := regexp.MustCompile(`([\d.]+) pps`).FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("no rate in:\n%s", out)
	}
	pps, err = strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return sent, pps
}

// TestIntegrationRates replays the bench capture at rising rates, to tcpdump and to us in turn, on the same machine that sends.
func TestIntegrationRates(t *testing.T) {
	needRoot(t, "tcpreplay", "tcpdump")
	name := benchCapture(t)
	out, err := exec.Command("./gopassivedns", "-env_file=", "-quiet", "-pcap", name).CombinedOutput()
	if err != nil {
		t.Fatalf("read the capture: %v\n%s", err, out)
	}
	want := number(t, string(out), `TCP\), `)
	bin, err := filepath.Abs("gopassivedns")
	if err != nil {
		t.Fatalf("%v", err)
	}
	var table strings.Builder
	table.WriteString("| packets/s asked | | offered/s | captured | dropped | CPU s |\n|---|---|---|---|---|---|\n")
	for _, rate := range []int{50_000, 100_000, 200_000, 400_000, 0} {
		asked := strconv.Itoa(rate)
		if rate == 0 {
			asked = "top speed"
		}
		w := quietWire(t)

		dump := netnsCommand(w.server, "tcpdump", "-i", "s0", "-B", "65536", "-w", "/dev/null")
		var said lockedBuffer
		dump.Stderr = &said
		if err := dump.Start(); err != nil {
			t.Fatalf("start tcpdump: %v", err)
		}
		waitFor(t, "tcpdump", func() bool { return strings.Contains(said.String(), "listening on") })
		sent, pps := replayLive(t, w.client, name, rate, 1)
		settle(dump.Process.Pid)
		_ = dump.Process.Signal(syscall.SIGINT)
		_ = dump.Wait()
		dumpDropped := sent - number(t, "\n"+said.String(), `\n`)
		cpu := dump.ProcessState.UserTime() + dump.ProcessState.SystemTime()
		fmt.Fprintf(&table, "| %s | tcpdump | %.0f | %d | %d | %.1f |\n", asked, pps, sent-dumpDropped, dumpDropped, cpu.Seconds())

		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer null.Close()
		r := runLive(t, runOptions{ns: w.server, bin: bin, stdout: null}, "-dev", "s0")
		sent, pps = replayLive(t, w.client, name, rate, 1)
		r.stop(t)
		captured := number(t, "\n"+r.said(), `\n(?:gopassivedns: [^\n]*\n)*`)
		dropped := number(t, r.said(), `packets passed the filter, `)
		lookups := number(t, r.said(), `TCP\), `)
		cpu = r.cmd.ProcessState.UserTime() + r.cmd.ProcessState.SystemTime()
		fmt.Fprintf(&table, "| %s | gopassivedns | %.0f | %d | %d | %.1f |\n", asked, pps, captured, dropped, cpu.Seconds())
		if dumpDropped == 0 && (dropped > 0 || captured != sent || lookups != want) {
			t.Errorf("at %s: %d of %d packets captured, %d dropped, %d of %d lookups; tcpdump dropped none\n%s", asked, captured, sent, dropped, lookups, want, r.said())
		}
		if strings.Contains(r.said(), "sink stdout") {
			t.Errorf("at %s: records were lost behind capture\n%s", asked, r.said())
		}
	}
	t.Logf("%d packets each\n%s", benchPackets, table.String())
}

// settle waits until a process has been idle for a moment: it has read what the kernel held for it.
func settle(pid int) {
	last := ""
	for range 50 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		now := strings.Join(strings.Fields(string(stat))[13:15], " ")
		if now == last {
			return
		}
		last = now
		time.Sleep(300 * time.Millisecond)
	}
}

// memory returns a process's anonymous resident memory in kB, which leaves the kernel's ring out, and its number of threads.
func memory(t *testing.T, pid int) (rss, threads int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return number(t, string(status), `RssAnon:\s+`), number(t, string(status), `Threads:\s+`)
}

// TestIntegrationSteady captures 50,000 packets/s for STEADY_MINUTES (10): memory and threads must be flat.
func TestIntegrationSteady(t *testing.T) {
	needRoot(t, "tcpreplay")
	minutes := 10
	if s := os.Getenv("STEADY_MINUTES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 2 {
			t.Fatalf("STEADY_MINUTES=%q: want 2 or more", s)
		}
		minutes = n
	}
	name := benchCapture(t)
	bin, err := filepath.Abs("gopassivedns")
	if err != nil {
		t.Fatalf("%v", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer null.Close()
	w := quietWire(t)
	const addr = "127.0.0.1:9553"
	r := runLive(t, runOptions{ns: w.server, bin: bin, stdout: null}, "-dev", "s0", "-gc_age", "10s", "-gc_interval", "10s", "-metrics_addr", addr)
	goroutines := func() int {
		var text string
		inNetns(t, w.server, func() error {
			out, err := scrape(addr)
			text = out
			return err
		})
		return number(t, text, `\ngo_goroutines `)
	}
	type sample struct{ rss, threads, goroutines int }
	var samples []sample
	for range minutes {
		var s sample // the most of the minute
		end, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for tick := time.NewTicker(time.Second); ; {
				select {
				case <-end:
					tick.Stop()
					return
				case <-tick.C:
					rss, threads := memory(t, r.cmd.Process.Pid)
					s.rss, s.threads = max(s.rss, rss), max(s.threads, threads)
				}
			}
		}()
		replayLive(t, w.client, name, 50_000, 3) // 1,000,000 packets at 50,000/s are 20 s
		close(end)
		<-done
		s.goroutines = goroutines()
		samples = append(samples, s)
		t.Logf("%+v", s)
	}
	r.stop(t)
	cpu := r.cmd.ProcessState.UserTime() + r.cmd.ProcessState.SystemTime()
	t.Logf("kB, threads, goroutines by minute: %v; %.1f %% of a core\n%s", samples, 100*cpu.Seconds()/(60*float64(minutes)), r.said())
	first, last := samples[0], samples[len(samples)-1]
	if d := last.rss - first.rss; d > first.rss/10 {
		t.Errorf("memory grew from %d to %d kB", first.rss, last.rss)
	}
	if last.goroutines > first.goroutines || last.threads > first.threads+4 {
		t.Errorf("from %d goroutines and %d threads to %d and %d", first.goroutines, first.threads, last.goroutines, last.threads)
	}
	if number(t, r.said(), `packets passed the filter, `) > 0 {
		t.Errorf("packets were dropped")
	}
}

// scrape gets /metrics over a plain connection: the caller's thread is in another namespace, which Go's HTTP client
// would leave by dialling from a goroutine of its own.
func scrape(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(c)
	return b.String(), err
}

// TestIntegrationKill: after kill -9 under load the log file has only whole lines, but perhaps the last.
func TestIntegrationKill(t *testing.T) {
	needRoot(t)
	w := newWire(t)
	for round := range 5 {
		file := filepath.Join(publicDir(t), "dns.log")
		r := runLive(t, runOptions{ns: w.server}, "-dev", "s0", "-quiet", "-gc_age", "1s", "-gc_interval", "1s", "-logfile", file)
		var sent atomic.Int64
		stop, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- flood(w.client, "10.0.0.2", 20_000, &sent, stop) }()
		waitFor(t, "records in the file", func() bool {
			fi, err := os.Stat(file)
			return err == nil && fi.Size() > int64(200_000*(round+1))
		})
		if err := r.cmd.Process.Kill(); err != nil {
			t.Fatalf("%v", err)
		}
		<-r.ended
		close(stop)
		if err := <-done; err != nil {
			t.Fatalf("send: %v", err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v", err)
		}
		whole := text[:bytes.LastIndexByte(text, '\n')+1]
		n := 0
		for line := range strings.Lines(string(whole)) {
			parseLiveRecord(t, line)
			n++
		}
		t.Logf("%d whole lines, %d bytes behind them", n, len(text)-len(whole))
	}
}
