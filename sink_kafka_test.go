package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// startKafka starts kfake, a broker in this process, with topic dns of 3 partitions.
func startKafka(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(3, "dns")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// startKafkaQueue starts a queue with a Kafka sink that notices silence early.
func startKafkaQueue(t testing.TB, opt kafkaOptions, log *sinkLog) *sinkQueue {
	t.Helper()
	opt.topic, opt.log = "dns", log
	s, err := newKafkaSink(opt)
	if err != nil {
		t.Fatal(err)
	}
	s.silence = time.Second
	return newSinkQueue(s, sinkOptions{queueBytes: 64 << 20, block: true, log: log})
}

// readKafka returns all messages of topic dns, by partition.
func readKafka(t testing.TB, addrs []string, config *sarama.Config) [][]*sarama.ConsumerMessage {
	t.Helper()
	if config == nil {
		config = sarama.NewConfig()
	}
	client, err := sarama.NewClient(addrs, config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	all := make([][]*sarama.ConsumerMessage, 3)
	for p := range all {
		end, err := client.GetOffset("dns", int32(p), sarama.OffsetNewest)
		if err != nil {
			t.Fatal(err)
		}
		if end == 0 {
			continue
		}
		pc, err := consumer.ConsumePartition("dns", int32(p), sarama.OffsetOldest)
		if err != nil {
			t.Fatal(err)
		}
		deadline := time.After(time.Minute)
		for m := (*sarama.ConsumerMessage)(nil); m == nil || m.Offset < end-1; {
			select {
			case m = <-pc.Messages():
				all[p] = append(all[p], m)
			case <-deadline:
				t.Fatalf("partition %d: %d messages of %d", p, len(all[p]), end)
			}
		}
		pc.Close()
	}
	return all
}

// checkKafka compares what arrived with the lines sent, which must be different from each
// other: none missing, none foreign, at most dups twice, and, if ordered, in order within a
// partition.
func checkKafka(t *testing.T, got [][]*sarama.ConsumerMessage, lines []byte, ordered bool, dups uint64) {
	t.Helper()
	index := make(map[string]int)
	for i, l := range bytes.SplitAfter(lines, []byte("\n")) {
		index[strings.TrimSuffix(string(l), "\n")] = i
	}
	delete(index, "")
	seen, twice := make(map[string]bool), uint64(0)
	for p, ms := range got {
		last := -1
		for _, m := range ms {
			i, ok := index[string(m.Value)]
			if !ok {
				t.Fatalf("partition %d: a message that was not sent: %q", p, m.Value)
			}
			if seen[string(m.Value)] {
				twice++
				continue
			}
			seen[string(m.Value)] = true
			if i < last && ordered {
				t.Fatalf("partition %d: record %d after %d", p, i, last)
			}
			last = i
		}
	}
	if len(seen) != len(index) || twice > dups {
		t.Errorf("%d records arrived of %d, %d of them twice, %d were counted as possibly", len(seen), len(index), twice, dups)
	}
}

func TestKafkaRoundTrip(t *testing.T) {
	defer noLeaks(t)()
	for _, codec := range []string{"", "none", "gzip", "snappy", "lz4", "zstd"} {
		for _, acks := range []string{"", "1", "0"} {
			if acks != "" && codec != "zstd" {
				continue
			}
			t.Run(codec+"/"+acks, func(t *testing.T) {
				c := startKafka(t)
				defer c.Close()
				log := &sinkLog{}
				q := startKafkaQueue(t, kafkaOptions{brokers: c.ListenAddrs(), compression: codec, acks: acks}, log)
				bs, want := testBatches(0, 5000, 700)
				for _, b := range bs {
					q.submit(b)
				}
				if err := q.drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				var got [][]*sarama.ConsumerMessage
				waitFor(t, "acks=0 messages to be stored", func() bool {
					got = readKafka(t, c.ListenAddrs(), nil)
					return len(got[0])+len(got[1])+len(got[2]) >= 5000
				})
				checkKafka(t, got, want, true, 0)
				if st, want := q.stats(), (sinkStats{name: "kafka", submitted: 5000, written: 5000}); st != want {
					t.Errorf("got %+v, want %+v", st, want)
				}
				if said := log.said(); said != nil {
					t.Errorf("said %q", said)
				}
				for _, ms := range got {
					for _, m := range ms {
						want := lineTime(m.Value).Truncate(time.Millisecond)
						if !m.Timestamp.Equal(want) || m.Key != nil || len(m.Headers) != 0 {
							t.Fatalf("timestamp %v of %v, key %q, headers %v", m.Timestamp, want, m.Key, m.Headers)
						}
					}
				}
			})
		}
	}
}

func TestKafkaKeys(t *testing.T) {
	for _, c := range []struct{ key, line, want string }{
		{"none", testLine(1), "<nil>"},
		{"client", testLine(1), "192.0.2.2"},
		{"sensor", testLine(1), "s"},
		{"qname", testLine(1), "host1.example.com"},
		{"qname", `{"sensor":"\",\"q\":\"x\"","q":"WWW.\\\"a\\\\b\u0041é.Example"}` + "\n", `www.\"a\\baé.example`},
		{"qname", `{"sensor":",","q":"","x":{"q":"y"}}` + "\n", ""},
		{"qname", `{"q":"q"}` + "\n", "q"},
		{"qname", `{"q":"never ends\"` + "\n", "<nil>"},
		{"sensor", `{"tstamp":"","sensor":"a\/\b\f\n\r\t\"\\"}` + "\n", "a/\b\f\n\r\t\"\\"},
		{"client", `{"type":"status"}` + "\n", "<nil>"},
	} {
		s, err := newKafkaSink(kafkaOptions{brokers: []string{"localhost:9092"}, topic: "dns", key: c.key, log: &sinkLog{}})
		if err != nil {
			t.Fatal(err)
		}
		got := "<nil>"
		if key, ok := s.key([]byte(c.line)); ok {
			got = string(key)
		}
		if got != c.want {
			t.Errorf("%s of %s: got %q, want %q", c.key, c.line, got, c.want)
		}
	}
	c := startKafka(t)
	q := startKafkaQueue(t, kafkaOptions{brokers: c.ListenAddrs(), key: "client"}, &sinkLog{})
	bs, want := testBatches(0, 3000, 700)
	for _, b := range bs {
		q.submit(b)
	}
	if err := q.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := readKafka(t, c.ListenAddrs(), nil)
	checkKafka(t, got, want, true, 0)
	home := make(map[string]int)
	for p, ms := range got {
		for _, m := range ms {
			if at, ok := home[string(m.Key)]; ok && at != p || !strings.Contains(string(m.Value), `"src":"`+string(m.Key)+`"`) {
				t.Fatalf("partition %d, key %q, %s", p, m.Key, m.Value)
			}
			home[string(m.Key)] = p
		}
	}
	if len(home) != 254 {
		t.Errorf("%d keys", len(home))
	}
}

// Whatever the name, its key is the name again, in lower case.
func FuzzKafkaKey(f *testing.F) {
	for _, name := range []string{"www.example.com", `a\"b\\c`, "\x00\x1f\x7f", "é☃😀\u2028<>&", `","q":"`, "{", ""} {
		f.Add(name, name)
	}
	s, err := newKafkaSink(kafkaOptions{brokers: []string{"localhost:9092"}, topic: "dns", key: "qname", log: &sinkLog{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sensor, name string) {
		if !utf8.ValidString(name) {
			return
		}
		line, err := json.Marshal(struct {
			Sensor string `json:"sensor"`
			Q      string `json:"q"`
		}{sensor, name})
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' {
				r += 'a' - 'A'
			}
			return r
		}, name)
		if got, ok := s.key(line); !ok || string(got) != want {
			t.Errorf("got %q, want %q, of %s", got, want, line)
		}
		s.keys = s.keys[:0]
		s.key([]byte(name)) // not JSON at all: no panic
	})
}

