// Configuration: the command line, an env file and the environment go in, one validated config comes out.
//
// Every option is one row of optionTable: its flag, its variable, its default as the user would write it, the
// group it is listed under, what it means, and the setter that checks its text. Parsing, the help, the tests
// and the flags table of the README all read that table, so a new option is a row and a field of config.
//
// For each option the command line wins over the env file, which wins over the environment; a value that was
// given counts as given even where it is empty or false. Only the winning value is looked at.
// Nothing here prints or exits, and the process environment is never changed: what is wrong with the user's
// words comes back as *usageError, what is merely suspicious as config.warnings.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/joho/godotenv"
)

// config is what the user asked for, checked and complete. It is written by parseConfig alone and only read
// afterwards, so goroutines may share it.
type config struct {
	pcap   string   // capture file to read
	devs   []string // devices to capture from; exactly one of pcap and devs is given
	bpf    string   // filter expression
	bpfSet bool     // the user gave bpf: it is libpcap's to compile, not the built-in default

	snaplen           int  // bytes of a packet that a device delivers
	bufferMB          int  // kernel ring of each device
	promisc           bool // promiscuous mode, of devices other than any
	pfring            bool // PF_RING instead of libpcap
	pfringCluster     int  // PF_RING cluster id, 0 for none
	exitOnDeviceError bool
	user              string // to become once the devices are open, "" for staying

	gcAge      time.Duration // positive: how long a lookup waits for its other leg, in packet time
	gcInterval time.Duration // positive: how often what has waited too long is looked for
	maxPending int           // lookups waiting at once, all workers together

	name       string // sensor name, valid UTF-8 of at most maxNameLen bytes
	sections   sectionSet
	layout     recordLayout
	incomplete bool // write unanswered and unsolicited records

	quiet         bool
	debug         bool
	logFile       string // "" for none
	logMaxAge     int    // days, 0 for no limit
	logMaxBackups int    // files, 0 for no limit
	logMaxSize    int    // MB
	logCompress   bool
	logFileMode   fs.FileMode

	queueMB           int           // bound of each sink's queue
	drainTimeout      time.Duration // positive
	syslog            syslogOptions // facility is "" for none
	fluentd           fluentdOptions
	kafka             kafkaOptions // topic is "" for none
	kafkaPasswordFile string

	statusInterval time.Duration // packet time between status records, 0 for none
	statsdHost     string        // host:port, "" for none
	statsdInterval time.Duration
	statsdPrefix   string
	metricsAddr    string // host:port, "" for none

	numProcs   int    // workers, 1 to maxProcs
	cpuProfile string // "" for none
	envFile    string // "" for none

	showVersion bool
	showHelp    bool

	warnings []string // one line each, for stderr
}

// sectionSet is the set of message sections whose RRs get a record.
type sectionSet uint8

const (
	wantAnswer sectionSet = 1 << iota
	wantAuthority
	wantAdditional
)

// recordLayout says what one output line stands for.
type recordLayout uint8

const (
	layoutRR     recordLayout = iota // a line per RR
	layoutLookup                     // a line per lookup, its RRs in arrays
)

const (
	maxProcs     = 1024
	maxDevices   = 64      // of -dev; each has its own kernel buffer
	anyDevice    = "any"   // libpcap's name of all devices together
	maxNameLen   = 255     // bytes of -name, so that a record's fixed part stays small
	maxEnvFile   = 1 << 16 // bytes of an env file
	maxEnvGrowth = 1 << 26 // bytes that an env file may grow to when its variables are expanded
	defaultEnv   = ".env"
	defaultTag   = "gopassivedns.NAME"
	envFileHint  = "name another with -env_file FILE, or none with -env_file ''"
)

// usageError is a mistake in what the user wrote: the caller prints it and exits 2. msg names the flag, variable
// or file and the value; hint says what would be right and may be empty. Neither contains a line break.
type usageError struct {
	msg, hint string
}

func (e *usageError) Error() string { return e.msg }

// print writes the error as the user sees it, one line, and a second one if there is a hint.
func (e *usageError) print(w io.Writer) {
	fmt.Fprintf(w, "gopassivedns: %s\n", e.msg)
	if e.hint != "" {
		fmt.Fprintf(w, "hint: %s\n", e.hint)
	}
}

// option is one row of the table.
type option struct {
	flag    string
	env     string // "" where there is no variable
	arg     string // what the help calls the value; "" for a bool, which needs none
	def     string // the default as the user would write it
	derived func() (string, error)
	group   string
	meaning string // plain text, also a cell of a Markdown table
	// set checks value and stores it in c. It returns "", or what it wanted instead, as the end of the
	// sentence "hint: want …".
	set func(c *config, value string) (want string)
}

// The groups of the help, in the order of the table's rows.
const (
	groupInput    = "Input"
	groupLive     = "Live capture"
	groupMatching = "Matching"
	groupRecords  = "Records"
	groupOutput   = "Output"
	groupFile     = "Output to a file"
	groupSyslog   = "Output to syslog"
	groupFluentd  = "Output to Fluentd"
	groupKafka    = "Output to Kafka"
	groupMonitor  = "Monitoring"
	groupProcess  = "Process"
)

