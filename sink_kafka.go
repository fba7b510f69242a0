package main

// Lines to a Kafka topic through sarama's asynchronous producer, one message for each record,
// at least once: by default acks=all and an idempotent producer, so that the producer's own
// retries neither repeat nor reorder.
//
// writeGroup hands some MB of records to the producer, which batches, compresses and pipelines
// them, and returns when the last acknowledgement is in. Messages that came back with an error
// are sent again with the next attempt, in order, by a new producer: then, and only then, a
// record may arrive twice, and is counted as resent. A broker that does not answer is an error
// after kafkaSilence, while the producer keeps trying on its own.
//
// Rules: the line's bytes are sent from the batch itself, so batches stay referenced until
// their messages are back (for ever, if they never come back); keys and timestamps are read
// from the line's bytes; no error and no log line holds the password.

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/rcrowley/go-metrics"
)

const (
	kafkaSilence    = 5 * time.Second // without an acknowledgement: an error
	kafkaGiveUp     = time.Minute     // likewise: a new producer
	kafkaDial       = 5 * time.Second
	kafkaBatchBytes = 1 << 20 // of one record batch before compression: the broker's default limit
	kafkaBatchLeast = 16 << 10
	kafkaMaxBackOff = 500 * time.Millisecond // of the producer's own retries
)

// secret holds a string behind a pointer, so that no way of formatting it, or a struct that
// has it, shows more than an address. The zero value is the empty string.
type secret struct{ text *string }

func newSecret(s string) secret { return secret{text: &s} }

// reveal returns the string.
func (s secret) reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// kafkaOptions are the settings of the Kafka sink. Empty strings stand for the defaults.
type kafkaOptions struct {
	brokers       []string // host:port of some brokers of the cluster
	topic         string
	key           string // none (default), client, qname, sensor
	compression   string // zstd (default), none, gzip, snappy, lz4
	acks          string // all (default), 1, 0
	version       string // protocol version to speak at most, such as 3.6.0; default: sarama's
	tls           bool
	tlsCA         string // PEM file; default: the system's
	tlsCert       string // PEM file
	tlsKey        string // PEM file
	saslMechanism string // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; default: no SASL
	saslUser      string
	saslPassword  secret
	log           logger
}

// validate returns an error that names the setting and its value. It reads no file.
func (o *kafkaOptions) validate() error {
	_, err := o.config()
	return err
}