func TestKafkaOptions(t *testing.T) {
	ok := kafkaOptions{brokers: []string{"h:9092", "[::1]:9093"}, topic: "dns.log_1-a"}
	if err := ok.validate(); err != nil {
		t.Error(err)
	}
	const pw = "hunter2"
	password := newSecret(pw)
	for _, c := range []struct {
		set  func(o *kafkaOptions)
		want string
	}{
		{func(o *kafkaOptions) { o.brokers = nil }, "kafka: no brokers"},
		{func(o *kafkaOptions) { o.brokers = []string{"h"} }, `kafka: broker "h" is not host:port`},
		{func(o *kafkaOptions) { o.brokers = []string{"h:0"} }, `kafka: broker "h:0" is not host:port`},
		{func(o *kafkaOptions) { o.topic = "" }, "kafka: no topic"},
		{func(o *kafkaOptions) { o.topic = "a b" }, `kafka: topic "a b": only letters, digits, '.', '_' and '-' are possible, 249 at most`},
		{func(o *kafkaOptions) { o.topic = ".." }, `kafka: topic "..": only letters, digits, '.', '_' and '-' are possible, 249 at most`},
		{func(o *kafkaOptions) { o.key = "x" }, `kafka: key "x": none, client, qname and sensor are possible`},
		{func(o *kafkaOptions) { o.compression = "zip" }, `kafka: compression "zip": none, gzip, snappy, lz4 and zstd are possible`},
		{func(o *kafkaOptions) { o.acks = "2" }, `kafka: acks "2": all, 1 and 0 are possible`},
		{func(o *kafkaOptions) { o.version = "new" }, `kafka: version "new" is not a version such as 3.6.0`},
		{func(o *kafkaOptions) { o.version, o.compression = "0.10.0.0", "none" }, `kafka: kafka: invalid configuration (Idempotent producer requires Version >= V0_11_0_0)`},
		{func(o *kafkaOptions) { o.tlsCA = "x" }, "kafka: a CA, certificate or key is given but TLS is off"},
		{func(o *kafkaOptions) { o.tls, o.tlsCert = true, "x" }, "kafka: the client certificate and its key go together"},
		{func(o *kafkaOptions) { o.saslPassword = password }, "kafka: a SASL user or password is given but no mechanism"},
		{func(o *kafkaOptions) { o.saslMechanism, o.saslPassword = "PLAIN", password }, "kafka: SASL PLAIN needs a user and a password"},
		{func(o *kafkaOptions) { o.saslMechanism = "OAUTH" }, `kafka: SASL mechanism "OAUTH": PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 are possible`},
	} {
		o := ok
		c.set(&o)
		if err := o.validate(); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
		if s := fmt.Sprintf("%v %+v %#v %+v", o, o, o, o.saslPassword); strings.Contains(s, pw) {
			t.Errorf("the password is in %s", s)
		}
	}
	o := ok
	o.tls, o.tlsCA = true, "/nowhere"
	if _, err := newKafkaSink(o); err == nil || err.Error() != "kafka: CA: open /nowhere: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

// testCertificate makes a self-signed certificate for 127.0.0.1, as PEM files and loaded.
func testCertificate(t *testing.T) (cert tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := errors.Join(os.WriteFile(certFile, certPEM, 0o600), os.WriteFile(keyFile, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	if cert, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return cert, certFile, keyFile
}

func TestKafkaTLSAndSASL(t *testing.T) {
	defer noLeaks(t)()
	cert, certFile, keyFile := testCertificate(t)
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	server := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			const user, pw = "u=s,er", "p=w,d secret"
			c := startKafka(t, kfake.TLS(server), kfake.EnableSASL(), kfake.Superuser(mechanism, user, pw))
			defer c.Close()
			opt := kafkaOptions{
				brokers: c.ListenAddrs(), tls: true, tlsCA: certFile, tlsCert: certFile, tlsKey: keyFile,
				saslMechanism: mechanism, saslUser: user, saslPassword: newSecret(pw), topic: "dns",
			}
			log := &sinkLog{}
			q := startKafkaQueue(t, opt, log)
			bs, want := testBatches(0, 1000, 100)
			for _, b := range bs {
				q.submit(b)
			}
			if err := q.drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			config, err := opt.config2(t)
			if err != nil {
				t.Fatal(err)
			}
			checkKafka(t, readKafka(t, c.ListenAddrs(), config), want, true, 0)
			if said := log.said(); said != nil {
				t.Errorf("said %q", said)
			}

			// The wrong password, and a server that we do not trust, are said and tried again.
			for what, set := range map[string]func(*kafkaOptions){
				"SASL": func(o *kafkaOptions) { o.saslPassword = newSecret(pw + "wrong") },
				"x509": func(o *kafkaOptions) { o.tlsCA = "" },
			} {
				bad, log := opt, &sinkLog{}
				set(&bad)
				q := startKafkaQueue(t, bad, log)
				q.submit(bs[0])
				waitFor(t, "refusal", func() bool { return balanced(t, q).errors > 0 })
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if err := q.drain(ctx); err == nil {
					t.Error("no error")
				} else {
					log.errorf("%v", err)
				}
				if st := balanced(t, q); st.failed != 100 {
					t.Errorf("got %+v", st)
				}
				if all := log.everything(); strings.Contains(all, pw) || !strings.Contains(all, what) {
					t.Errorf("%s: said %s", what, all)
				}
			}
		})
	}
}

