package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

// configFrom parses args with the given environment in a directory that holds the given env file, none if "".
func configFrom(t *testing.T, envFile string, environment map[string]string, args ...string) (*config, error) {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	if envFile != "" {
		if err := os.WriteFile(filepath.Join(dir, ".env"), []byte(envFile), 0o600); err != nil {
			t.Fatalf("write .env: %v", err)
		}
	}
	return parseConfig(args, lookupIn(environment))
}

func lookupIn(environment map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := environment[name]
		return value, ok
	}
}

// defaultConfig is what "-pcap x -name s" gives.
func defaultConfig() config {
	return config{
		pcap: "x", bpf: "port 53", name: "s", gcAge: time.Minute, gcInterval: 3 * time.Minute, maxPending: 1_000_000,
		sections: wantAnswer, layout: layoutRR, incomplete: true, logMaxAge: 28, logMaxBackups: 3, logMaxSize: 100,
		numProcs: 8, envFile: ".env", statsdInterval: 5 * time.Second, statsdPrefix: "gopassivedns",
		snaplen: 65535, bufferMB: 64, promisc: true,
		logFileMode: 0o640, queueMB: 64, drainTimeout: 10 * time.Second,
		fluentd: fluentdOptions{tag: "gopassivedns.s", ack: true},
		kafka:   kafkaOptions{key: "none", compression: "zstd", acks: "all"},
	}
}