// config returns sarama's settings for these, without what has to be read from files.
func (o *kafkaOptions) config() (*sarama.Config, error) {
	if len(o.brokers) == 0 {
		return nil, errors.New("kafka: no brokers")
	}
	for _, b := range o.brokers {
		host, port, err := net.SplitHostPort(b)
		if err != nil {
			return nil, fmt.Errorf("kafka: broker %q is not host:port", b)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			return nil, fmt.Errorf("kafka: broker %q is not host:port", b)
		}
	}
	// A topic's name: Kafka's own rule, org.apache.kafka.common.internals.Topic.
	if o.topic == "" {
		return nil, errors.New("kafka: no topic")
	}
	if strings.Trim(o.topic, ".") == "" || len(o.topic) > 249 || strings.ContainsFunc(o.topic, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	}) {
		return nil, fmt.Errorf("kafka: topic %q: only letters, digits, '.', '_' and '-' are possible, 249 at most", o.topic)
	}
	c := sarama.NewConfig()
	c.ClientID = "gopassivedns"
	c.Metadata.Full = false
	c.Metadata.Timeout = 10 * time.Second
	c.Metadata.Retry.Max = 1             // the queue and the producer have their own
	c.Net.ReadTimeout = 20 * time.Second // longer than the broker's own limit for acks
	c.Net.WriteTimeout = 20 * time.Second
	c.Producer.Timeout = 10 * time.Second
	c.Producer.Return.Successes = true
	c.Producer.Return.Errors = true
	c.Producer.Partitioner = newKafkaPartitioner
	// Some 20 s: a broker restarts within that without the sink seeing more than silence.
	c.Producer.Retry.Max = 40
	c.ChannelBufferSize = 1024

	switch o.key {
	case "", "none", "client", "qname", "sensor":
	default:
		return nil, fmt.Errorf("kafka: key %q: none, client, qname and sensor are possible", o.key)
	}
	codecs := map[string]sarama.CompressionCodec{
		"": sarama.CompressionZSTD, "zstd": sarama.CompressionZSTD, "none": sarama.CompressionNone,
		"gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4,
	}
	codec, ok := codecs[o.compression]
	if !ok {
		return nil, fmt.Errorf("kafka: compression %q: none, gzip, snappy, lz4 and zstd are possible", o.compression)
	}
	c.Producer.Compression = codec
	switch o.acks {
	case "", "all", "-1":
		c.Producer.RequiredAcks = sarama.WaitForAll
		c.Producer.Idempotent = true
		c.Net.MaxOpenRequests = 1
	case "1":
		c.Producer.RequiredAcks = sarama.WaitForLocal
	case "0":
		c.Producer.RequiredAcks = sarama.NoResponse
	default:
		return nil, fmt.Errorf("kafka: acks %q: all, 1 and 0 are possible", o.acks)
	}
	if o.version != "" {
		v, err := sarama.ParseKafkaVersion(o.version)
		if err != nil {
			return nil, fmt.Errorf("kafka: version %q is not a version such as 3.6.0", o.version)
		}
		c.Version = v
	}
	switch {
	case !o.tls && o.tlsCA+o.tlsCert+o.tlsKey != "":
		return nil, errors.New("kafka: a CA, certificate or key is given but TLS is off")
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return nil, errors.New("kafka: the client certificate and its key go together")
	}
	c.Net.TLS.Enable = o.tls
	switch o.saslMechanism {
	case "":
		if o.saslUser != "" || o.saslPassword.reveal() != "" {
			return nil, errors.New("kafka: a SASL user or password is given but no mechanism")
		}
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		if o.saslUser == "" || o.saslPassword.reveal() == "" {
			return nil, fmt.Errorf("kafka: SASL %s needs a user and a password", o.saslMechanism)
		}
		c.Net.SASL.Enable = true
		c.Net.SASL.Mechanism = sarama.SASLMechanism(o.saslMechanism)
		c.Net.SASL.User, c.Net.SASL.Password = o.saslUser, o.saslPassword.reveal()
		switch o.saslMechanism {
		case "SCRAM-SHA-256":
			c.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: sha256.New} }
		case "SCRAM-SHA-512":
			c.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: sha512.New} }
		}
	default:
		return nil, fmt.Errorf("kafka: SASL mechanism %q: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 are possible", o.saslMechanism)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return c, nil
}