// config2 returns sarama's settings with TLS, for a consumer.
func (o *kafkaOptions) config2(t *testing.T) (*sarama.Config, error) {
	t.Helper()
	c, err := o.config()
	if err != nil {
		return nil, err
	}
	c.Net.TLS.Config, err = o.tlsConfig()
	return c, err
}

// RFC 5802 §5 has an exchange for SCRAM-SHA-1, RFC 7677 §3 one for SHA-256.
func TestScramVector(t *testing.T) {
	c := &scramClient{hash: sha256.New}
	if err := c.Begin("user", "pencil", ""); err != nil {
		t.Fatal(err)
	}
	c.nonce = "rOprNGfwEbeRWgbNEkqO"
	c.firstBare = "n=user,r=" + c.nonce
	for _, x := range []struct{ challenge, want string }{
		{"", "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"},
		{"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="},
		{"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", ""},
	} {
		got, err := c.Step(x.challenge)
		if err != nil || got != x.want {
			t.Errorf("got %q, %v, want %q", got, err, x.want)
		}
	}
	if !c.Done() {
		t.Error("not done")
	}
}

func TestScramRefuses(t *testing.T) {
	const salt = "s=W22ZaJ0SNY7soEsUEjb6gQ=="
	for _, first := range []string{"", "e=other-error", "r=foreign," + salt + ",i=4096", "r=NONCE," + salt + ",i=4096", "r=NONCEx,s=,i=4096", "r=NONCEx,s=%,i=4096",
		"r=NONCEx," + salt + ",i=1", "r=NONCEx," + salt + ",i=999999999", "r=NONCEx," + salt + ",i=x", "m=x,r=NONCEx," + salt + ",i=4096"} {
		c := &scramClient{hash: sha256.New}
		if err := c.Begin("user", "pencil", ""); err != nil {
			t.Fatal(err)
		}
		c.Step("")
		if got, err := c.Step(strings.ReplaceAll(first, "NONCE", c.nonce)); err == nil {
			t.Errorf("%s: got %q", first, got)
		}
	}
	for _, last := range []string{"", "e=invalid-proof", "v=", "v=%", "v=AAAA"} {
		c := &scramClient{hash: sha256.New}
		if err := c.Begin("user", "pencil", ""); err != nil {
			t.Fatal(err)
		}
		c.Step("")
		if _, err := c.Step("r=" + c.nonce + "x," + salt + ",i=4096"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Step(last); err == nil {
			t.Errorf("%q was taken", last)
		}
	}
}

// freePort returns a TCP port on 127.0.0.1 that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestKafkaDownAtStart(t *testing.T) {
	defer noLeaks(t)()
	port := freePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	log := &sinkLog{}
	q := startKafkaQueue(t, kafkaOptions{brokers: []string{addr}}, log)
	bs, want := testBatches(0, 1000, 100)
	for _, b := range bs {
		q.submit(b)
	}
	waitFor(t, "failed attempts", func() bool { return balanced(t, q).errors >= 2 })
	c := startKafka(t, kfake.Ports(port))
	defer c.Close()
	waitSettled(t, q)
	if err := q.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkKafka(t, readKafka(t, []string{addr}, nil), want, true, 0)
	said := log.said()
	if len(said) != 2 || !strings.Contains(said[0], "connection refused; trying again until it works") || !strings.Contains(said[1], "works again after") {
		t.Errorf("said %q", said)
	}
	c.Close()
}

