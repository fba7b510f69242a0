// Tests of live capture: the program runs in network namespaces that the test makes, connected by veth pairs, beside a real
// name server (NSD). They need root; nothing leaves the namespaces.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcap"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// needRoot skips a test that makes network namespaces, saying what it would take.
func needRoot(t *testing.T, tools ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	for _, tool := range append(tools, "ip") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (.ci/run installs it)", tool)
		}
	}
}

// command runs a command to its end.
func command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

var netnsCount atomic.Int64

// newNetns makes a network namespace with its lo up; it is removed at the end of the test, and all devices with it.
func newNetns(t *testing.T) string {
	t.Helper()
	ns := fmt.Sprintf("gpd%d-%d", os.Getpid(), netnsCount.Add(1))
	command(t, "ip", "netns", "add", ns)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	command(t, "ip", "-n", ns, "link", "set", "lo", "up")
	return ns
}

// inNetns runs f on a thread that is in the namespace. The thread ends with it.
func inNetns(t *testing.T, ns string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		h, err := os.Open("/run/netns/" + ns)
		if err == nil {
			err = unix.Setns(int(h.Fd()), unix.CLONE_NEWNET)
			h.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("in a network namespace: %v", err)
	}
}

// liveWire is a client and a server namespace with a veth pair between them: c0 (10.0.0.1, fd00::1) and s0 (10.0.0.2, fd00::2).
type liveWire struct{ client, server string }

func newWire(t *testing.T) liveWire {
	t.Helper()
	w := liveWire{newNetns(t), newNetns(t)}
	w.connect(t)
	return w
}

// connect makes the veth pair.
func (w liveWire) connect(t *testing.T) {
	t.Helper()
	command(t, "ip", "-n", w.client, "link", "add", "c0", "type", "veth", "peer", "name", "s0", "netns", w.server)
	for i, ns := range []string{w.client, w.server} {
		dev := []string{"c0", "s0"}[i]
		command(t, "ip", "-n", ns, "addr", "add", fmt.Sprintf("10.0.0.%d/24", i+1), "dev", dev)
		command(t, "ip", "-n", ns, "addr", "add", fmt.Sprintf("fd00::%d/64", i+1), "dev", dev, "nodad")
		command(t, "ip", "-n", ns, "link", "set", dev, "up")
	}
}

// startNSD serves the zone example. in the namespace on the addresses, and returns when it answers: the name of its
// configuration file, for nsd-control.
func startNSD(t *testing.T, ns string, addresses ...string) (conf string) {
	t.Helper()
	dir := t.TempDir()
	var text strings.Builder
	text.WriteString("server:\n")
	for _, a := range addresses {
		fmt.Fprintf(&text, "  ip-address: %s\n", a)
	}
	fmt.Fprintf(&text, "  username: \"\"\n  chroot: \"\"\n  zonesdir: %q\n  pidfile: \"\"\n  xfrdfile: \"\"\n  zonelistfile: %q\n  logfile: %q\n"+
		"  server-count: 1\n  rrl-ratelimit: 0\n  ipv4-edns-size: 4096\n  ipv6-edns-size: 4096\nremote-control:\n  control-enable: yes\n  control-interface: %q\nzone:\n  name: example\n  zonefile: zone\n",
		dir, dir+"/zones", dir+"/log", dir+"/control")
	nsAddress := "192.0.2.53"
	if a := net.ParseIP(addresses[0]).To4(); a != nil {
		nsAddress = a.String()
	}
	zone := "$ORIGIN example.\n@ 60 SOA ns h 1 1 1 1 1\n@ 60 NS ns\nns 60 A " + nsAddress + "\nwww 60 A 192.0.2.1\nwww 60 AAAA 2001:db8::1\n*.w 60 A 192.0.2.7\n"
	for i := range 15 {
		zone += fmt.Sprintf("big 60 TXT \"%02d%s\"\n", i, strings.Repeat("x", 198))
	}
	for name, text := range map[string]string{"conf": text.String(), "zone": zone} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatalf("configure NSD: %v", err)
		}
	}
	cmd := exec.Command("ip", "netns", "exec", ns, "nsd", "-d", "-c", dir+"/conf")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start NSD: %v", err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	// Ask over TCP, which is refused until NSD listens, on the server's own side.
	inNetns(t, ns, func() error {
		var err error
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			c := dns.Client{Net: "tcp", Timeout: time.Second}
			if _, _, err = c.Exchange(liveQuestion("example.", dns.TypeSOA), net.JoinHostPort(addresses[0], "53")); err == nil {
				return nil
			}
		}
		log, _ := os.ReadFile(dir + "/log")
		return fmt.Errorf("NSD does not answer: %w\n%s", err, log)
	})
	return dir + "/conf"
}