func TestParseConfig(t *testing.T) {
	tests := []struct {
		name        string
		envFile     string
		environment map[string]string
		args        []string
		want        func(c *config)
	}{
		{name: "defaults", want: func(*config) {}},
		{
			name: "every flag",
			args: []string{"-bpf", "udp", "-logfile", "l", "-logMaxAge", "1", "-logMaxBackups", "2", "-logMaxSize", "3", "-quiet", "-debug",
				"-gc_age", "5s", "-gc_interval", "-7s", "-cpuprofile", "p", "-numprocs", "13", "-sections", "additional, answer",
				"-layout", "lookup", "-incomplete=false", "-max_pending", "9", "-status_interval", "90", "-statsd_host", "192.0.2.9",
				"-statsd_interval", "7", "-statsd_prefix", "dns.", "-metrics_addr", "9553", "-snaplen", "128", "-buffer_size", "9", "-promisc=false",
				"-exit_on_device_error", "-user", "u", "-pfring_cluster", "7", "-queue_size", "5", "-drain_timeout", "3s", "-logCompress",
				"-logFileMode", "600", "-syslog_facility", "LOCAL0", "-syslog_priority", "Info", "-syslog_address", "udp://h:1", "-fluentd_socket", "/f",
				"-fluentd_tag", "t", "-fluentd_ack=false", "-kafka_brokers", "h:1, i:2", "-kafka_topic", "k", "-kafka_key", "QNAME", "-kafka_compression", "LZ4",
				"-kafka_acks", "1", "-kafka_version", "3.6.0", "-kafka_tls", "-kafka_tls_ca", "ca", "-kafka_tls_cert", "ce", "-kafka_tls_key", "ke",
				"-kafka_sasl_mechanism", "plain", "-kafka_sasl_user", "ku"},
			environment: map[string]string{"PDNS_KAFKA_SASL_PASSWORD": "not shown"},
			want: func(c *config) {
				*c = config{
					pcap: "x", bpf: "udp", bpfSet: true, name: "s", gcAge: 5 * time.Second, gcInterval: 7 * time.Second, maxPending: 9,
					sections: wantAnswer | wantAdditional, layout: layoutLookup, logFile: "l", logMaxAge: 1, logMaxBackups: 2,
					logMaxSize: 3, quiet: true, debug: true, cpuProfile: "p", numProcs: 13, envFile: ".env",
					statusInterval: 90 * time.Second, statsdHost: "192.0.2.9:8125", statsdInterval: 7 * time.Second, statsdPrefix: "dns", metricsAddr: "127.0.0.1:9553",
					snaplen: 128, bufferMB: 9, exitOnDeviceError: true, user: "u", pfringCluster: 7, queueMB: 5, drainTimeout: 3 * time.Second,
					logCompress: true, logFileMode: 0o600, syslog: syslogOptions{facility: "LOCAL0", priority: "Info", address: "udp://h:1"},
					fluentd: fluentdOptions{address: "/f", tag: "t"},
					kafka: kafkaOptions{brokers: []string{"h:1", "i:2"}, topic: "k", key: "qname", compression: "lz4", acks: "1", version: "3.6.0", tls: true,
						tlsCA: "ca", tlsCert: "ce", tlsKey: "ke", saslMechanism: "PLAIN", saslUser: "ku", saslPassword: newSecret("not shown")},
				}
			},
		},
		{
			name: "every variable",
			environment: map[string]string{
				"PDNS_BPF": "udp", "PDNS_LOG_FILE": "l", "PDNS_LOG_AGE": "1", "PDNS_LOG_BACKUP": "2", "PDNS_LOG_SIZE": "3",
				"PDNS_QUIET": "true", "PDNS_DEBUG": "1", "PDNS_GC_AGE": "-5s", "PDNS_GC_INTERVAL": "7s", "PDNS_PROFILE_FILE": "p",
				"PDNS_THREADS": "13", "PDNS_SECTIONS": "authority", "PDNS_LAYOUT": "lookup", "PDNS_INCOMPLETE": "f", "PDNS_MAX_PENDING": "9",
				"PDNS_ENV_FILE": "", "PDNS_PCAP_FILE": "not this one",
				"PDNS_STATUS_INTERVAL": "5m", "PDNS_STATSD_HOST": "stats.example:9125", "PDNS_STATSD_INTERVAL": "1", "PDNS_STATSD_PREFIX": "a.b", "PDNS_METRICS_ADDR": "[::]:80",
				"PDNS_SNAPLEN": "128", "PDNS_BUFFER_SIZE": "9", "PDNS_PROMISC": "0", "PDNS_EXIT_ON_DEVICE_ERROR": "1", "PDNS_USER": "u", "PDNS_PFRING_CLUSTER": "7",
				"PDNS_QUEUE_SIZE": "5", "PDNS_DRAIN_TIMEOUT": "3s", "PDNS_LOG_COMPRESS": "true", "PDNS_LOG_FILE_MODE": "0600",
				"PDNS_SYSLOG_FACILITY": "LOCAL0", "PDNS_SYSLOG_PRIORITY": "Info", "PDNS_SYSLOG_ADDRESS": "udp://h:1", "PDNS_FLUENTD_SOCKET": "/f",
				"PDNS_FLUENTD_TAG": "t", "PDNS_FLUENTD_ACK": "false", "PDNS_KAFKA_PEERS": "h:1, i:2", "PDNS_KAFKA_TOPIC": "k", "PDNS_KAFKA_KEY": "QNAME",
				"PDNS_KAFKA_COMPRESSION": "LZ4", "PDNS_KAFKA_ACKS": "1", "PDNS_KAFKA_VERSION": "3.6.0", "PDNS_KAFKA_TLS": "1", "PDNS_KAFKA_TLS_CA": "ca",
				"PDNS_KAFKA_TLS_CERT": "ce", "PDNS_KAFKA_TLS_KEY": "ke", "PDNS_KAFKA_SASL_MECHANISM": "plain", "PDNS_KAFKA_SASL_USER": "ku", "PDNS_KAFKA_SASL_PASSWORD": "not shown",
			},
			want: func(c *config) {
				*c = config{
					pcap: "x", bpf: "udp", bpfSet: true, name: "s", gcAge: 5 * time.Second, gcInterval: 7 * time.Second, maxPending: 9,
					sections: wantAuthority, layout: layoutLookup, logFile: "l", logMaxAge: 1, logMaxBackups: 2, logMaxSize: 3,
					quiet: true, debug: true, cpuProfile: "p", numProcs: 13,
					statusInterval: 5 * time.Minute, statsdHost: "stats.example:9125", statsdInterval: time.Second, statsdPrefix: "a.b", metricsAddr: "[::]:80",
					snaplen: 128, bufferMB: 9, exitOnDeviceError: true, user: "u", pfringCluster: 7, queueMB: 5, drainTimeout: 3 * time.Second,
					logCompress: true, logFileMode: 0o600, syslog: syslogOptions{facility: "LOCAL0", priority: "Info", address: "udp://h:1"},
					fluentd: fluentdOptions{address: "/f", tag: "t"},
					kafka: kafkaOptions{brokers: []string{"h:1", "i:2"}, topic: "k", key: "qname", compression: "lz4", acks: "1", version: "3.6.0", tls: true,
						tlsCA: "ca", tlsCert: "ce", tlsKey: "ke", saslMechanism: "PLAIN", saslUser: "ku", saslPassword: newSecret("not shown")},
				}
			},
		},
		{
			name: "flag syntax: two dashes, equal sign, the last one counts, a value like a flag",
			args: []string{"--numprocs=3", "--numprocs", "4", "-logfile", "-quiet", "-bpf="},
			want: func(c *config) { c.numProcs, c.logFile, c.bpf, c.bpfSet = 4, "-quiet", "", true },
		},
		{
			name:        "env file over environment",
			envFile:     "# comment\nPDNS_THREADS=2\nexport PDNS_LAYOUT='lookup'\nPDNS_BPF=\"port 53 and udp\" # why\n",
			environment: map[string]string{"PDNS_THREADS": "3", "PDNS_LAYOUT": "nonsense", "PDNS_LOG_SIZE": "7"},
			want: func(c *config) {
				c.numProcs, c.layout, c.bpf, c.bpfSet, c.logMaxSize = 2, layoutLookup, "port 53 and udp", true, 7
			},
		},
		{
			name:        "flag over env file and environment",
			envFile:     "PDNS_THREADS=2\nPDNS_QUIET=true\n",
			environment: map[string]string{"PDNS_THREADS": "3", "PDNS_QUIET": "true"},
			args:        []string{"-numprocs", "4", "-quiet=false"},
			want:        func(c *config) { c.numProcs = 4 },
		},
		{
			name:        "empty counts as given",
			envFile:     "PDNS_LOG_FILE=\nPDNS_QUIET=\n",
			environment: map[string]string{"PDNS_LOG_FILE": "l", "PDNS_QUIET": "true", "PDNS_INCOMPLETE": "", "PDNS_PROFILE_FILE": "p"},
			args:        []string{"-cpuprofile", ""},
			want:        func(c *config) { c.incomplete = false },
		},
		{
			name: "the default expression written out is the user's",
			args: []string{"-bpf", "port 53"},
			want: func(c *config) { c.bpfSet = true },
		},
		{
			name:    "variables without effect are named, those of others are not",
			envFile: "PDNS_TREADS=2\nPDNS_ENV_FILE=other\nHOME=/root\n",
			want: func(c *config) {
				c.warnings = []string{"PDNS_ENV_FILE in .env has no effect", "unknown variable PDNS_TREADS in .env"}
			},
		},
		{
			name:    "no env file at all",
			envFile: "PDNS_THREADS=2\n",
			args:    []string{"-env_file", ""},
			want:    func(c *config) { c.envFile = "" },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := configFrom(t, tt.envFile, tt.environment, append([]string{"-pcap", "x", "-name", "s"}, tt.args...)...)
			if err != nil {
				t.Fatalf("error: %v", err)
			}
			want := defaultConfig()
			tt.want(&want)
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
		})
	}
}