// Nobody ever answers: the end must come within the drain's limit, and leave nothing.
func TestKafkaNeverUp(t *testing.T) {
	defer noLeaks(t)()
	for _, how := range []string{"refuses", "is silent"} {
		t.Run(how, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if how == "refuses" {
				l.Close()
			}
			q := startKafkaQueue(t, kafkaOptions{brokers: []string{l.Addr().String()}}, &sinkLog{})
			bs, _ := testBatches(0, 1000, 100)
			for _, b := range bs {
				q.submit(b)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			start := time.Now()
			err = q.drain(ctx)
			if took := time.Since(start); err == nil || took > 10*time.Second {
				t.Errorf("got %v after %v", err, took)
			}
			if st := balanced(t, q); st.failed != 1000 {
				t.Errorf("got %+v", st)
			}
			<-q.finished
		})
	}
}

// A broker that answers with errors, of each kind that is treated differently.
func TestKafkaBrokerErrors(t *testing.T) {
	defer noLeaks(t)()
	for _, c := range []struct {
		err   *kerr.Error
		count int
		fails bool // the sink itself sees it, beyond the producer's own retries
	}{
		{kerr.NotLeaderForPartition, 3, false},
		{kerr.NotEnoughReplicas, 3, false},
		{kerr.NotEnoughReplicasAfterAppend, 2, false},
		{kerr.RequestTimedOut, 2, false},
		{kerr.TopicAuthorizationFailed, 2, true},
		{kerr.UnknownServerError, 2, true},
		{kerr.OutOfOrderSequenceNumber, 1, true},
		{kerr.InvalidTimestamp, 1, true},
	} {
		t.Run(c.err.Message, func(t *testing.T) {
			k := startKafka(t)
			defer k.Close()
			log := &sinkLog{}
			q := startKafkaQueue(t, kafkaOptions{brokers: k.ListenAddrs()}, log)
			bs, want := testBatches(0, 4000, 700)
			fault := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: c.err, Count: c.count})
			for _, b := range bs {
				q.submit(b)
			}
			waitSettled(t, q)
			if err := q.drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			st := balanced(t, q)
			checkKafka(t, readKafka(t, k.ListenAddrs(), nil), want, !c.fails, 0)
			if st.resent != 0 || st.failed != 0 || st.written != 4000 || (st.errors > 0) != c.fails || fault.Hits() != c.count {
				t.Errorf("got %+v, %d faults", st, fault.Hits())
			}
			if said := log.said(); (len(said) > 0) != c.fails || len(said)%2 != 0 {
				t.Errorf("said %q", said)
			}
		})
	}
}