func liveQuestion(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.SetEdns0(4096, false)
	return m
}

// ask sends questions from the namespace, one after the other, and wants an answer to each.
func ask(t *testing.T, ns, network, server string, questions ...*dns.Msg) {
	t.Helper()
	inNetns(t, ns, func() error {
		for _, q := range questions {
			c := dns.Client{Net: network, Timeout: 5 * time.Second}
			if _, _, err := c.Exchange(q, net.JoinHostPort(server, "53")); err != nil {
				return fmt.Errorf("ask %s over %s: %w", server, network, err)
			}
		}
		return nil
	})
}

// liveRun is a running gopassivedns.
type liveRun struct {
	cmd    *exec.Cmd
	notify *net.UnixConn
	ended  chan struct{} // closed when the process has ended and all its output was read

	mu     sync.Mutex
	news   sync.Cond // a line came, or the end
	lines  []string
	came   []time.Time
	stderr bytes.Buffer
	over   bool
}

// runOptions says how runLive starts the program.
type runOptions struct {
	ns  string
	bin string // "" for the test binary
	uid uint32 // 0 for root

	stdout *os.File // nil: read the records
}

// runLive starts the program in a namespace and returns when it says that it is ready.
func runLive(t *testing.T, opt runOptions, args ...string) *liveRun {
	t.Helper()
	r := startRun(t, opt, args...)
	r.waitReady(t)
	return r
}

// startRun starts the program in a namespace.
func startRun(t *testing.T, opt runOptions, args ...string) *liveRun {
	t.Helper()
	dir := publicDir(t)
	r := &liveRun{ended: make(chan struct{})}
	r.news.L = &r.mu
	var err error
	r.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatalf("listen for the readiness: %v", err)
	}
	t.Cleanup(func() { r.notify.Close() })
	if err := os.Chmod(filepath.Join(dir, "notify"), 0o777); err != nil {
		t.Fatalf("listen for the readiness: %v", err)
	}
	bin := opt.bin
	if bin == "" {
		if bin, err = exec.LookPath("gopassivedns"); err != nil {
			t.Fatalf("find the program: %v", err)
		}
	}
	r.cmd = exec.Command(bin, append([]string{"-env_file=", "-name=test"}, args...)...)
	r.cmd.Dir = dir
	r.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PDNS_") }),
		"NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	r.cmd.SysProcAttr = &syscall.SysProcAttr{}
	if opt.uid != 0 {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: opt.uid, Gid: opt.uid}
	}
	var stdout io.Reader = strings.NewReader("")
	if opt.stdout != nil {
		r.cmd.Stdout = opt.stdout
	} else if stdout, err = r.cmd.StdoutPipe(); err != nil {
		t.Fatalf("start the program: %v", err)
	}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatalf("start the program: %v", err)
	}
	inNetns(t, opt.ns, r.cmd.Start)
	var readers sync.WaitGroup
	readers.Go(func() {
		in := bufio.NewReaderSize(stdout, 1<<20)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				r.mu.Lock()
				r.lines, r.came = append(r.lines, line), append(r.came, time.Now())
				r.mu.Unlock()
				r.news.Broadcast()
			}
			if err != nil {
				return
			}
		}
	})
	readers.Go(func() {
		var buf [4096]byte
		for {
			n, err := stderr.Read(buf[:])
			r.mu.Lock()
			r.stderr.Write(buf[:n])
			r.mu.Unlock()
			r.news.Broadcast()
			if err != nil {
				return
			}
		}
	})
	go func() {
		readers.Wait()
		_ = r.cmd.Wait()
		r.mu.Lock()
		r.over = true
		r.mu.Unlock()
		r.news.Broadcast()
		close(r.ended)
		r.notify.Close()
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
	})
	return r
}

// publicDir is a new directory that every user can reach and write.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gopassivedns-test-")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatalf("make a directory: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (r *liveRun) waitReady(t *testing.T) {
	t.Helper()
	var buf [4096]byte
	_ = r.notify.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		n, err := r.notify.Read(buf[:])
		if err != nil {
			t.Fatalf("wait for the program to be ready: %v\n%s", err, r.said())
		}
		if string(buf[:n]) == "READY=1" {
			return
		}
	}
}

func (r *liveRun) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stderr.String()
}