func TestParseConfigHelpAndVersion(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want config
	}{
		{[]string{"-h"}, config{showHelp: true}},
		{[]string{"--help"}, config{showHelp: true}},
		{[]string{"-version", "-numprocs", "x"}, config{showVersion: true}},
		{[]string{"-version=false", "-help"}, config{showHelp: true}},
	} {
		got, err := configFrom(t, "no env file at all", nil, tt.args...)
		if err != nil {
			t.Fatalf("%v: error: %v", tt.args, err)
		}
		if !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("%v: got %+v, want %+v", tt.args, *got, tt.want)
		}
	}
}

func TestParseConfigName(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatalf("this machine has no name: %v", err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, host},
		{[]string{"-name", ""}, ""},
		{[]string{"-name", "café \"1\""}, "café \"1\""},
	} {
		got, err := configFrom(t, "", nil, append([]string{"-pcap", "x"}, tt.args...)...)
		if err != nil {
			t.Fatalf("%v: error: %v", tt.args, err)
		}
		if got.name != tt.want {
			t.Errorf("%v: got name %q, want %q", tt.args, got.name, tt.want)
		}
	}
}

// The words of the errors are in testdata/script; here is what a script can't write.
func TestParseConfigErrors(t *testing.T) {
	long := strings.Repeat("x", 300)
	const fileHint = "name another with -env_file FILE, or none with -env_file ''"
	for _, tt := range []struct {
		envFile string
		args    []string
		want    usageError
	}{
		{"", []string{"-pcap", "x", "-name", "\xff"},
			usageError{`bad value "\xff" for -name`, "want at most 255 bytes of UTF-8"}},
		{"", []string{"-pcap", "x", "-layout", long},
			usageError{`bad value "` + long[:80] + `"… for -layout`, "want rr or lookup"}},
		{"", []string{"-pcap", "x", "a\nb"},
			usageError{`unexpected argument "a\nb"`, "a capture file is named with -pcap FILE"}},
		{"", []string{"-" + long},
			usageError{`unknown flag "-` + long[:79] + `"…`, "gopassivedns -h lists the flags"}},
		{"", []string{"-pcap", "x", "-gc_age", "-2562047h47m16.854775808s"},
			usageError{`bad value "-2562047h47m16.854775808s" for -gc_age`, "want a duration other than zero, such as 90s, 1m or 1h30m"}},
		{"A=1\n\nB", nil, usageError{"env file .env: line 3 is not NAME=value", fileHint}},
		{"A=1\nB C=2\n", nil, usageError{"env file .env: line 2 is not NAME=value", fileHint}},
		{"A='1\n2'\nSECRET=\"hunter2\n\n", nil, usageError{"env file .env: line 3 is not NAME=value", fileHint}},
		{strings.Repeat("#\n", maxEnvFile), nil, usageError{"env file .env: larger than 64 KiB", fileHint}},
		{"A=xx\n" + strings.Repeat("A=$A$A$A\n", 30), nil, usageError{"env file .env: 90 $ signs could expand without end", fileHint}},
	} {
		_, err := configFrom(t, tt.envFile, nil, tt.args...)
		var got *usageError
		if !errors.As(err, &got) {
			t.Errorf("%q: got error %v, want %v", tt.args, err, tt.want)
			continue
		}
		if *got != tt.want {
			t.Errorf("%q:\ngot  %q\nwant %q", tt.args, *got, tt.want)
		}
	}
}