// A record that the broker never takes is counted as lost; its neighbours arrive.
func TestKafkaRecordTooLarge(t *testing.T) {
	defer noLeaks(t)()
	k := startKafka(t, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "100000"}))
	log := &sinkLog{}
	q := startKafkaQueue(t, kafkaOptions{brokers: k.ListenAddrs(), compression: "none"}, log)
	bs, want := testBatches(0, 1000, 500)
	large := func(n int) string { return `{"q":"` + strings.Repeat("x", n) + "\"}\n" }
	q.submit(bs[0])
	q.submit(testBatch(large(200_000), large(2_000_000)))
	q.submit(bs[1])
	waitSettled(t, q)
	if err := q.drain(t.Context()); err == nil || err.Error() != "sink kafka: 2 records could not be delivered" {
		t.Errorf("got %v", err)
	}
	got := readKafka(t, k.ListenAddrs(), nil)
	checkKafka(t, got, want, false, 0) // what is refused is sent again behind what was not
	if st := balanced(t, q); st.written != 1000 || st.failed != 2 || st.resent != 0 {
		t.Errorf("got %+v", st)
	}
	if all := log.everything(); !strings.Contains(all, "is too large for the broker and is lost") {
		t.Errorf("said %s", all)
	}
	k.Close()
}

// resetListener gives connections that are reset after a number of bytes were read.
type resetListener struct {
	net.Listener
	left *atomic.Int64
}