// until waits for ok, which is called with r.mu held, up to 30 s.
func (r *liveRun) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := false
	timer := time.AfterFunc(30*time.Second, func() {
		r.mu.Lock()
		late = true
		r.mu.Unlock()
		r.news.Broadcast()
	})
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !ok() {
		if late || r.over {
			t.Fatalf("waited for %s; have %d records, and on stderr:\n%s", what, len(r.lines), r.stderr.String())
		}
		r.news.Wait()
	}
}

// waitLines waits for n lines.
func (r *liveRun) waitLines(t *testing.T, n int) {
	t.Helper()
	r.until(t, fmt.Sprintf("%d records", n), func() bool { return len(r.lines) >= n })
}

// waitSaid waits for a text on stderr.
func (r *liveRun) waitSaid(t *testing.T, text string) {
	t.Helper()
	r.until(t, strconv.Quote(text)+" on stderr", func() bool { return strings.Contains(r.stderr.String(), text) })
}

// stop ends the program with SIGTERM and returns its exit code.
func (r *liveRun) stop(t *testing.T) int {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("stop the program: %v\n%s", err, r.said())
	}
	select {
	case <-r.ended:
	case <-time.After(60 * time.Second):
		t.Fatalf("the program did not end in a minute\n%s", r.said())
	}
	return r.cmd.ProcessState.ExitCode()
}

// liveRecord is what the tests look at in a record.
type liveRecord struct {
	Tstamp, Src, Dst, Protocol, Q, Qtype, Status string
	Vlan, Attempts                               int
}

func (r *liveRun) records(t *testing.T) []liveRecord {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []liveRecord
	for _, line := range r.lines {
		out = append(out, parseLiveRecord(t, line))
	}
	return out
}

func parseLiveRecord(t *testing.T, line string) liveRecord {
	t.Helper()
	var rec liveRecord
	if err := json.Unmarshal([]byte(line), &rec); err != nil {
		t.Fatalf("record %q: %v", line, err)
	}
	return rec
}

// TestLiveTransports asks a real server in every way that the wire can carry DNS, and wants each lookup once.
func TestLiveTransports(t *testing.T) {
	needRoot(t, "nsd")
	w := newWire(t)
	startNSD(t, w.server, "10.0.0.2", "fd00::2")
	for _, devs := range []string{"s0", "s0,lo"} {
		r := runLive(t, runOptions{ns: w.server}, "-dev", devs, "-layout", "lookup")
		want := make(map[liveRecord]int)
		for _, c := range []struct {
			network, client, server, q string
			qtype                      uint16
		}{
			{"udp", "10.0.0.1", "10.0.0.2", "www", dns.TypeA},
			{"tcp", "10.0.0.1", "10.0.0.2", "www", dns.TypeAAAA},
			{"udp", "fd00::1", "fd00::2", "www", dns.TypeA},
			{"tcp", "fd00::1", "fd00::2", "www", dns.TypeAAAA},
			{"udp", "10.0.0.1", "10.0.0.2", "big", dns.TypeTXT}, // IPv4 fragments
			{"udp", "fd00::1", "fd00::2", "big", dns.TypeTXT},   // IPv6 fragments
		} {
			ask(t, w.client, c.network, c.server, liveQuestion(c.q+".example.", c.qtype))
			want[liveRecord{Src: c.client, Dst: c.server, Protocol: c.network, Q: c.q + ".example", Qtype: dns.TypeToString[c.qtype], Status: "answer"}]++
		}
		r.waitLines(t, len(want))
		if code := r.stop(t); code != 0 {
			t.Errorf("-dev %s: exit code %d\n%s", devs, code, r.said())
		}
		got := make(map[liveRecord]int)
		for _, rec := range r.records(t) {
			rec.Tstamp = ""
			got[rec]++
		}
		for k, n := range want {
			if got[k] != n {
				t.Errorf("-dev %s: %+v: %d records, want %d", devs, k, got[k], n)
			}
		}
		if len(got) != len(want) {
			t.Errorf("-dev %s: got %+v", devs, got)
		}
	}
}

// liveFrame is a frame with a DNS message, in an encapsulation.
type liveFrame struct {
	name   string
	vlan   int // that the record must have
	frames [][]byte
}