// tlsConfig reads the TLS files.
func (o *kafkaOptions) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.tlsCA != "" {
		pem, err := os.ReadFile(o.tlsCA)
		if err != nil {
			return nil, fmt.Errorf("kafka: CA: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka: no certificate in %q", o.tlsCA)
		}
	}
	if o.tlsCert != "" {
		pair, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
		if err != nil {
			return nil, fmt.Errorf("kafka: client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// kafkaBytes is a sarama.Encoder without the copy or allocation of sarama.ByteEncoder.
type kafkaBytes struct{ b []byte }

func (e *kafkaBytes) Encode() ([]byte, error) { return e.b, nil }
func (e *kafkaBytes) Length() int             { return len(e.b) }

// kafkaMessage is a message of the group being written. The producer owns it from Input()
// until it comes back; then err says how it went.
type kafkaMessage struct {
	m     sarama.ProducerMessage
	value kafkaBytes
	key   kafkaBytes
	batch int32 // in the group: keyless messages of one batch go to one partition
	done  bool
	err   error
}

// kafkaSink is a sink on a topic. Only the queue's goroutine uses it, but for interrupt and
// for the collector, which writes the messages that are in flight and the atomics.
type kafkaSink struct {
	opt    kafkaOptions
	config *sarama.Config
	dialer *kafkaDialer
	stop   chan struct{}

	client    sarama.Client // nil: connect first
	producer  sarama.AsyncProducer
	silence   time.Duration // without an acknowledgement: an error
	hurry     atomic.Bool   // the producer is ending: no back-off between its retries
	collected chan struct{} // closed when the collector has ended
	inFlight  atomic.Int64  // messages at the producer, and one more while sending
	idle      chan struct{} // the last one came back
	acked     atomic.Uint64

	msgs   []kafkaMessage // of the group in progress
	active int            // how many; 0: no group in progress
	unsent int            // the first message that this attempt has still to send
	heard  time.Time      // when an acknowledgement was last seen, or this attempt began
	keys   []byte         // what the keys point into
	group  []*batch       // referenced as long as messages point into them
	seq    int32          // batches written, for the choice of a partition

	maxBatch     int // bytes of a record batch, halved when the broker refuses one
	lost, resent uint64
}

// newKafkaSink checks the options and reads the TLS files. It does not connect: the queue
// does, until it works.
func newKafkaSink(opt kafkaOptions) (*kafkaSink, error) {
	c, err := opt.config()
	if err != nil {
		return nil, err
	}
	if opt.tls {
		if c.Net.TLS.Config, err = opt.tlsConfig(); err != nil {
			return nil, err
		}
	} else if opt.saslMechanism == "PLAIN" {
		opt.log.warnf("sink kafka: SASL PLAIN without TLS sends the password in clear")
	}
	metrics.UseNilMetrics = true // sarama's own, which cost time and a goroutine that never ends
	s := &kafkaSink{opt: opt, config: c, stop: make(chan struct{}), dialer: newKafkaDialer(), maxBatch: kafkaBatchBytes, silence: kafkaSilence}
	c.Net.Proxy.Enable, c.Net.Proxy.Dialer = true, s.dialer
	c.Producer.Retry.BackoffFunc = func(retries, _ int) time.Duration {
		// sarama waits so long for each message that finds no broker, one after the other:
		// those that are not retries yet must fail at once, or a full buffer takes minutes.
		if retries == 0 || s.hurry.Load() {
			return 0
		}
		return min(50*time.Millisecond<<min(retries, 10), kafkaMaxBackOff)
	}
	return s, nil
}

func (s *kafkaSink) name() string { return "kafka" }

// connect makes a client and a producer, and asks for the topic.
func (s *kafkaSink) connect() error {
	config := *s.config // a producer that is still ending reads its own
	config.Producer.MaxMessageBytes = s.maxBatch
	client, err := sarama.NewClient(s.opt.brokers, &config)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err = client.RefreshMetadata(s.opt.topic); err != nil {
		client.Close()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("topic %q: %w (check TLS, SASL user and password)", s.opt.topic, err)
		}
		return fmt.Errorf("topic %q: %w", s.opt.topic, err)
	}
	producer, err := sarama.NewAsyncProducerFromClient(client)
	if err != nil {
		client.Close()
		return fmt.Errorf("connect: %w", err)
	}
	s.client, s.producer = client, producer
	s.hurry.Store(false)
	s.collected = make(chan struct{})
	s.idle = make(chan struct{}, 1)
	go s.collect(producer, s.collected, s.idle)
	return nil
}

// collect takes back what the producer is done with, until the producer is closed.
func (s *kafkaSink) collect(p sarama.AsyncProducer, done chan<- struct{}, idle chan<- struct{}) {
	defer close(done)
	successes, errs := p.Successes(), p.Errors()
	for successes != nil || errs != nil {
		var m *sarama.ProducerMessage
		var err error
		select {
		case msg, ok := <-successes:
			if !ok {
				successes = nil
				continue
			}
			m = msg
		case e, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			m, err = e.Msg, e.Err
		}
		km := m.Metadata.(*kafkaMessage)
		if km.err = err; err == nil {
			km.done = true
			s.acked.Add(1)
		}
		if s.inFlight.Add(-1) == 0 {
			idle <- struct{}{}
		}
	}
}

// write is writeGroup with one batch.
func (s *kafkaSink) write(b *batch) error { return s.writeGroup([]*batch{b}) }

// writeGroup sends what of the group is not acknowledged yet and waits for all answers.
func (s *kafkaSink) writeGroup(bs []*batch) error {
	if s.active == 0 {
		s.begin(bs)
	}
	if s.client == nil {
		if err := s.connect(); err != nil {
			return err
		}
	}
	if s.unsent == 0 {
		s.inFlight.Store(1) // so that it is 0 only after the last one is sent and back
		s.heard = time.Now()
	} else if time.Since(s.heard) > kafkaGiveUp {
		s.abandon() // makes all messages come back
	}
	tick := time.NewTicker(s.silence / 10)
	defer tick.Stop()
	acked, since := s.acked.Load(), time.Now()
	silent := func() bool {
		if now := s.acked.Load(); now != acked {
			acked, since = now, time.Now()
			s.heard = since
		}
		return time.Since(since) >= s.silence
	}
	for s.unsent < s.active {
		km := &s.msgs[s.unsent]
		if km.done {
			s.unsent++
			continue
		}
		s.inFlight.Add(1)
		select {
		case s.producer.Input() <- &km.m:
			s.unsent++
			continue
		case <-tick.C:
		case <-s.stop:
			return errors.New("interrupted")
		}
		s.inFlight.Add(-1)
		if silent() {
			return fmt.Errorf("no acknowledgement for %v", s.silence)
		}
	}
	if s.unsent == s.active {
		s.unsent++ // past the end: all are sent
		if s.inFlight.Add(-1) == 0 {
			s.idle <- struct{}{}
		}
	}
	for {
		select {
		case <-s.idle:
			return s.settle()
		case <-tick.C:
			if silent() {
				return fmt.Errorf("no acknowledgement for %v", s.silence)
			}
		case <-s.stop:
			return errors.New("interrupted")
		}
	}
}

// begin makes the messages of a new group.
func (s *kafkaSink) begin(bs []*batch) {
	s.active, s.unsent, s.keys = 0, 0, s.keys[:0]
	for _, b := range bs {
		s.active += b.records()
		b.refs.Add(1)
	}
	s.group = append(s.group[:0], bs...)
	if s.active > len(s.msgs) {
		s.msgs = make([]kafkaMessage, s.active+s.active/4)
	}
	i := 0
	for _, b := range bs {
		s.seq++
		for r := range b.records() {
			km := &s.msgs[i]
			i++
			line := b.line(r)
			line = line[:len(line)-1] // a message needs no newline
			km.value.b, km.done, km.err, km.batch = line, false, nil, s.seq
			km.m = sarama.ProducerMessage{Topic: s.opt.topic, Value: &km.value, Metadata: km, Timestamp: lineTime(line)}
			if key, ok := s.key(line); ok {
				km.key.b = key
				km.m.Key = &km.key
			}
		}
	}
}

// settle looks at what came back. It returns nil when every message of the group is
// acknowledged or refused for good.
func (s *kafkaSink) settle() error {
	var first error
	smaller := false
	for i := range s.msgs[:s.active] {
		km := &s.msgs[i]
		if km.done {
			continue
		}
		var tooLarge sarama.ConfigurationError // how the producer refuses what is larger than its own limit
		switch {
		case errors.As(km.err, &tooLarge), errors.Is(km.err, sarama.ErrMessageSizeTooLarge) && s.maxBatch <= kafkaBatchLeast:
			if s.lost++; s.lost == 1 {
				s.opt.log.errorf("sink kafka: a record of %d bytes is too large for the broker and is lost; more are only counted", len(km.value.b))
			}
			km.done = true
			continue
		case errors.Is(km.err, sarama.ErrMessageSizeTooLarge):
			smaller = true
		case errors.Is(km.err, sarama.ErrInvalidTimestamp):
			// The broker takes no such time (by default none more than an hour ahead):
			// better the time of sending than no record. Its tstamp still says the truth.
			km.m.Timestamp = time.Time{}
		case kafkaMayHaveArrived(km.err):
			s.resent++
		}
		if first == nil {
			first = km.err
		}
	}
	if first == nil {
		for i, b := range s.group {
			b.release()
			s.group[i] = nil
		}
		s.active, s.unsent = 0, 0
		return nil
	}
	// Begin anew with a producer that has no memory of this. Nothing is in flight.
	s.unsent = 0
	s.disconnect(s.stop)
	if smaller {
		s.maxBatch /= 2
		s.opt.log.debugf("sink kafka: record batches of at most %d bytes from now on", s.maxBatch)
	}
	return first
}

// kafkaMayHaveArrived reports whether a message that failed with err may be in the topic
// nevertheless: not when the broker said no, or no broker was reached.
func kafkaMayHaveArrived(err error) bool {
	var said sarama.KError
	switch {
	case errors.Is(err, sarama.ErrRequestTimedOut), errors.Is(err, sarama.ErrNotEnoughReplicasAfterAppend):
		return true
	case errors.As(err, &said), errors.Is(err, sarama.ErrOutOfBrokers), errors.Is(err, sarama.ErrClosedClient),
		errors.Is(err, sarama.ErrShuttingDown), errors.Is(err, errKafkaDial), err != nil && err.Error() == "circuit breaker is open":
		return false
	}
	return true
}

// abandon makes all that is at the producer, or tries to connect, fail at once.
func (s *kafkaSink) abandon() {
	s.hurry.Store(true)
	if !s.client.Closed() {
		s.client.Close()
	}
	s.dialer.hangUp()
}

// disconnect closes the producer and the client. It waits for the producer's end until over
// is closed, and then a little longer.
func (s *kafkaSink) disconnect(over <-chan struct{}) {
	if s.client == nil {
		return
	}
	if s.active > 0 { // something went wrong, or is still on its way
		s.abandon()
	}
	s.producer.AsyncClose()
	select {
	case <-s.collected:
	case <-over:
		s.abandon()
		wait := time.NewTimer(2 * kafkaMaxBackOff)
		select {
		case <-s.collected:
		case <-wait.C:
		}
		wait.Stop()
	}
	if !s.client.Closed() {
		s.client.Close()
	}
	s.client, s.producer = nil, nil
}

func (s *kafkaSink) interrupt() {
	close(s.stop)
	s.dialer.shut()
}

func (s *kafkaSink) tally() sinkTally {
	return sinkTally{delivered: s.acked.Load(), lost: s.lost, resent: s.resent}
}

// close ends the producer. Every write that returned nil is acknowledged, so there is
// nothing to flush.
func (s *kafkaSink) close(ctx context.Context) error {
	s.disconnect(ctx.Done())
	s.dialer.shut()
	return nil
}

// key returns the message key of a line. It may lie in s.keys or in the line.
func (s *kafkaSink) key(line []byte) ([]byte, bool) {
	switch s.opt.key {
	case "client":
		return lineString(line, `"src":"`)
	case "sensor":
		v, ok := lineString(line, `"sensor":"`)
		if !ok {
			return nil, false
		}
		start := len(s.keys)
		s.keys = appendUnescaped(s.keys, v)
		return s.keys[start:len(s.keys):len(s.keys)], true
	case "qname":
		v, ok := lineString(line, `"q":"`)
		if !ok {
			return nil, false
		}
		// Names are compared without case (RFC 4343), and so must keys.
		start := len(s.keys)
		s.keys = appendUnescaped(s.keys, v)
		key := s.keys[start:len(s.keys):len(s.keys)]
		for i, c := range key {
			if 'A' <= c && c <= 'Z' {
				key[i] = c + 'a' - 'A'
			}
		}
		return key, true
	}
	return nil, false
}

// lineString returns the value of a record's string field, still JSON-escaped. prefix is
// the field's name with its quotes, colon and the value's opening quote; the field may be
// anywhere but inside a nested object. A quote inside a value is escaped, so the prefix, with
// the comma or brace before it, is nowhere but where the field is.
func lineString(line []byte, prefix string) ([]byte, bool) {
	for off := 0; ; {
		i := bytes.Index(line[off:], []byte(prefix))
		if i < 0 {
			return nil, false
		}
		start := off + i + len(prefix)
		if before := off + i - 1; before >= 0 && (line[before] == ',' || line[before] == '{') {
			for end := start; end < len(line); end++ {
				switch line[end] {
				case '\\':
					end++
				case '"':
					return line[start:end], true
				}
			}
			return nil, false
		}
		off = start
	}
}

// appendUnescaped appends the string that the inside of a valid JSON string stands for.
func appendUnescaped(dst, s []byte) []byte {
	if bytes.IndexByte(s, '\\') < 0 {
		return append(dst, s...)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '\\' || i+1 == len(s) {
			dst = append(dst, c)
			continue
		}
		i++
		switch c = s[i]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			if i+4 < len(s) {
				if r, err := strconv.ParseUint(string(s[i+1:i+5]), 16, 16); err == nil {
					dst = append(dst, string(rune(r))...)
				}
			}
			i += 4
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// kafkaPartitioner spreads keyless messages batch by batch, so that the lines of a lookup
// stay together and record batches get large, and the others by the hash of their key.
type kafkaPartitioner struct{ keyed sarama.Partitioner }

func newKafkaPartitioner(topic string) sarama.Partitioner {
	return &kafkaPartitioner{keyed: sarama.NewHashPartitioner(topic)}
}

func (p *kafkaPartitioner) Partition(m *sarama.ProducerMessage, n int32) (int32, error) {
	if m.Key != nil {
		return p.keyed.Partition(m, n)
	}
	return int32(uint32(m.Metadata.(*kafkaMessage).batch) % uint32(n)), nil
}

func (p *kafkaPartitioner) RequiresConsistency() bool { return true }

func (p *kafkaPartitioner) MessageRequiresConsistency(m *sarama.ProducerMessage) bool {
	return m.Key != nil
}

// errKafkaDial marks errors of a connection that was never made.
var errKafkaDial = errors.New("cannot connect")

// kafkaDialer opens sarama's connections and knows them, so that shut can end what waits
// for a broker at once instead of after sarama's timeouts.
type kafkaDialer struct {
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	conns  []net.Conn
}

func newKafkaDialer() *kafkaDialer {
	d := &kafkaDialer{}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Dial is sarama's: safe for several goroutines.
func (d *kafkaDialer) Dial(network, addr string) (net.Conn, error) {
	nd := net.Dialer{Timeout: kafkaDial}
	c, err := nd.DialContext(d.ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errKafkaDial, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		c.Close()
		return nil, net.ErrClosed
	}
	conn := &kafkaConn{Conn: c, dialer: d}
	d.conns = append(d.conns, conn)
	return conn, nil
}

// shut closes all connections and lets no new one be made.
func (d *kafkaDialer) shut() {
	d.cancel()
	d.hangUp()
}

// hangUp closes all connections.
func (d *kafkaDialer) hangUp() {
	d.mu.Lock()
	conns := d.conns
	d.conns = nil
	d.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// kafkaConn is a connection that its dialer forgets when it is closed.
type kafkaConn struct {
	net.Conn
	dialer *kafkaDialer
}

func (c *kafkaConn) Close() error {
	d := c.dialer
	d.mu.Lock()
	if i := slices.Index(d.conns, net.Conn(c)); i >= 0 {
		d.conns = slices.Delete(d.conns, i, i+1)
	}
	d.mu.Unlock()
	return c.Conn.Close()
}

// scramClient is the client's side of SCRAM (RFC 5802) without channel binding, for one
// authentication.
type scramClient struct {
	hash            func() hash.Hash
	password        string
	step            int
	firstBare       string
	nonce           string
	serverSignature []byte
}

// Begin starts an exchange. User and password are taken as they are: the preparation of
// RFC 4013 leaves ASCII alone.
func (c *scramClient) Begin(user, password, _ string) error {
	var random [18]byte
	if _, err := io.ReadFull(rand.Reader, random[:]); err != nil {
		return err
	}
	c.password = password
	c.nonce = base64.StdEncoding.EncodeToString(random[:])
	c.firstBare = "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) + ",r=" + c.nonce
	return nil
}

// Step takes the server's message and returns the client's next (RFC 5802 §3).
func (c *scramClient) Step(challenge string) (string, error) {
	c.step++
	switch c.step {
	case 1:
		return "n,," + c.firstBare, nil
	case 2:
		return c.final(challenge)
	case 3:
		v, ok := strings.CutPrefix(challenge, "v=")
		if !ok {
			return "", errors.New("scram: the server refused the authentication")
		}
		v, _, _ = strings.Cut(v, ",")
		got, err := base64.StdEncoding.DecodeString(v)
		if err != nil || subtle.ConstantTimeCompare(got, c.serverSignature) != 1 {
			return "", errors.New("scram: the server does not know the password itself")
		}
		return "", nil
	}
	return "", errors.New("scram: a message too many")
}

// final answers the server's first message.
func (c *scramClient) final(first string) (string, error) {
	var nonce, salt64, count string
	for _, attr := range strings.Split(first, ",") {
		switch name, value, _ := strings.Cut(attr, "="); name {
		case "r":
			nonce = value
		case "s":
			salt64 = value
		case "i":
			count = value
		case "m":
			return "", errors.New("scram: the server asks for an unknown extension")
		}
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil || len(salt) == 0 {
		return "", errors.New("scram: no salt from the server")
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 4096 || n > 1_000_000 { // RFC 7677 §4; and not to be kept busy by a server
		return "", fmt.Errorf("scram: the server asks for %.20q iterations", count)
	}
	if !strings.HasPrefix(nonce, c.nonce) || len(nonce) == len(c.nonce) {
		return "", errors.New("scram: the server's nonce is not an answer to ours")
	}
	salted, err := pbkdf2.Key(c.hash, c.password, salt, n, c.hash().Size())
	if err != nil {
		return "", fmt.Errorf("scram: %w", err)
	}
	withoutProof := "c=biws,r=" + nonce
	message := c.firstBare + "," + first + "," + withoutProof
	clientKey := c.mac(salted, "Client Key")
	stored := c.hash()
	stored.Write(clientKey)
	proof := c.mac(stored.Sum(nil), message)
	subtle.XORBytes(proof, proof, clientKey)
	c.serverSignature = c.mac(c.mac(salted, "Server Key"), message)
	return withoutProof + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

func (c *scramClient) mac(key []byte, s string) []byte {
	m := hmac.New(c.hash, key)
	m.Write([]byte(s))
	return m.Sum(nil)
}

// Done reports whether the exchange is over.
func (c *scramClient) Done() bool { return c.step >= 3 }