type resetConn struct {
	net.Conn
	left *atomic.Int64
}

func (l resetListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return resetConn{c, l.left}, nil
}

func (c resetConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if before := c.left.Add(-int64(n)) + int64(n); before > 0 && before <= int64(n) {
		c.Conn.(*net.TCPConn).SetLinger(0)
		c.Conn.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

func TestKafkaConnectionReset(t *testing.T) {
	defer noLeaks(t)()
	left := new(atomic.Int64)
	k := startKafka(t, kfake.ListenFn(func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		return resetListener{l, left}, err
	}))
	log := &sinkLog{}
	q := startKafkaQueue(t, kafkaOptions{brokers: k.ListenAddrs(), compression: "none"}, log)
	bs, want := testBatches(0, 20000, 700)
	for i, b := range bs {
		if i%9 == 5 {
			waitSettled(t, q)
			left.Store(100_000 + int64(i)*1000) // in the middle of one of the next batches
		}
		q.submit(b)
	}
	waitSettled(t, q)
	if err := q.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left.Load() > 0 {
		t.Errorf("%d bytes left to the last reset", left.Load())
	}
	st := balanced(t, q)
	t.Logf("%+v, said %q", st, log.said())
	checkKafka(t, readKafka(t, k.ListenAddrs(), nil), want, false, st.resent)
	if st.written != 20000 {
		t.Errorf("got %+v", st)
	}
	k.Close()
}

// TestKafkaServerProcess is not a test: it is the broker that others start as a process of
// its own, to stop and kill it.
func TestKafkaServerProcess(t *testing.T) {
	port, err := strconv.Atoi(os.Getenv("GOPASSIVEDNS_TEST_KAFKA_PORT"))
	if err != nil {
		return
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "dns"), kfake.Ports(port), kfake.DataDir(os.Getenv("GOPASSIVEDNS_TEST_KAFKA_DIR")))
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	defer c.Close()
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadByte() // until the pipe is closed
}

// kafkaProcess starts a broker as a process; its data survives in dir.
func kafkaProcess(t *testing.T, port int, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKafkaServerProcess$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOPASSIVEDNS_TEST_KAFKA_PORT=%d", port), "GOPASSIVEDNS_TEST_KAFKA_DIR="+dir)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("broker: %q, %v", line, err)
	}
	return cmd
}