// encapsulated builds a query for NAME.example. and its response in every encapsulation that the default filter reads.
func encapsulated(t *testing.T) []liveFrame {
	t.Helper()
	ether := func(et layers.EthernetType) *layers.Ethernet {
		return &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: et}
	}
	tag := func(id uint16, next layers.EthernetType) *layers.Dot1Q {
		return &layers.Dot1Q{VLANIdentifier: id, Type: next}
	}
	const ip4, ip6, dot1q, qinq = layers.EthernetTypeIPv4, layers.EthernetTypeIPv6, layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ
	outer := func(p layers.IPProtocol) *layers.IPv4 {
		return &layers.IPv4{Version: 4, TTL: 64, Protocol: p, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}}
	}
	type list = []gopacket.SerializableLayer
	vxlanUDP := &layers.UDP{SrcPort: 5000, DstPort: portVXLAN}
	wraps := []struct {
		name string
		vlan int
		v6   bool
		cut  int // send the IP packet in fragments of this many bytes
		over list
	}{
		{name: "plain", over: list{ether(ip4)}},
		{name: "plain6", v6: true, over: list{ether(ip6)}},
		{name: "tag", vlan: 7, over: list{ether(dot1q), tag(7, ip4)}},
		{name: "tag6", vlan: 7, v6: true, over: list{ether(dot1q), tag(7, ip6)}},
		{name: "service", vlan: 8, over: list{ether(qinq), tag(8, ip4)}},
		{name: "qinq", vlan: 9, over: list{ether(qinq), tag(9, dot1q), tag(10, ip4)}},
		{name: "two", vlan: 11, over: list{ether(dot1q), tag(11, dot1q), tag(12, ip4)}},
		{name: "three", vlan: 13, over: list{ether(qinq), tag(13, dot1q), tag(14, dot1q), tag(15, ip4)}},
		{name: "fragments", cut: 40, over: list{ether(ip4)}},
		{name: "tagfragments", vlan: 7, cut: 40, over: list{ether(dot1q), tag(7, ip4)}},
		{name: "qinqfragments", vlan: 9, cut: 40, over: list{ether(qinq), tag(9, dot1q), tag(10, ip4)}},
		{name: "mpls", over: list{ether(layers.EthernetTypeMPLSUnicast), &layers.MPLS{Label: 5, StackBottom: true, TTL: 9}}},
		{name: "tagmpls", vlan: 7, over: list{ether(dot1q), tag(7, layers.EthernetTypeMPLSUnicast), &layers.MPLS{Label: 5, StackBottom: true, TTL: 9}}},
		{name: "pppoe", over: list{ether(layers.EthernetTypePPPoESession), &layers.PPPoE{Version: 1, Type: 1, SessionId: 3}, &layers.PPP{PPPType: layers.PPPTypeIPv4}}},
		{name: "ipip", over: list{ether(ip4), outer(layers.IPProtocolIPv4)}},
		{name: "gre", over: list{ether(ip4), outer(layers.IPProtocolGRE), &layers.GRE{Protocol: ip4}}},
		{name: "vxlan", over: list{ether(ip4), outer(layers.IPProtocolUDP), vxlanUDP, &layers.VXLAN{ValidIDFlag: true, VNI: 3}, ether(ip4)}},
		{name: "tagvxlan", vlan: 7, over: list{ether(dot1q), tag(7, ip4), outer(layers.IPProtocolUDP), vxlanUDP, &layers.VXLAN{ValidIDFlag: true, VNI: 3}, ether(ip4)}},
	}
	var out []liveFrame
	for i, w := range wraps {
		lf := liveFrame{name: w.name, vlan: w.vlan}
		query := liveQuestion(w.name+".example.", dns.TypeA)
		query.Id = uint16(i + 1)
		response := new(dns.Msg)
		response.SetReply(query)
		response.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.IP{192, 0, 2, 9}}}
		for j, m := range []*dns.Msg{query, response} {
			msg, err := m.Pack()
			if err != nil {
				t.Fatalf("%s: %v", w.name, err)
			}
			ports := [2]layers.UDPPort{layers.UDPPort(4000 + i), 53}
			var src, dst net.IP = net.IP{198, 51, 100, 1}, net.IP{198, 51, 100, 2}
			if w.v6 {
				src, dst = net.ParseIP("2001:db8::1"), net.ParseIP("2001:db8::2")
			}
			if j == 1 {
				ports[0], ports[1], src, dst = ports[1], ports[0], dst, src
			}
			udp := &layers.UDP{SrcPort: ports[0], DstPort: ports[1]}
			v4 := &layers.IPv4{Version: 4, TTL: 64, Id: uint16(2*i + j + 1), Protocol: layers.IPProtocolUDP, SrcIP: src, DstIP: dst}
			opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
			serialize := func(ls ...gopacket.SerializableLayer) []byte {
				buf := gopacket.NewSerializeBuffer()
				if err := gopacket.SerializeLayers(buf, opts, ls...); err != nil {
					t.Fatalf("%s: %v", w.name, err)
				}
				return slices.Clone(buf.Bytes())
			}
			vxlanUDP.SetNetworkLayerForChecksum(outer(layers.IPProtocolUDP))
			switch {
			case w.v6:
				v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: src, DstIP: dst}
				udp.SetNetworkLayerForChecksum(v6)
				lf.frames = append(lf.frames, serialize(append(slices.Clone(w.over), v6, udp, gopacket.Payload(msg))...))
			case w.cut > 0:
				udp.SetNetworkLayerForChecksum(v4)
				segment := serialize(udp, gopacket.Payload(msg))
				for off := 0; off < len(segment); off += w.cut {
					part := segment[off:min(off+w.cut, len(segment))]
					v4.FragOffset, v4.Flags = uint16(off/8), 0
					if off+w.cut < len(segment) {
						v4.Flags = layers.IPv4MoreFragments
					}
					lf.frames = append(lf.frames, serialize(append(slices.Clone(w.over), v4, gopacket.Payload(part))...))
				}
			default:
				udp.SetNetworkLayerForChecksum(v4)
				lf.frames = append(lf.frames, serialize(append(slices.Clone(w.over), v4, udp, gopacket.Payload(msg))...))
			}
		}
		out = append(out, lf)
	}
	return out
}