func TestOptionTable(t *testing.T) {
	seen := make(map[string]bool)
	group, groups := "", make(map[string]bool)
	for _, o := range optionTable() {
		for _, name := range []string{o.flag, o.env} {
			if name != "" && seen[name] {
				t.Errorf("%s is in the table twice", name)
			}
			seen[name] = true
		}
		if o.env != "" && !strings.HasPrefix(o.env, "PDNS_") {
			t.Errorf("-%s: variable %s does not begin with PDNS_", o.flag, o.env)
		}
		if o.group != group {
			if groups[o.group] {
				t.Errorf("-%s: the rows of group %q are not together", o.flag, o.group)
			}
			group = o.group
			groups[group] = true
		}
		if strings.ContainsAny(o.meaning+o.def, "|\n") {
			t.Errorf("-%s: the text breaks a Markdown table", o.flag)
		}
		if o.derived == nil && o.def != "" {
			if want := o.set(new(config), o.def); want != "" {
				t.Errorf("-%s: default %q: want %s", o.flag, o.def, want)
			}
		}
	}
}

// readmeFlags is the README's section between the flags markers.
func readmeFlags() string {
	cell := func(text string) string {
		if text == "" {
			return ""
		}
		return "`" + text + "`"
	}
	var b strings.Builder
	group := ""
	for _, o := range optionTable() {
		if o.group != group {
			group = o.group
			fmt.Fprintf(&b, "\n**%s**\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n", group)
		}
		def := cell(o.def)
		if o.derived != nil {
			def = o.def
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(strings.TrimSpace("-"+o.flag+" "+o.arg)), cell(o.env), def, o.meaning)
	}
	return b.String() + "\n"
}

func TestReadmeFlags(t *testing.T) {
	checkReadme(t, "flags", readmeFlags())
}

func TestHelpNamesEverything(t *testing.T) {
	var b bytes.Buffer
	writeHelp(&b)
	words := strings.Join(strings.Fields(b.String()), " ")
	for _, o := range optionTable() {
		for _, want := range []string{"-" + o.flag, o.env, o.def, o.group + ":", o.meaning} {
			if !strings.Contains(words, want) {
				t.Errorf("-%s: the help does not contain %q", o.flag, want)
			}
		}
	}
	for line := range strings.Lines(b.String()) {
		if len(strings.TrimSuffix(line, "\n")) > 84 {
			t.Errorf("line of %d bytes: %q", len(line)-1, line)
		}
	}
}