func TestKafkaKilledAndRestarted(t *testing.T) {
	defer noLeaks(t)()
	port, dir := freePort(t), t.TempDir()
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	broker := kafkaProcess(t, port, dir)
	log := &sinkLog{}
	q := startKafkaQueue(t, kafkaOptions{brokers: []string{addr}}, log)
	bs, want := testBatches(0, 60000, 700)
	for i, b := range bs {
		q.submit(b)
		if i == len(bs)/3 || i == 2*len(bs)/3 {
			waitFor(t, "something to be written", func() bool { return balanced(t, q).written >= uint64(i*300) })
			broker.Process.Kill()
			broker.Wait()
			broker = kafkaProcess(t, port, dir)
		}
	}
	waitSettled(t, q)
	if err := q.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	st := balanced(t, q)
	t.Logf("%+v", st)
	checkKafka(t, readKafka(t, []string{addr}, nil), want, false, st.resent)
	if st.written != 60000 || st.failed != 0 {
		t.Errorf("got %+v", st)
	}
}

// A broker that is stopped, not dead: the silence is said, and after it all arrives.
func TestKafkaStopped(t *testing.T) {
	defer noLeaks(t)()
	port, dir := freePort(t), t.TempDir()
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	broker := kafkaProcess(t, port, dir)
	log := &sinkLog{}
	q := startKafkaQueue(t, kafkaOptions{brokers: []string{addr}}, log)
	bs, want := testBatches(0, 20000, 700)
	for _, b := range bs[:10] {
		q.submit(b)
	}
	waitSettled(t, q)
	broker.Process.Signal(syscall.SIGSTOP)
	for _, b := range bs[10:] {
		q.submit(b)
	}
	waitFor(t, "the silence to be noticed", func() bool { return balanced(t, q).errors > 0 })
	broker.Process.Signal(syscall.SIGCONT)
	waitSettled(t, q)

	// And once more at the end: the drain does not wait for it.
	broker.Process.Signal(syscall.SIGSTOP)
	q.submit(bs[0])
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := q.drain(ctx); err == nil {
		t.Error("no error")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("drain took %v", took)
	}
	<-q.finished
	st := balanced(t, q)
	if st.written != 20000 || st.failed != uint64(bs[0].records()) {
		t.Errorf("got %+v", st)
	}
	broker.Process.Signal(syscall.SIGCONT)
	got := readKafka(t, []string{addr}, nil)
	checkKafka(t, got, want, false, uint64(bs[0].records())+st.resent)
	said := log.said()
	if i := slices.IndexFunc(said, func(s string) bool {
		return strings.Contains(s, "no acknowledgement for 1s; trying again until it works")
	}); i != 0 {
		t.Errorf("said %q", said)
	}
}

// CPU time, not only wall time, because the machine may be shared: the broker in the same
// process is part of it.
func BenchmarkKafkaSink(b *testing.B) {
	for _, codec := range []string{"zstd", "lz4", "none"} {
		b.Run(codec, func(b *testing.B) {
			c := startKafka(b, kfake.BlackholeProduce())
			defer c.Close()
			q := startKafkaQueue(b, kafkaOptions{brokers: c.ListenAddrs(), compression: codec}, &sinkLog{})
			bs, _ := testBatches(0, 700*16, 700)
			var from, to syscall.Rusage
			syscall.Getrusage(syscall.RUSAGE_SELF, &from)
			start, n := time.Now(), 0
			for i := 0; b.Loop(); i++ {
				q.submit(bs[i%len(bs)])
				n += bs[i%len(bs)].records()
			}
			if err := q.drain(b.Context()); err != nil {
				b.Fatal(err)
			}
			syscall.Getrusage(syscall.RUSAGE_SELF, &to)
			cpu := to.Utime.Nano() + to.Stime.Nano() - from.Utime.Nano() - from.Stime.Nano()
			b.ReportMetric(float64(n)/time.Since(start).Seconds(), "records/s")
			b.ReportMetric(float64(cpu)/float64(n), "cpu-ns/record")
		})
	}
}