// optionTable returns all options. Where derived is set it computes the default at start, and def only
// describes it.
func optionTable() []option {
	return []option{
		{flag: "pcap", env: "PDNS_PCAP_FILE", arg: "FILE", group: groupInput,
			meaning: "captures to read: files, directories and patterns, separated by commas, in the order of their first packets; pcap or pcapng, plain or compressed with gzip or zstd; - is standard input",
			set:     setString(func(c *config) *string { return &c.pcap })},
		{flag: "bpf", env: "PDNS_BPF", arg: "EXPR", def: "port 53", group: groupInput,
			meaning: "packets to look at; the default also takes VLAN-tagged DNS and its IP fragments, an expression given here means what it means to tcpdump",
			set:     setString(func(c *config) *string { return &c.bpf })},

		{flag: "dev", env: "PDNS_DEV", arg: "DEVICE,…", group: groupLive,
			meaning: "network devices to capture from, separated by commas; any is all of them",
			set:     setDevices},
		{flag: "snaplen", env: "PDNS_SNAPLEN", arg: "BYTES", def: "65535", group: groupLive,
			meaning: "bytes of each packet that are captured",
			set:     setInt(func(c *config) *int { return &c.snaplen }, 96, 262_144)},
		{flag: "buffer_size", env: "PDNS_BUFFER_SIZE", arg: "MB", def: "64", group: groupLive,
			meaning: "kernel buffer of each device in MB; it bridges the time in which the program can't keep up",
			set:     setInt(func(c *config) *int { return &c.bufferMB }, 1, 2047)},
		{flag: "promisc", env: "PDNS_PROMISC", def: "true", group: groupLive,
			meaning: "also see packets for other hosts (promiscuous mode); any never does",
			set:     setBool(func(c *config) *bool { return &c.promisc })},
		{flag: "exit_on_device_error", env: "PDNS_EXIT_ON_DEVICE_ERROR", def: "false", group: groupLive,
			meaning: "exit with 1 when a device vanishes or goes down, instead of waiting for it to come back",
			set:     setBool(func(c *config) *bool { return &c.exitOnDeviceError })},
		{flag: "user", env: "PDNS_USER", arg: "NAME", group: groupLive,
			meaning: "user to become, with its groups, once the devices are open; for a start as root",
			set:     setString(func(c *config) *string { return &c.user })},
		{flag: "pfring", env: "PDNS_PFRING", def: "false", group: groupLive,
			meaning: "capture with PF_RING; for a binary built with -tags pfring",
			set:     setBool(func(c *config) *bool { return &c.pfring })},
		{flag: "pfring_cluster", env: "PDNS_PFRING_CLUSTER", arg: "N", def: "0", group: groupLive,
			meaning: "PF_RING cluster to join, whose members share the flows among them; 0: none",
			set:     setInt(func(c *config) *int { return &c.pfringCluster }, 0, 255)},

		{flag: "gc_age", env: "PDNS_GC_AGE", arg: "DURATION", def: "-1m", group: groupMatching,
			meaning: "how long a query waits for its response, in packet time, before it counts as unanswered; 1m and -1m mean the same",
			set:     setDuration(func(c *config) *time.Duration { return &c.gcAge })},
		{flag: "gc_interval", env: "PDNS_GC_INTERVAL", arg: "DURATION", def: "3m", group: groupMatching,
			meaning: "how often queries that have waited too long are looked for, in packet time; the sign means nothing",
			set:     setDuration(func(c *config) *time.Duration { return &c.gcInterval })},
		{flag: "max_pending", env: "PDNS_MAX_PENDING", arg: "N", def: "1000000", group: groupMatching,
			meaning: "lookups that may wait at once, all workers together; beyond it the oldest are given up and counted",
			set:     setInt(func(c *config) *int { return &c.maxPending }, 1, 1_000_000_000)},

		{flag: "name", env: "PDNS_NAME", arg: "NAME", def: "the host's name", derived: os.Hostname, group: groupRecords,
			meaning: "name of this sensor, in every record",
			set:     setName},
		{flag: "sections", env: "PDNS_SECTIONS", arg: "LIST", def: "answer", group: groupRecords,
			meaning: "sections whose RRs are written: answer, authority, additional, separated by commas",
			set:     setSections},
		{flag: "layout", env: "PDNS_LAYOUT", arg: "LAYOUT", def: "rr", group: groupRecords,
			meaning: "rr: a line for each RR; lookup: a line for each lookup, its RRs in arrays",
			set:     setLayout},
		{flag: "incomplete", env: "PDNS_INCOMPLETE", def: "true", group: groupRecords,
			meaning: "write a record for a query without response and for a response without query; false: only count them",
			set:     setBool(func(c *config) *bool { return &c.incomplete })},

		{flag: "quiet", env: "PDNS_QUIET", def: "false", group: groupOutput,
			meaning: "write no records to stdout",
			set:     setBool(func(c *config) *bool { return &c.quiet })},
		{flag: "debug", env: "PDNS_DEBUG", def: "false", group: groupOutput,
			meaning: "say what the program does, as JSON lines with level and msg on stdout",
			set:     setBool(func(c *config) *bool { return &c.debug })},
		{flag: "queue_size", env: "PDNS_QUEUE_SIZE", arg: "MB", def: "64", group: groupOutput,
			meaning: "records that may wait for one sink, in MB; when they are more, reading a file waits (for that 8 MB do), live capture drops new ones for this sink and counts them",
			set:     setInt(func(c *config) *int { return &c.queueMB }, 1, 65_536)},
		{flag: "drain_timeout", env: "PDNS_DRAIN_TIMEOUT", arg: "DURATION", def: "10s", group: groupOutput,
			meaning: "how long sinks may take to deliver what they hold once the program was told to stop; behind the end of a file they take the time they need",
			set:     setDuration(func(c *config) *time.Duration { return &c.drainTimeout })},

		{flag: "logfile", env: "PDNS_LOG_FILE", arg: "FILE", group: groupFile,
			meaning: "also write the records to this file, which is rotated",
			set:     setString(func(c *config) *string { return &c.logFile })},
		{flag: "logMaxAge", env: "PDNS_LOG_AGE", arg: "DAYS", def: "28", group: groupFile,
			meaning: "days that a rotated file is kept; 0: for ever",
			set:     setInt(func(c *config) *int { return &c.logMaxAge }, 0, 36_500)},
		{flag: "logMaxBackups", env: "PDNS_LOG_BACKUP", arg: "N", def: "3", group: groupFile,
			meaning: "rotated files that are kept; 0: all of them",
			set:     setInt(func(c *config) *int { return &c.logMaxBackups }, 0, 1_000_000)},
		{flag: "logMaxSize", env: "PDNS_LOG_SIZE", arg: "MB", def: "100", group: groupFile,
			meaning: "size in MB at which the file is rotated",
			set:     setInt(func(c *config) *int { return &c.logMaxSize }, 1, 1_000_000)},
		{flag: "logCompress", env: "PDNS_LOG_COMPRESS", def: "false", group: groupFile,
			meaning: "compress rotated files with gzip",
			set:     setBool(func(c *config) *bool { return &c.logCompress })},
		{flag: "logFileMode", env: "PDNS_LOG_FILE_MODE", arg: "MODE", def: "0640", group: groupFile,
			meaning: "mode of the files, in octal",
			set:     setFileMode},

		{flag: "syslog_facility", env: "PDNS_SYSLOG_FACILITY", arg: "NAME", group: groupSyslog,
			meaning: "write the records to syslog, as this facility; a name of RFC 5424 such as local0, in any case; needs -syslog_priority",
			set:     setString(func(c *config) *string { return &c.syslog.facility })},
		{flag: "syslog_priority", env: "PDNS_SYSLOG_PRIORITY", arg: "NAME", group: groupSyslog,
			meaning: "severity of the records in syslog, such as info, and their level field; needs -syslog_facility",
			set:     setString(func(c *config) *string { return &c.syslog.priority })},
		{flag: "syslog_address", env: "PDNS_SYSLOG_ADDRESS", arg: "ADDRESS", group: groupSyslog,
			meaning: "where syslog listens: udp://host:port, tcp://host:port or unix:path; the local daemon where none is given",
			set:     setString(func(c *config) *string { return &c.syslog.address })},

		{flag: "fluentd_socket", env: "PDNS_FLUENTD_SOCKET", arg: "PATH", group: groupFluentd,
			meaning: "write the records to Fluentd: path of its unix socket, or tcp://host:port",
			set:     setString(func(c *config) *string { return &c.fluentd.address })},
		{flag: "fluentd_tag", env: "PDNS_FLUENTD_TAG", arg: "TAG", def: "gopassivedns.NAME", group: groupFluentd,
			meaning: "tag of the records; NAME in the default is -name",
			set:     setString(func(c *config) *string { return &c.fluentd.tag })},
		{flag: "fluentd_ack", env: "PDNS_FLUENTD_ACK", def: "true", group: groupFluentd,
			meaning: "wait for Fluentd to acknowledge each batch, and send it again where it does not",
			set:     setBool(func(c *config) *bool { return &c.fluentd.ack })},

		{flag: "kafka_brokers", env: "PDNS_KAFKA_PEERS", arg: "HOST:PORT,…", group: groupKafka,
			meaning: "write the records to Kafka: some brokers of the cluster, separated by commas; needs -kafka_topic",
			set:     setBrokers},
		{flag: "kafka_topic", env: "PDNS_KAFKA_TOPIC", arg: "TOPIC", group: groupKafka,
			meaning: "topic of the records; needs -kafka_brokers",
			set:     setString(func(c *config) *string { return &c.kafka.topic })},
		{flag: "kafka_key", env: "PDNS_KAFKA_KEY", arg: "KEY", def: "none", group: groupKafka,
			meaning: "key of the messages, which decides the partition: none, client, qname or sensor",
			set:     setChoice(func(c *config) *string { return &c.kafka.key }, "none", "client", "qname", "sensor")},
		{flag: "kafka_compression", env: "PDNS_KAFKA_COMPRESSION", arg: "CODEC", def: "zstd", group: groupKafka,
			meaning: "compression of the messages: none, gzip, snappy, lz4 or zstd",
			set:     setChoice(func(c *config) *string { return &c.kafka.compression }, "none", "gzip", "snappy", "lz4", "zstd")},
		{flag: "kafka_acks", env: "PDNS_KAFKA_ACKS", arg: "ACKS", def: "all", group: groupKafka,
			meaning: "replicas that must have a message before it counts as delivered: all (idempotent, at least once), 1 or 0",
			set:     setChoice(func(c *config) *string { return &c.kafka.acks }, "all", "1", "0")},
		{flag: "kafka_version", env: "PDNS_KAFKA_VERSION", arg: "VERSION", group: groupKafka,
			meaning: "newest protocol to speak, as the version of Kafka that has it, such as 3.6.0; by default one that all brokers of the last years know",
			set:     setString(func(c *config) *string { return &c.kafka.version })},
		{flag: "kafka_tls", env: "PDNS_KAFKA_TLS", def: "false", group: groupKafka,
			meaning: "use TLS",
			set:     setBool(func(c *config) *bool { return &c.kafka.tls })},
		{flag: "kafka_tls_ca", env: "PDNS_KAFKA_TLS_CA", arg: "FILE", group: groupKafka,
			meaning: "PEM file of the authorities that may have signed the brokers' certificates; the system's where none is given",
			set:     setString(func(c *config) *string { return &c.kafka.tlsCA })},
		{flag: "kafka_tls_cert", env: "PDNS_KAFKA_TLS_CERT", arg: "FILE", group: groupKafka,
			meaning: "PEM file of this client's certificate; needs -kafka_tls_key",
			set:     setString(func(c *config) *string { return &c.kafka.tlsCert })},
		{flag: "kafka_tls_key", env: "PDNS_KAFKA_TLS_KEY", arg: "FILE", group: groupKafka,
			meaning: "PEM file of its key",
			set:     setString(func(c *config) *string { return &c.kafka.tlsKey })},
		{flag: "kafka_sasl_mechanism", env: "PDNS_KAFKA_SASL_MECHANISM", arg: "MECHANISM", group: groupKafka,
			meaning: "log in by SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; the password comes from PDNS_KAFKA_SASL_PASSWORD, in .env or the environment, or from a file",
			set:     setChoice(func(c *config) *string { return &c.kafka.saslMechanism }, "", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")},
		{flag: "kafka_sasl_user", env: "PDNS_KAFKA_SASL_USER", arg: "USER", group: groupKafka,
			meaning: "user to log in as",
			set:     setString(func(c *config) *string { return &c.kafka.saslUser })},
		{flag: "kafka_sasl_password_file", env: "PDNS_KAFKA_SASL_PASSWORD_FILE", arg: "FILE", group: groupKafka,
			meaning: "file that holds the password, and nothing else",
			set:     setString(func(c *config) *string { return &c.kafkaPasswordFile })},

		{flag: "status_interval", env: "PDNS_STATUS_INTERVAL", arg: "DURATION", def: "0", group: groupMonitor,
			meaning: "how often a status record is written among the records, in packet time, and one at the end; 0: none; a number alone means seconds",
			set:     setStatusInterval},
		{flag: "statsd_host", env: "PDNS_STATSD_HOST", arg: "HOST:PORT", group: groupMonitor,
			meaning: "statsd daemon to send metrics to, over UDP; the port is 8125 where none is given",
			set:     setStatsdHost},
		{flag: "statsd_interval", env: "PDNS_STATSD_INTERVAL", arg: "SECONDS", def: "5", group: groupMonitor,
			meaning: "seconds between two reports to statsd",
			set:     setStatsdInterval},
		{flag: "statsd_prefix", env: "PDNS_STATSD_PREFIX", arg: "PREFIX", def: "gopassivedns", group: groupMonitor,
			meaning: "what the names of metrics in statsd begin with, before the sensor's name",
			set:     setStatsdPrefix},
		{flag: "metrics_addr", env: "PDNS_METRICS_ADDR", arg: "HOST:PORT", group: groupMonitor,
			meaning: "address at which Prometheus finds /metrics, and anybody /healthz; :PORT or PORT alone listens on the loopback address only",
			set:     setMetricsAddr},

		{flag: "numprocs", env: "PDNS_THREADS", arg: "N", def: "8", group: groupProcess,
			meaning: "workers that decode and match; the output does not depend on it",
			set:     setInt(func(c *config) *int { return &c.numProcs }, 1, maxProcs)},
		{flag: "cpuprofile", env: "PDNS_PROFILE_FILE", arg: "FILE", group: groupProcess,
			meaning: "write a CPU profile for go tool pprof to this file",
			set:     setString(func(c *config) *string { return &c.cpuProfile })},
		{flag: "env_file", env: "PDNS_ENV_FILE", arg: "FILE", def: defaultEnv, group: groupProcess,
			meaning: "file of NAME=value lines, read for the variables of this table; only the default may be absent, and an empty name means no file",
			set:     setString(func(c *config) *string { return &c.envFile })},
		{flag: "version", group: groupProcess,
			meaning: "print the version and exit",
			set:     setBool(func(c *config) *bool { return &c.showVersion })},
		{flag: "h", group: groupProcess,
			meaning: "print this help and exit; also -help",
			set:     setBool(func(c *config) *bool { return &c.showHelp })},
	}
}

// kafkaPasswordEnv is the one variable that has no flag: a command line is for everyone to see.
const kafkaPasswordEnv = "PDNS_KAFKA_SASL_PASSWORD"

// setChoice takes one of the words given, in any case.
func setChoice(field func(*config) *string, words ...string) func(*config, string) string {
	return func(c *config, value string) string {
		for _, w := range words {
			if strings.EqualFold(w, value) {
				*field(c) = w
				return ""
			}
		}
		return "one of " + strings.TrimPrefix(strings.Join(words, ", "), ", ")
	}
}

// setBrokers stores a list of brokers. Their form is checked with the other settings of Kafka.
func setBrokers(c *config, value string) string {
	c.kafka.brokers = nil
	for b := range strings.SplitSeq(value, ",") {
		if b = strings.TrimSpace(b); b != "" {
			c.kafka.brokers = append(c.kafka.brokers, b)
		}
	}
	if value != "" && len(c.kafka.brokers) == 0 {
		return "host:port, several separated by commas"
	}
	return ""
}

// setFileMode takes permission bits in octal. The owner must be able to write the file.
func setFileMode(c *config, value string) string {
	n, err := strconv.ParseUint(value, 8, 32)
	if err != nil || n > 0o777 || n&0o200 == 0 {
		return "an octal mode that lets the owner write, such as 0640"
	}
	c.logFileMode = fs.FileMode(n)
	return ""
}

// checkSinks completes and checks the settings that belong together. password is the value of kafkaPasswordEnv.
func (c *config) checkSinks(password string) error {
	if (c.syslog.facility == "") != (c.syslog.priority == "") {
		return &usageError{msg: fmt.Sprintf("-syslog_facility is %s and -syslog_priority is %s", quote(c.syslog.facility), quote(c.syslog.priority)),
			hint: "give both (PDNS_SYSLOG_FACILITY, PDNS_SYSLOG_PRIORITY) or neither"}
	}
	if c.syslog.facility != "" {
		if err := c.syslog.validate(); err != nil {
			return &usageError{msg: "bad -syslog_… setting: " + err.Error()}
		}
	} else if c.syslog.address != "" {
		return &usageError{msg: "-syslog_address is given, but no records go to syslog", hint: "give -syslog_facility and -syslog_priority"}
	}
	if c.fluentd.tag == defaultTag {
		c.fluentd.tag = "gopassivedns." + strings.Map(func(r rune) rune {
			if r <= ' ' || !unicode.IsPrint(r) {
				return '_'
			}
			return r
		}, c.name)
	}
	if c.fluentd.address != "" {
		if err := c.fluentd.validate(); err != nil {
			return &usageError{msg: "bad -fluentd_… setting: " + err.Error()}
		}
	}
	k := &c.kafka
	if (len(k.brokers) == 0) != (k.topic == "") {
		return &usageError{msg: fmt.Sprintf("-kafka_brokers is %s and -kafka_topic is %s", quote(strings.Join(k.brokers, ",")), quote(k.topic)),
			hint: "give both (PDNS_KAFKA_PEERS, PDNS_KAFKA_TOPIC) or neither"}
	}
	if k.topic == "" {
		return nil
	}
	if c.kafkaPasswordFile != "" {
		b, err := os.ReadFile(c.kafkaPasswordFile)
		if err != nil {
			return &usageError{msg: fmt.Sprintf("read -kafka_sasl_password_file %s: %v", quote(c.kafkaPasswordFile), pathReason(err))}
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	k.saslPassword = newSecret(password)
	if err := k.validate(); err != nil {
		return &usageError{msg: "bad -kafka_… setting: " + err.Error()}
	}
	return nil
}

func setString(field func(*config) *string) func(*config, string) string {
	return func(c *config, value string) string {
		*field(c) = value
		return ""
	}
}

// setBool takes an empty value for false, so that "PDNS_QUIET=" in an env file switches off what the
// environment switched on.
func setBool(field func(*config) *bool) func(*config, string) string {
	return func(c *config, value string) string {
		on, err := strconv.ParseBool(value)
		if err != nil && value != "" {
			return "true or false"
		}
		*field(c) = on
		return ""
	}
}

func setInt(field func(*config) *int, low, high int) func(*config, string) string {
	return func(c *config, value string) string {
		n, err := strconv.Atoi(value)
		if err != nil || n < low || n > high {
			return fmt.Sprintf("a whole number from %d to %d", low, high)
		}
		*field(c) = n
		return ""
	}
}

// setDuration stores the absolute value: the original program took the age as a negative duration, and its
// users' configuration goes on working.
func setDuration(field func(*config) *time.Duration) func(*config, string) string {
	return func(c *config, value string) string {
		d, err := time.ParseDuration(value)
		if err != nil || d == 0 || d == math.MinInt64 {
			return "a duration other than zero, such as 90s, 1m or 1h30m"
		}
		*field(c) = max(d, -d)
		return ""
	}
}

// setDevices stores a list of device names. A name given twice would be captured twice.
func setDevices(c *config, value string) string {
	c.devs = nil
	if value == "" {
		return ""
	}
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		if name == "" || strings.ContainsFunc(name, unicode.IsSpace) || len(name) > maxNameLen {
			return "names of devices, separated by commas"
		}
		if slices.Contains(c.devs, name) {
			return "each device once"
		}
		c.devs = append(c.devs, name)
	}
	if len(c.devs) > maxDevices {
		return fmt.Sprintf("at most %d devices", maxDevices)
	}
	if len(c.devs) > 1 && slices.Contains(c.devs, anyDevice) {
		return "any alone, since it includes the others"
	}
	return ""
}

// setStatusInterval takes a duration, or a number of seconds.
func setStatusInterval(c *config, value string) string {
	d, err := time.ParseDuration(value)
	if n, err2 := strconv.Atoi(value); err2 == nil && n <= int(math.MaxInt64/time.Second) {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d != 0 && d < time.Second {
		return "0, or a duration of 1s or more, such as 60 or 5m"
	}
	c.statusInterval = d
	return ""
}

// setStatsdHost adds statsd's port where none is given.
func setStatsdHost(c *config, value string) string {
	const want = "host:port, such as 127.0.0.1:8125"
	if value == "" {
		c.statsdHost = ""
		return ""
	}
	host, port, err := net.SplitHostPort(value)
	if err != nil && !strings.HasPrefix(value, "[") && strings.Count(value, ":") != 1 {
		host, port, err = value, "8125", nil // a name or address without a port
		if strings.Contains(value, ":") && net.ParseIP(value) == nil {
			return want
		}
	}
	if err != nil || !plainHost(host) || !plainPort(port) {
		return want
	}
	c.statsdHost = net.JoinHostPort(host, port)
	return ""
}

// setMetricsAddr makes the loopback address of what names no host.
func setMetricsAddr(c *config, value string) string {
	if value == "" {
		c.metricsAddr = ""
		return ""
	}
	host, port := "", value
	if !plainPort(value) {
		var err error
		if host, port, err = net.SplitHostPort(value); err != nil || host != "" && !plainHost(host) || !plainPort(port) {
			return "host:port, such as 127.0.0.1:9553, or a port"
		}
	}
	if host == "" {
		host = "127.0.0.1"
	}
	c.metricsAddr = net.JoinHostPort(host, port)
	return ""
}

// plainHost says whether s may be a host's name or address.
func plainHost(s string) bool {
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= utf8.RuneSelf || strings.ContainsRune("/@?#[]", r)
	})
}

// plainPort says whether s is a TCP or UDP port. 0, which lets the system choose one, is none.
func plainPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func setStatsdInterval(c *config, value string) string {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > 86400 {
		return "a whole number from 1 to 86400"
	}
	c.statsdInterval = time.Duration(n) * time.Second
	return ""
}

// setStatsdPrefix refuses what has a meaning of its own in statsd's protocol or in its client.
func setStatsdPrefix(c *config, value string) string {
	if len(value) > 100 || strings.ContainsFunc(value, func(r rune) bool {
		return r <= ' ' || r >= utf8.RuneSelf || strings.ContainsRune(":|@%/#", r)
	}) {
		return "at most 100 letters, digits, dots, dashes and underscores"
	}
	c.statsdPrefix = strings.Trim(value, ".")
	return ""
}

func setName(c *config, value string) string {
	if len(value) > maxNameLen || !utf8.ValidString(value) {
		return fmt.Sprintf("at most %d bytes of UTF-8", maxNameLen)
	}
	c.name = value
	return ""
}

func setSections(c *config, value string) string {
	var set sectionSet
	for name := range strings.SplitSeq(value, ",") {
		switch strings.TrimSpace(name) {
		case "answer":
			set |= wantAnswer
		case "authority":
			set |= wantAuthority
		case "additional":
			set |= wantAdditional
		default:
			return "one or more of answer, authority and additional, separated by commas"
		}
	}
	c.sections = set
	return ""
}

func setLayout(c *config, value string) string {
	switch value {
	case "rr":
		c.layout = layoutRR
	case "lookup":
		c.layout = layoutLookup
	default:
		return "rr or lookup"
	}
	return ""
}

// parseConfig reads args (without the program's name), the env file they name and the variables that lookupEnv
// knows. When the user asks for help or the version, only that is set. Every error is a *usageError.
func parseConfig(args []string, lookupEnv func(string) (string, bool)) (*config, error) {
	table := optionTable()
	flags, err := parseFlags(table, args)
	if err != nil {
		return nil, err
	}

	c := new(config)
	for _, o := range table {
		if value, ok := flags[o.flag]; ok && (o.flag == "h" || o.flag == "version") {
			if want := o.set(c, value); want != "" {
				return nil, badValue("-"+o.flag, value, want)
			}
		}
	}
	if c.showHelp || c.showVersion {
		return c, nil
	}

	fromFile, file, err := readEnvFile(flags, lookupEnv)
	if err != nil {
		return nil, err
	}
	c.warnings = suspectVariables(table, fromFile, file)

	for _, o := range table {
		value, given := flags[o.flag]
		source := "-" + o.flag
		if !given && o.env != "" && o.flag != "env_file" {
			value, given = fromFile[o.env]
			source = o.env + " in " + clip(file)
		}
		if !given && o.env != "" {
			value, given = lookupEnv(o.env)
			source = o.env + " in the environment"
		}
		if !given && o.derived != nil {
			value, err = o.derived()
			if err != nil {
				return nil, &usageError{
					msg:  fmt.Sprintf("no default for -%s: %s", o.flag, clip(err.Error())),
					hint: fmt.Sprintf("give -%s or %s", o.flag, o.env),
				}
			}
			source = "the default of -" + o.flag
		} else if !given {
			value = o.def
			if value == "" {
				continue
			}
		}
		if want := o.set(c, value); want != "" {
			return nil, badValue(source, value, want)
		}
		if o.flag == "bpf" {
			c.bpfSet = given
		}
	}
	switch {
	case c.pcap == "" && len(c.devs) == 0:
		return nil, &usageError{msg: "no input named", hint: "use -dev DEVICE (or PDNS_DEV) or -pcap FILE (or PDNS_PCAP_FILE)"}
	case c.pcap != "" && len(c.devs) > 0:
		return nil, &usageError{msg: "both a device and a file are named as input", hint: "use either -dev (PDNS_DEV) or -pcap (PDNS_PCAP_FILE)"}
	case c.pcap != "" && c.pfring:
		return nil, &usageError{msg: "-pfring does not read files", hint: "use it with -dev DEVICE"}
	}
	password, ok := fromFile[kafkaPasswordEnv]
	if !ok {
		password, _ = lookupEnv(kafkaPasswordEnv)
	}
	if err := c.checkSinks(password); err != nil {
		return nil, err
	}
	return c, nil
}

// parseFlags returns the text given for each flag, by the flag's name in the table; where one is given twice the
// last counts. The syntax is that of Go's flag package: -x value, -x=value, --x likewise, a bool takes its value
// only after "=".
func parseFlags(table []option, args []string) (map[string]string, error) {
	given := make(map[string]string)
	for i := 0; i < len(args); i++ {
		arg := args[i]
		body, isFlag := strings.CutPrefix(arg, "-")
		body = strings.TrimPrefix(body, "-")
		name, value, hasValue := strings.Cut(body, "=")
		if !isFlag || name == "" {
			return nil, strayArgument(table, args, i)
		}
		if name == "help" {
			name = "h"
		}
		at := slices.IndexFunc(table, func(o option) bool { return o.flag == name })
		if at < 0 {
			return nil, &usageError{
				msg:  "unknown flag " + clip("-"+name),
				hint: nearestFlag(table, name) + "gopassivedns -h lists the flags",
			}
		}
		switch o := table[at]; {
		case hasValue:
		case o.arg == "":
			value = "true"
		case i+1 < len(args):
			i++
			value = args[i]
		default:
			return nil, &usageError{
				msg:  fmt.Sprintf("flag -%s needs a value", o.flag),
				hint: fmt.Sprintf("write -%s %s", o.flag, o.arg),
			}
		}
		given[name] = value
	}
	return given, nil
}

// strayArgument is the error for args[i], which is no flag.
func strayArgument(table []option, args []string, i int) error {
	e := &usageError{
		msg:  "unexpected argument " + clip(args[i]),
		hint: "a capture file is named with -pcap FILE",
	}
	if _, err := strconv.ParseBool(args[i]); err == nil && i > 0 {
		name := strings.TrimLeft(args[i-1], "-")
		for _, o := range table {
			if o.flag == name && o.arg == "" {
				e.hint = fmt.Sprintf("write -%s=%s", name, args[i])
			}
		}
	}
	return e
}

// nearestFlag returns a "did you mean" for a mistyped flag, or "".
func nearestFlag(table []option, name string) string {
	best, bestDistance := "", 3
	for _, o := range table {
		if len(name) > 2*len(o.flag)+2 {
			continue
		}
		d := editDistance(strings.ToLower(name), strings.ToLower(o.flag))
		if d < bestDistance && d < len(o.flag) {
			best, bestDistance = o.flag, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean -" + best + "? "
}

// editDistance counts the bytes to insert, delete or replace to make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// readEnvFile finds out which env file is meant and returns its variables and its name. The default file may be
// absent, one that the user named may not.
func readEnvFile(flags map[string]string, lookupEnv func(string) (string, bool)) (vars map[string]string, file string, err error) {
	file, named := flags["env_file"]
	if !named {
		file, named = lookupEnv("PDNS_ENV_FILE")
	}
	if !named {
		file = defaultEnv
	}
	if file == "" {
		return nil, "", nil
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil, file, nil
	}
	if err != nil {
		return nil, file, unreadableEnvFile(file, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err != nil {
		return nil, file, unreadableEnvFile(file, err)
	}
	vars, problem := parseEnvFile(text)
	if problem != "" {
		return nil, file, &usageError{msg: "env file " + clip(file) + ": " + problem, hint: envFileHint}
	}
	return vars, file, nil
}

func unreadableEnvFile(file string, err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	return &usageError{
		msg:  fmt.Sprintf("cannot read env file %s: %v", clip(file), err),
		hint: envFileHint,
	}
}

// parseEnvFile returns the variables of an env file, or what is wrong with it. It never quotes the file, nor
// godotenv's errors, which do: there may be passwords in it.
func parseEnvFile(text []byte) (vars map[string]string, problem string) {
	if len(text) > maxEnvFile {
		return nil, fmt.Sprintf("larger than %d KiB", maxEnvFile>>10)
	}
	// godotenv replaces $NAME by what the file said before. With k references the text grows at most by 3^(k/3),
	// which lines of three references to the line before reach: a kilobyte could ask for all memory.
	references := bytes.Count(text, []byte("$"))
	if float64(len(text))*math.Pow(3, float64(references)/3) > maxEnvGrowth {
		return nil, fmt.Sprintf("%d $ signs could expand without end", references)
	}
	vars, ok := parseEnvText(text)
	if !ok {
		return nil, fmt.Sprintf("line %d is not NAME=value", badEnvLine(text))
	}
	return vars, ""
}

// parseEnvText is godotenv, with the names checked that it lets through: "NAME" alone at the end of the file
// becomes the value of a variable without name, and "A B=c" one called "A B".
func parseEnvText(text []byte) (map[string]string, bool) {
	vars, err := godotenv.UnmarshalBytes(text)
	if err != nil {
		return nil, false
	}
	for name := range vars {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= utf8.RuneSelf }) {
			return nil, false
		}
	}
	return vars, true
}

// badEnvLine returns the number of the line at which the statement begins that can't be parsed. A quoted
// value may span lines: up to 200 are tried together.
func badEnvLine(text []byte) int {
	lines := bytes.SplitAfter(text, []byte("\n"))
	start := 0
	for end := 1; end <= len(lines) && end-start <= 200; end++ {
		if _, ok := parseEnvText(bytes.Join(lines[start:end], nil)); ok {
			start = end
		}
	}
	return min(start+1, len(lines))
}

// suspectVariables returns a warning for each variable of the env file that looks like ours but has no effect, in
// the order of their names.
func suspectVariables(table []option, vars map[string]string, file string) []string {
	var warnings []string
	for name := range vars {
		known := slices.ContainsFunc(table, func(o option) bool { return o.env == name })
		switch {
		case name == "PDNS_ENV_FILE":
			warnings = append(warnings, fmt.Sprintf("%s in %s has no effect", name, clip(file)))
		case !known && name != kafkaPasswordEnv && strings.HasPrefix(name, "PDNS_"):
			warnings = append(warnings, fmt.Sprintf("unknown variable %s in %s", clip(name), clip(file)))
		}
	}
	slices.Sort(warnings)
	return warnings
}

func badValue(source, value, want string) error {
	return &usageError{msg: fmt.Sprintf("bad value %s for %s", quote(value), source), hint: "want " + want}
}

// quote returns s in double quotes, shortened, and with everything escaped that could break the line.
func quote(s string) string {
	const most = 80
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:most]) + "…"
}

// clip returns s as it is where that is short and plain, else quoted.
func clip(s string) string {
	plain := func(r rune) bool { return unicode.IsPrint(r) && r != '"' && r != unicode.ReplacementChar }
	if s == "" || len(s) > 80 || strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return quote(s)
	}
	return s
}

// writeHelp writes the help: every option by group, then where values come from and the exit codes.
func writeHelp(w io.Writer) {
	var b strings.Builder
	b.WriteString("usage: gopassivedns -dev DEVICE [flags]\n" +
		"       gopassivedns -pcap FILE [flags]\n\n" +
		"Matches the DNS queries and responses on a network device or in a packet capture and\n" +
		"writes JSON records.\n")
	group := ""
	for _, o := range optionTable() {
		if o.group != group {
			group = o.group
			fmt.Fprintf(&b, "\n%s:\n", group)
		}
		fmt.Fprintf(&b, "  -%s", o.flag)
		if o.arg != "" {
			b.WriteString(" " + o.arg)
		}
		if o.env != "" {
			b.WriteString(", " + o.env)
		}
		if o.def != "" {
			fmt.Fprintf(&b, " (default: %s)", o.def)
		}
		b.WriteByte('\n')
		writeWrapped(&b, o.meaning)
	}
	b.WriteString("\nA flag wins over the same variable in the env file, which wins over the environment.\n" +
		"A value counts as given even where it is empty or false.\n" +
		"\nExit codes:\n" +
		"  0  all went well, or SIGINT or SIGTERM ended the run\n" +
		"  1  run-time failure: what could be read is written, the error is on stderr\n" +
		"  2  usage: a flag, a variable or an env file is wrong\n")
	io.WriteString(w, b.String())
}

// writeWrapped writes text indented by eight columns, in lines of at most 80 where its words allow.
func writeWrapped(b *strings.Builder, text string) {
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column == 0:
			b.WriteString("        ")
			column = 8
		case column+1+len(word) > 80:
			b.WriteString("\n        ")
			column = 8
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	b.WriteByte('\n')
}
