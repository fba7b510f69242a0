package main

// stats_statsd.go sends the account to a statsd daemon.
//
// In: a snapshot of the account, every -statsd_interval and at the end of the run.
// Out: one small UDP datagram for each number: counters as what was added since the last report, gauges as they stand,
// and four timers that sum up the latencies of the interval's lookups.
//
// Rules: one goroutine, so a report costs the workers nothing. A daemon that is away costs nothing either: UDP does not wait
// for it, errors are not looked at, and what it missed is not sent again. Names are <prefix>.<sensor>.<name>, where
// the sensor's name has everything but letters, digits, dashes and underscores replaced by underscores.

import (
	"errors"
	"fmt"
	"net"
	"runtime/metrics"
	"strings"
	"time"

	"github.com/quipo/statsd"
)

// statsdReporter sends reports. One goroutine owns it.
type statsdReporter struct {
	client *statsd.StatsdClient
	prev   []uint64 // by index of counterTable
	sinks  map[string]uint64
	lat    latencies
}

// latencies is a histogram of lookup latencies, in the buckets of workerCounters.
type latencies struct {
	buckets [latencyBuckets]uint64
	sum     uint64 // ns
}

// dialStatsd resolves the host and opens the socket. Nothing is sent yet.
func dialStatsd(hostPort, prefix, sensor string) (*statsdReporter, error) {
	if prefix != "" {
		prefix += "."
	}
	// The client would print to stdout, and takes "%HOST%" in the prefix for itself, which parseConfig refuses.
	c := statsd.NewStatsdClient(hostPort, prefix+statsdName(sensor)+".")
	c.Logger = silentLogger{}
	if err := c.CreateSocket(); err != nil {
		var oe *net.OpError
		if errors.As(err, &oe) {
			err = oe.Err
		}
		return nil, fmt.Errorf("open -statsd_host %q: %w", hostPort, err)
	}
	return &statsdReporter{client: c, prev: make([]uint64, len(counterTable)), sinks: make(map[string]uint64)}, nil
}

// silentLogger is the client's log.
type silentLogger struct{}

func (silentLogger) Println(...any) {}

// statsdName returns s with everything replaced that has a meaning in a metric's name, or in the client, which uses
// names as formats.
func statsdName(s string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, s)
	if name == "" {
		return "_"
	}
	return name
}

// run reports every interval until end is closed, then once more, and closes the socket.
func (r *statsdReporter) run(a *account, interval time.Duration, end <-chan struct{}) {
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			r.report(a.snapshot())
		case <-end:
			r.report(a.snapshot())
			r.client.Close()
			return
		}
	}
}

// report sends what has changed since the last report, and all gauges. Errors are those of a daemon that is away.
func (r *statsdReporter) report(s *snapshot) {
	for i := range counterTable {
		c := &counterTable[i]
		n := c.get(s)
		if c.gauge {
			_ = r.client.Gauge(c.name, int64(n))
		} else if n > r.prev[i] {
			_ = r.client.Incr(c.name, int64(n-r.prev[i]))
		}
		r.prev[i] = n
	}
	for i := range s.sinks {
		q := &s.sinks[i]
		q.each(func(name string, n uint64, gauge bool) {
			name = "sink_" + statsdName(q.name) + "_" + name
			if gauge {
				_ = r.client.Gauge(name, int64(n))
			} else if n > r.sinks[name] {
				_ = r.client.Incr(name, int64(n-r.sinks[name]))
			}
			r.sinks[name] = n
		})
	}
	memory := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(memory)
	_ = r.client.Gauge("memory_bytes", int64(memory[0].Value.Uint64()-memory[1].Value.Uint64()))

	now := latencies{s.work.latency, s.work.latencySum}
	d := now.since(&r.lat)
	r.lat = now
	if n := sum(d.buckets[:]); n > 0 {
		_ = r.client.PrecisionTiming("lookup_latency_mean", time.Duration(d.sum/n))
		_ = r.client.PrecisionTiming("lookup_latency_p50", d.quantile(0.50))
		_ = r.client.PrecisionTiming("lookup_latency_p95", d.quantile(0.95))
		_ = r.client.PrecisionTiming("lookup_latency_p99", d.quantile(0.99))
	}
}

// since returns what was added to old to make l.
func (l *latencies) since(old *latencies) latencies {
	d := latencies{sum: l.sum - old.sum}
	for i := range l.buckets {
		d.buckets[i] = l.buckets[i] - old.buckets[i]
	}
	return d
}

// quantile estimates the latency that a share q of lookups did not exceed: exact to the bucket, evenly spread within it,
// so at most a factor of two off. For what is in the last bucket it is that bucket's lower end.
func (l *latencies) quantile(q float64) time.Duration {
	rank := q * float64(sum(l.buckets[:]))
	before := 0.0
	for i, n := range l.buckets {
		if n == 0 || before+float64(n) < rank {
			before += float64(n)
			continue
		}
		low, high := 0.0, 1000.0 // ns
		if i > 0 {
			low = float64(uint64(1000) << (i - 1))
			high = 2 * low
		}
		if i == latencyBuckets-1 {
			return time.Duration(low)
		}
		return time.Duration(low + (high-low)*(rank-before)/float64(n))
	}
	return 0
}