// sendFrames sends frames from a device as they are.
func sendFrames(dev string, all []liveFrame) error {
	ifc, err := net.InterfaceByName(dev)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, lf := range all {
		for _, frame := range lf.frames {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifc.Index, Halen: 6}); err != nil {
				return fmt.Errorf("send %s: %w", lf.name, err)
			}
		}
	}
	return nil
}

// TestLiveEncapsulated: the default filter reads on a device what it reads in a file. The kernel or the device takes the
// outermost tag off a packet that comes in (s0, any), and leaves it in one that goes out (c0).
func TestLiveEncapsulated(t *testing.T) {
	needRoot(t)
	w := newWire(t)
	for _, c := range []struct{ ns, dev string }{{w.server, "s0"}, {w.server, anyDevice}, {w.client, "c0"}} {
		all := encapsulated(t)
		if c.dev == anyDevice {
			// What the kernel says of frames with two tags in cooked mode contradicts itself: the protocol of the IP packet, and
			// then the second tag.
			all = slices.DeleteFunc(all, func(lf liveFrame) bool { return lf.vlan >= 9 })
		}
		r := runLive(t, runOptions{ns: c.ns}, "-dev", c.dev)
		inNetns(t, w.client, func() error { return sendFrames("c0", all) })
		r.waitLines(t, len(all))
		r.stop(t)
		got, want := make(map[string]int), make(map[string]int)
		for _, rec := range r.records(t) {
			if rec.Status != "answer" {
				t.Errorf("-dev %s: %+v", c.dev, rec)
			}
			got[strings.TrimSuffix(rec.Q, ".example")] = rec.Vlan
		}
		for _, lf := range all {
			want[lf.name] = lf.vlan
		}
		if !maps.Equal(got, want) {
			t.Errorf("-dev %s: VLANs by name\ngot:  %v\nwant: %v", c.dev, got, want)
		}
	}
}

// TestKernelFilter: what the default filter passes in a frame with its tags in place, by libpcap's own interpreter.
func TestKernelFilter(t *testing.T) {
	f, err := compileFilter(kernelFilter(linkEthernet))
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, lf := range encapsulated(t) {
		for i, frame := range lf.frames {
			if !f.matches(frame, len(frame), linkEthernet) {
				t.Errorf("%s: frame %d is not passed", lf.name, i)
			}
		}
	}
	for _, lt := range []uint32{linkNull, linkEthernet, linkRawDLT12, linkLoop, linkSLL, linkSLL2} {
		if _, err := pcap.CompileBPFFilter(layers.LinkType(lt), maxFrame, kernelFilter(lt)); err != nil {
			t.Errorf("link type %s: %v", linkName(lt), err)
		}
	}
}

// TestLiveLoopbackOnce: the kernel shows a packet on lo twice, going out and coming in.
func TestLiveLoopbackOnce(t *testing.T) {
	needRoot(t, "nsd")
	for _, dev := range []string{"lo", "any"} {
		ns := newNetns(t)
		startNSD(t, ns, "127.0.0.1", "::1")
		r := runLive(t, runOptions{ns: ns}, "-dev", dev)
		ask(t, ns, "udp", "127.0.0.1", liveQuestion("www.example.", dns.TypeA), liveQuestion("www.example.", dns.TypeAAAA))
		ask(t, ns, "tcp", "::1", liveQuestion("www.example.", dns.TypeA))
		r.waitLines(t, 3)
		r.stop(t)
		recs := r.records(t)
		for _, rec := range recs {
			if rec.Status != "answer" || rec.Attempts != 0 {
				t.Errorf("-dev %s: %+v", dev, rec)
			}
		}
		if len(recs) != 3 || strings.Contains(r.said(), "duplicate") {
			t.Errorf("-dev %s: %d records, want 3\n%s", dev, len(recs), r.said())
		}
	}
}

