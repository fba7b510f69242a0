package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAllSinks runs the program on captures with every sink at once, into a broker that speaks Kafka's protocol (kfake),
// a real rsyslogd, a stand-in for Fluentd, a file and stdout: all get the same records, status records included.
func TestAllSinks(t *testing.T) {
	kafka := startKafka(t)
	fluentd := startForward(t, "unix", filepath.Join(t.TempDir(), "fluentd"), &forwardServer{t: t})
	syslog := startRsyslog(t)
	logFile := filepath.Join(t.TempDir(), "dns.log")
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	code := run(ctx, []string{
		"-pcap", "testdata/pcap/udp-v4.pcap,testdata/pcap/tcp-v6.pcap,testdata/pcap/names-escaped.pcap,testdata/pcap/frag-v6.pcap", "-env_file", "", "-drain_timeout", "1s",
		"-name", "all sinks", "-status_interval", "1s", "-logfile", logFile,
		"-kafka_brokers", strings.Join(kafka.ListenAddrs(), ","), "-kafka_topic", "dns", "-kafka_key", "qname",
		"-fluentd_tag", "dns.test", "-fluentd_socket", fluentd.l.Addr().String(),
		"-syslog_facility", "Local0", "-syslog_priority", "info", "-syslog_address", "unix:" + syslog.dir + "/log.sock",
	}, nil, &stdout, &stderr)
	if code != exitOK {
		t.Fatalf("exit code %d:\n%s", code, stderr.String())
	}
	lines := stdout.Bytes()
	if n := bytes.Count(lines, []byte("\n")); n < 50 || !bytes.Contains(lines, []byte(`"type":"status"`)) {
		t.Fatalf("%d records:\n%s", n, lines)
	}
	file, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"the file": file, "Fluentd": fluentd.lines()} {
		if !bytes.Equal(got, lines) {
			t.Errorf("%s got\n%s\nwant\n%s", name, got, lines)
		}
	}
	checkKafka(t, readKafka(t, kafka.ListenAddrs(), nil), lines, false, 0)
	if got := countLines(syslog.got(), lines); got != bytes.Count(lines, []byte("\n")) {
		t.Errorf("%d of %d records reached rsyslogd", got, bytes.Count(lines, []byte("\n")))
	}
}