// checkParsed says what holds for every outcome of parseConfig: a complete, valid config, or an error of one line.
func checkParsed(t *testing.T, c *config, err error) {
	t.Helper()
	if err != nil {
		var usage *usageError
		if !errors.As(err, &usage) || c != nil {
			t.Fatalf("got config %v and error %v, want no config and a *usageError", c, err)
		}
		for _, line := range []string{usage.msg, usage.hint} {
			if line == "" || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("message %q is not one printable line", line)
			}
		}
		return
	}
	if c.showHelp || c.showVersion {
		return
	}
	valid := c.pcap != "" && c.gcAge > 0 && c.gcInterval > 0 && c.maxPending > 0 && len(c.name) <= maxNameLen &&
		c.sections > 0 && c.sections <= wantAnswer|wantAuthority|wantAdditional && c.layout <= layoutLookup &&
		c.logMaxAge >= 0 && c.logMaxBackups >= 0 && c.logMaxSize > 0 && c.numProcs > 0 && c.numProcs <= maxProcs
	if !valid {
		t.Fatalf("config is not valid: %+v", *c)
	}
}

// FuzzFlags: any command line gives a valid config or an error; and one value means the same as a flag and as
// the option's variable.
func FuzzFlags(f *testing.F) {
	for _, seed := range []string{
		"-pcap\nx", "-pcap=x\n-quiet\n-numprocs\n3", "-h", "-version=", "--gc_age=-1m\n-pcap=x", "-", "--", "---x", "-=x", "-quiet\nfalse",
		"-sections=answer,additional\n-layout=lookup\n-pcap\nx", "-gc_interval\n-9223372036854775808ns", "-nmprocs=2", "-name=\xff\xfe",
	} {
		f.Add(seed, uint8(len(seed)))
	}
	table := optionTable()
	f.Fuzz(func(t *testing.T, line string, row uint8) {
		args := append(strings.Split(line, "\n"), "-env_file=")
		c, err := parseConfig(args, lookupIn(nil))
		checkParsed(t, c, err)

		o := table[int(row)%len(table)]
		if o.env == "" || o.env == "PDNS_ENV_FILE" {
			return
		}
		base := []string{"-pcap=x", "-env_file="}
		if o.flag == "pcap" {
			base = base[1:]
		}
		byFlag, flagErr := parseConfig(append(base, "-"+o.flag+"="+line), lookupIn(nil))
		checkParsed(t, byFlag, flagErr)
		byVariable, variableErr := parseConfig(base, lookupIn(map[string]string{o.env: line}))
		checkParsed(t, byVariable, variableErr)
		if !reflect.DeepEqual(byFlag, byVariable) || (flagErr == nil) != (variableErr == nil) {
			t.Fatalf("-%s=%q gives %+v (%v), %s=%q gives %+v (%v)", o.flag, line, byFlag, flagErr, o.env, line, byVariable, variableErr)
		}
	})
}

// FuzzEnvFile: any text gives variables or an error; what is accepted is also accepted when written back plainly,
// with the same values; and it gives a valid config or an error.
func FuzzEnvFile(f *testing.F) {
	for _, seed := range []string{
		"PDNS_THREADS=2\nPDNS_QUIET=\n", "export PDNS_BPF='port 53' # c\n", "A: b\nC=$A${A}\\$A", "A=\"x\\n\" junk", "A='", "#\r\n\r\nA=\r\n",
		"PDNS_NOPE=1", "B C=1", "NOTHING", "\xef\xbb\xbfA=1", "A=$(B)\n",
	} {
		f.Add([]byte(seed))
	}
	file := filepath.Join(f.TempDir(), "env")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatalf("write %s: %v", file, err)
		}
		c, err := parseConfig([]string{"-pcap=x", "-env_file", file}, lookupIn(nil))
		checkParsed(t, c, err)

		vars, problem := parseEnvFile(text)
		if problem != "" {
			if err == nil {
				t.Fatalf("the file is refused (%s), the configuration is not", problem)
			}
			return
		}
		var plain strings.Builder
		want := make(map[string]string)
		for _, name := range slices.Sorted(maps.Keys(vars)) {
			value := vars[name]
			if !strings.ContainsAny(value, "'\\\r") {
				fmt.Fprintf(&plain, "%s='%s'\n", name, value)
				want[name] = value
			}
		}
		again, problem := parseEnvFile([]byte(plain.String()))
		if plain.Len() <= maxEnvFile && !strings.Contains(plain.String(), "$") && (problem != "" || !reflect.DeepEqual(again, want)) {
			t.Fatalf("written back: got %q (%s), want %q", again, problem, want)
		}
	})
}