// TestLiveLatency: a record is out within 200 ms of its packet. Of 40, two may be late because the machine was.
func TestLiveLatency(t *testing.T) {
	needRoot(t, "nsd")
	ns := newNetns(t)
	startNSD(t, ns, "127.0.0.1")
	r := runLive(t, runOptions{ns: ns}, "-dev", "lo")
	const n = 40
	for i := range n {
		ask(t, ns, "udp", "127.0.0.1", liveQuestion("www.example.", dns.TypeA))
		r.waitLines(t, i+1) // so that the packets come at all phases of the program's waiting
	}
	r.stop(t)
	late := 0
	var worst time.Duration
	for i, rec := range r.records(t) {
		ts, err := time.Parse(time.RFC3339Nano, rec.Tstamp)
		if err != nil {
			t.Fatalf("%v", err)
		}
		d := r.came[i].Sub(ts)
		worst = max(worst, d)
		if d > 200*time.Millisecond {
			late++
		}
	}
	t.Logf("slowest record: %v", worst)
	if late > 2 {
		t.Errorf("%d of %d records came later than 200 ms, the slowest after %v", late, n, worst)
	}
}

// TestLiveDeviceReturns takes the device down, and away, while the program runs as another user.
func TestLiveDeviceReturns(t *testing.T) {
	needRoot(t, "nsd")
	w := newWire(t)
	startNSD(t, w.server, "0.0.0.0")
	r := runLive(t, runOptions{ns: w.server}, "-dev", "s0", "-user", "nobody")
	n := 0
	query := func() {
		t.Helper()
		ask(t, w.client, "udp", "10.0.0.2", liveQuestion("www.example.", dns.TypeA))
		n++
		r.waitLines(t, n)
	}
	query()
	command(t, "ip", "-n", w.server, "link", "set", "s0", "down")
	r.waitSaid(t, "trying again until it works")
	command(t, "ip", "-n", w.server, "link", "set", "s0", "up")
	r.waitSaid(t, "captured again")
	query()
	command(t, "ip", "-n", w.server, "link", "del", "s0")
	r.until(t, "a second failure", func() bool { return strings.Count(r.stderr.String(), "trying again until it works") == 2 })
	w.connect(t)
	r.until(t, "a second recovery", func() bool { return strings.Count(r.stderr.String(), "captured again") == 2 })
	query()
	if code := r.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if said := r.said(); !strings.Contains(said, " device_errors") {
		t.Errorf("the summary does not count the errors:\n%s", said)
	}
}

func TestLiveExitOnDeviceError(t *testing.T) {
	needRoot(t)
	w := newWire(t)
	r := runLive(t, runOptions{ns: w.server}, "-dev", "lo,s0", "-exit_on_device_error")
	command(t, "ip", "-n", w.server, "link", "del", "s0")
	<-r.ended
	if code := r.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(r.said(), `device "s0"`) {
		t.Errorf("exit code %d, want 1\n%s", code, r.said())
	}
}

// flood sends queries for q0.w.example., q1.w.example., … to the server address until stop, about rate a second. It returns
// how many were sent, and by passes on the number sent so far.
func flood(ns, server string, rate int, sent *atomic.Int64, stop <-chan struct{}) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			h, err := os.Open("/run/netns/" + ns)
			if err != nil {
				return err
			}
			defer h.Close()
			if err := unix.Setns(int(h.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			c, err := net.Dial("udp", net.JoinHostPort(server, "53"))
			if err != nil {
				return err
			}
			defer c.Close()
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; {
				select {
				case <-stop:
					return nil
				case <-tick.C:
				}
				for range rate / 100 {
					q := new(dns.Msg)
					q.SetQuestion(fmt.Sprintf("q%d.w.example.", n), dns.TypeA)
					q.Id = uint16(n)
					b, err := q.Pack()
					if err != nil {
						return err
					}
					if _, err := c.Write(b); err != nil {
						continue // the receiver's socket does not exist: ICMP says so now and then
					}
					n++
					sent.Store(int64(n))
				}
			}
		}()
	}()
	return <-done
}

// checkFlood wants a whole record for each of the first n questions of a flood, once.
func checkFlood(t *testing.T, text string, n int) {
	t.Helper()
	if !strings.HasSuffix(text, "\n") {
		t.Errorf("the last record is not whole: …%q", text[max(0, len(text)-100):])
	}
	seen := make(map[string]int)
	for line := range strings.Lines(text) {
		seen[parseLiveRecord(t, line).Q]++
	}
	missing := 0
	for i := range n {
		switch name := fmt.Sprintf("q%d.w.example", i); seen[name] {
		case 1:
		case 0:
			missing++
		default:
			t.Fatalf("%s is in the log %d times", name, seen[name])
		}
	}
	if missing > 0 || n == 0 {
		t.Errorf("%d of %d lookups are not in the log", missing, n)
	}
}

// TestLiveStopUnderLoad: what was captured before SIGTERM is in the log.
func TestLiveStopUnderLoad(t *testing.T) {
	needRoot(t)
	w := newWire(t)
	file := filepath.Join(publicDir(t), "dns.log")
	r := runLive(t, runOptions{ns: w.server}, "-dev", "s0", "-quiet", "-logfile", file)
	var sent atomic.Int64
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- flood(w.client, "10.0.0.2", 30_000, &sent, stop) }()
	waitFor(t, "20,000 packets", func() bool { return sent.Load() > 20_000 })
	n := sent.Load()
	if code := r.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatalf("send: %v", err)
	}
	if strings.Contains(r.said(), "dropped") && strings.Contains(r.said(), "the kernel dropped") {
		t.Fatalf("the machine was too slow for this test\n%s", r.said())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v", err)
	}
	checkFlood(t, string(text), int(n))
}

// TestLiveHangup: SIGHUP under load rotates the log file, which belongs to another user by then, and loses no line.
func TestLiveHangup(t *testing.T) {
	needRoot(t, "nsd")
	w := newWire(t)
	startNSD(t, w.server, "10.0.0.2")
	dir := publicDir(t)
	r := runLive(t, runOptions{ns: w.server}, "-dev", "s0", "-quiet", "-user", "nobody", "-logfile", filepath.Join(dir, "dns.log"),
		"-logMaxBackups", "0", "-logMaxAge", "0")
	var sent atomic.Int64
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- flood(w.client, "10.0.0.2", 5_000, &sent, stop) }()
	files := func() []string {
		names, err := filepath.Glob(filepath.Join(dir, "*.log"))
		if err != nil {
			t.Fatalf("%v", err)
		}
		return names
	}
	for i := range 5 {
		waitFor(t, "packets", func() bool { return sent.Load() > int64(i+1)*1_000 })
		if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatalf("%v", err)
		}
		waitFor(t, "the rotation", func() bool { return len(files()) >= i+2 })
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatalf("send: %v", err)
	}
	n := sent.Load()
	r.stop(t)
	var all bytes.Buffer
	for _, name := range files() {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatalf("%v", err)
		}
		all.Write(text)
	}
	checkFlood(t, all.String(), int(n))
}

// TestLiveIdleExpiry: a query without response is written off although no further packet comes.
func TestLiveIdleExpiry(t *testing.T) {
	needRoot(t)
	w := newWire(t)
	r := runLive(t, runOptions{ns: w.server}, "-dev", "s0", "-gc_age", "1s", "-gc_interval", "1s")
	inNetns(t, w.client, func() error {
		c, err := net.Dial("udp", "10.0.0.2:53")
		if err != nil {
			return err
		}
		defer c.Close()
		b, err := liveQuestion("lost.example.", dns.TypeA).Pack()
		if err == nil {
			_, err = c.Write(b)
		}
		return err
	})
	r.waitLines(t, 1)
	if rec := r.records(t)[0]; rec.Q != "lost.example" || rec.Status != "unanswered" {
		t.Errorf("got %+v, want lost.example unanswered", rec)
	}
}

// TestLiveStartErrors: what is wrong with a device is said in one line and a hint.
func TestLiveStartErrors(t *testing.T) {
	needRoot(t)
	w := newWire(t)
	command(t, "ip", "-n", w.client, "link", "add", "down1", "type", "veth", "peer", "name", "down0", "netns", w.server)
	for _, c := range []struct {
		args []string
		uid  uint32
		code int
		want []string
	}{
		{[]string{"-dev", "nosuch0"}, 0, 1, []string{`gopassivedns: open device "nosuch0": no such device`, "hint: devices here: any, down0, lo, s0"}},
		{[]string{"-dev", "s0,nosuch0"}, 0, 1, []string{`gopassivedns: open device "nosuch0": no such device`, "hint: devices here: any, down0, lo, s0"}},
		{[]string{"-dev", "down0"}, 0, 1, []string{`gopassivedns: open device "down0": the device is down`, "hint: ip link set down0 up"}},
		{[]string{"-dev", "s0"}, 65534, 1, []string{`gopassivedns: open device "s0": not permitted`,
			"hint: it takes the capability CAP_NET_RAW: run as root, or once: setcap cap_net_raw+ep $(command -v gopassivedns)"}},
		{[]string{"-dev", "s0", "-bpf", "port fifty"}, 0, 2, []string{`gopassivedns: bad filter "port fifty" (-bpf) for device "s0": unknown port 'fifty'`,
			"hint: the syntax is tcpdump's, see pcap-filter(7)"}},
		{[]string{"-dev", "s0", "-user", "nosuchuser"}, 0, 2, []string{`gopassivedns: bad user "nosuchuser" (-user): no such user`, "hint: want a user of this system other than root"}},
		{[]string{"-dev", "s0", "-user", "root"}, 0, 2, []string{`gopassivedns: bad user "root" (-user): that is root`, "hint: want a user of this system other than root"}},
	} {
		bin := ""
		if c.uid != 0 {
			bin = copyBinary(t)
		}
		r := startRun(t, runOptions{ns: w.server, uid: c.uid, bin: bin}, c.args...)
		<-r.ended
		got := strings.Split(strings.TrimSpace(r.said()), "\n")
		got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "running as root") })
		if code := r.cmd.ProcessState.ExitCode(); code != c.code || !slices.Equal(got, c.want) {
			t.Errorf("%v: exit code %d\ngot:  %q\nwant: %q", c.args, code, got, c.want)
		}
	}
}

// copyBinary copies the program to where every user can run it.
func copyBinary(t *testing.T) string {
	t.Helper()
	from, err := exec.LookPath("gopassivedns")
	if err != nil {
		t.Fatalf("find the program: %v", err)
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer in.Close()
	name := filepath.Join(publicDir(t), "gopassivedns")
	out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatalf("%v", err)
	}
	if err := out.Close(); err != nil {
		t.Fatalf("%v", err)
	}
	return name
}

// TestLiveCapability runs as a user without any right but the file capability.
func TestLiveCapability(t *testing.T) {
	needRoot(t, "nsd", "setcap")
	w := newWire(t)
	startNSD(t, w.server, "10.0.0.2")
	bin := copyBinary(t)
	command(t, "setcap", "cap_net_raw+ep", bin)
	r := runLive(t, runOptions{ns: w.server, bin: bin, uid: 65534}, "-dev", "s0")
	ask(t, w.client, "udp", "10.0.0.2", liveQuestion("www.example.", dns.TypeA))
	r.waitLines(t, 1)
	if said := r.said(); said != "" {
		t.Errorf("stderr: %s", said)
	}
	if code := r.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestLiveUser: after -user no thread is root or has more than CAP_NET_RAW, and only one has that.
func TestLiveUser(t *testing.T) {
	needRoot(t)
	ns := newNetns(t)
	account, err := lookupUser("nobody")
	if err != nil {
		t.Fatalf("%v", err)
	}
	r := runLive(t, runOptions{ns: ns}, "-dev", "lo", "-user", "nobody")
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", r.cmd.Process.Pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("list threads: %v, %v", tasks, err)
	}
	capable := 0
	for _, name := range tasks {
		status, err := os.ReadFile(name)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if err := account.verifyThread(string(status)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(string(status), "CapEff:\t0000000000000000") {
			capable++
		}
		if !strings.Contains(string(status), "CapInh:\t0000000000000000") || !strings.Contains(string(status), "CapAmb:\t0000000000000000") {
			t.Errorf("%s: capabilities that a child would inherit:\n%s", name, status)
		}
	}
	if capable != 1 {
		t.Errorf("%d threads have CAP_NET_RAW, want 1", capable)
	}
	r.stop(t)

	// A directory that the user can't write could not be rotated in.
	dir := filepath.Join(publicDir(t), "log")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("%v", err)
	}
	r = startRun(t, runOptions{ns: ns}, "-dev", "lo", "-user", "nobody", "-quiet", "-logfile", filepath.Join(dir, "dns.log"))
	<-r.ended
	if code := r.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(r.said(), "hint: install -d -o nobody "+dir) {
		t.Errorf("exit code %d, want 1 and a hint\n%s", code, r.said())
	}
}
