package main

// capture_live.go captures from network devices.
//
// In: the devices of -dev, each through a packetSource: libpcap here, PF_RING in capture_pfring.go.
// Out: frames, to feeder.frame, copied into the chunk's slab.
//
//	device ×N: packetSource.fill ──liveBatch──► liveCapture.run ──► feeder
//
// Rules: each device has a goroutine that reads it, and a fixed number of batches; the capture goroutine takes the
// batches of all devices. libpcap's handles can't be waited for together, so one goroutine for several would poll
// them in turn and sleep in each; and with a goroutine of its own a device that is gone can wait to come back while the
// others go on. The second copy that this costs (ring to batch, batch to slab) is 15 ns a packet, and header decoding
// runs on another core than the kernel's ring is read on. When no batch is free the device's goroutine stops reading, and
// the kernel's buffer absorbs, then drops; that is counted and said.
//
// A packet waits for its kernel block (liveWait), for its batch (liveWait at most) and for its chunk (liveChunkAge): its
// record is out within 200 ms at any rate, and a busy device wakes nobody once a packet.
// Packet time is the kernel's wall clock. Where no packet comes the wall clock stands in for it, so that the
// connection table expires and the pipeline is seen to be alive.

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gopacket/gopacket/pcap"
	"golang.org/x/sys/unix"
)

const (
	liveWait     = 40 * time.Millisecond  // age at which the kernel hands over a block that is not full, and longest wait in fill
	liveIdleWait = 200 * time.Millisecond // longest wait of a device that has been quiet for liveWait
	liveBatchAge = 20 * time.Millisecond  // packet time that a batch spans at most
	liveChunkAge = 40 * time.Millisecond  // wall time between hand-overs of chunks that are not full
	liveBatches  = 8                      // of each device
	liveBatch64k = 64 << 10               // bytes of a batch, or more where the snaplen is longer
	liveVLANRoom = 8                      // bytes that libpcap may add to the snaplen for a tag that the device took off

	liveCheckEvery = time.Second // libpcap waits silently for a device that is down
	liveStatsEvery = 2 * time.Second
	liveWarnEvery  = 10 * time.Second // shortest time between two warnings about drops of one device
	liveRetryMin   = time.Second
	liveRetryMax   = 30 * time.Second
	liveRetryReset = time.Minute // a device that worked this long is tried again at once
	liveStopBound  = 5 * time.Second

	// liveSilence is how long no chunk may come through before the program counts as unwell: idle ones come every second.
	liveSilence = 15 * time.Second

	// liveIdleLag keeps the wall clock's ticks behind the packets that the kernel still holds back.
	liveIdleLag = 500 * time.Millisecond
)

// packetSource is one opened device. Its device's goroutine owns it.
type packetSource interface {
	// fill appends packets to b until b is full or spans liveBatchAge, or the device had nothing for liveWait; idle says
	// that it was the latter. An error means that the device is gone; b may hold packets then, too.
	fill(b *liveBatch) (idle bool, err error)
	linkType() uint32
	// kernel returns the counters since the device was opened, each modulo 2^32.
	kernel() (received, dropped, ifDropped uint32, err error)
	close()
}

// liveBatch is a run of packets of one device. The device's goroutine fills it, the capture goroutine empties it.
type liveBatch struct {
	dev     *liveDevice
	link    uint32
	buf     []byte
	packets []livePacket
	kernel  kernelCounters // what was counted since the batch before
	errors  uint64
}

// livePacket is a packet of a batch; its bytes begin where the one before ends.
type livePacket struct {
	ts   int64 // ns since 1970
	end  uint32
	wire uint32
}

// room says whether a packet of n bytes fits.
func (b *liveBatch) room(n int) bool { return len(b.buf)+n <= cap(b.buf) }

// add appends a copy of pkt, for which there is room.
func (b *liveBatch) add(pkt []byte, ts int64, wire int) {
	b.buf = append(b.buf, pkt...)
	b.packets = append(b.packets, livePacket{ts: ts, end: uint32(len(b.buf)), wire: uint32(wire)})
}

// spans says whether ts is liveBatchAge behind the first packet.
func (b *liveBatch) spans(ts int64) bool {
	return len(b.packets) > 0 && ts-b.packets[0].ts >= int64(liveBatchAge)
}

func (b *liveBatch) reset() {
	b.buf, b.packets = b.buf[:0], b.packets[:0]
	b.kernel, b.errors = kernelCounters{}, 0
}

// deviceError is why a device can't be opened, as the user sees it. filter says that it is the user's filter.
type deviceError struct {
	msg, hint string
	filter    bool
}

func (e *deviceError) Error() string { return e.msg }

// liveOptions is what a device is opened with.
type liveOptions struct {
	snaplen  int
	bufferMB int
	promisc  bool
	bpf      string // "" for the default
	cluster  int    // PF_RING only
	open     func(dev string, opt *liveOptions) (packetSource, error)
}

// liveOptionsOf takes the options out of cfg.
func liveOptionsOf(cfg *config) liveOptions {
	o := liveOptions{snaplen: cfg.snaplen, bufferMB: cfg.bufferMB, promisc: cfg.promisc, cluster: cfg.pfringCluster, open: openPcap}
	if cfg.bpfSet {
		o.bpf = cfg.bpf
	}
	if cfg.pfring {
		o.open = openPFRing
	}
	return o
}

// liveCapture is the capture of all devices.
type liveCapture struct {
	opt     liveOptions
	devices []*liveDevice
	full    chan *liveBatch
	opener  *deviceOpener
	exit    bool // end with the first device error
	log     logger
	stop    <-chan struct{}

	mu  sync.Mutex
	err error // the device error that ended the capture
	end chan struct{}
}

// liveDevice is one device and its goroutine's state.
type liveDevice struct {
	name  string
	cap   *liveCapture
	src   packetSource
	free  chan *liveBatch
	cur   *liveBatch
	since time.Time // when src was opened
	index int       // the device's number then, 0 where the name is not a network device's (any, PF_RING's own names)

	checkAt time.Time // when the device was last looked at
	last    struct{ received, dropped, ifDropped uint32 }

	statsAt time.Time // when the kernel's counters were last read
	warnAt  time.Time // when drops were last said
	unsaid  uint64    // packets dropped since
}

// openLive opens all devices. The error is a *deviceError; nothing is left open then.
func openLive(devs []string, opt liveOptions, exitOnError bool, stop <-chan struct{}, log logger) (*liveCapture, error) {
	l := &liveCapture{
		opt: opt, opener: newDeviceOpener(), exit: exitOnError, log: log, stop: stop,
		full: make(chan *liveBatch, liveBatches*len(devs)), end: make(chan struct{}),
	}
	size := max(liveBatch64k, opt.snaplen+liveVLANRoom)
	for _, name := range devs {
		d := &liveDevice{name: name, cap: l, free: make(chan *liveBatch, liveBatches)}
		if err := d.open(); err != nil {
			l.close()
			return nil, err
		}
		for range liveBatches {
			d.free <- &liveBatch{dev: d, buf: make([]byte, 0, size), packets: make([]livePacket, 0, size/64)}
		}
		l.devices = append(l.devices, d)
	}
	return l, nil
}

// close ends a capture that was never run.
func (l *liveCapture) close() {
	for _, d := range l.devices {
		d.src.close()
	}
	l.opener.close()
}

// run captures until stop closes or, with exit, a device fails. All that the kernel captured before stop was closed has
// been given to f when it returns.
func (l *liveCapture) run(f *feeder) error {
	var wg sync.WaitGroup
	for _, d := range l.devices {
		wg.Go(d.run)
	}
	go func() {
		wg.Wait()
		close(l.full)
	}()
	age := time.NewTimer(liveChunkAge) // runs while the chunk holds something that waits
	age.Stop()
	idle := time.NewTicker(time.Duration(tickNs))
	defer idle.Stop()
	var handed time.Time // when a chunk was last handed over for its age
	seen := f.seq        // as of the last idle tick
	for {
		select {
		case b, ok := <-l.full:
			if !ok {
				l.opener.close()
				return l.err
			}
			f.live(b)
			b.reset()
			b.dev.free <- b
			if f.cur.total == 0 || len(l.full) > 0 && time.Since(handed) < liveChunkAge {
				continue
			}
			if now := time.Now(); now.Sub(handed) >= liveChunkAge {
				f.handOver()
				handed = now
				age.Stop()
			} else {
				age.Reset(liveChunkAge - now.Sub(handed))
			}
		case <-age.C:
			if f.cur.total > 0 {
				f.handOver()
				handed = time.Now()
			}
		case now := <-idle.C:
			if f.seq == seen {
				f.idleTick(now.Add(-liveIdleLag).UnixNano())
				handed = now
			}
			seen = f.seq
		}
	}
}

// live files the packets of b.
func (f *feeder) live(b *liveBatch) {
	k := &f.count.kernel
	k.received += b.kernel.received
	k.dropped += b.kernel.dropped
	k.ifDropped += b.kernel.ifDropped
	f.count.deviceErrors += b.errors
	from := uint32(0)
	for i := range b.packets {
		p := &b.packets[i]
		pkt := b.buf[from:p.end]
		from = p.end
		c := f.cur
		if len(pkt) > len(c.slab)-c.bytes || f.full() {
			f.handOver()
			c = f.cur
		}
		off, views := c.bytes, c.total
		n := copy(c.slab[off:], pkt)
		f.frame(c.slab[off:off+n:off+n], off, int(p.wire), p.ts, b.link)
		if c.total != views {
			c.bytes = off + n // else nobody needs the bytes: the next packet takes their place
		}
	}
}

// idleTick lets packet time pass where no packet came, and hands the chunk over in any case.
func (f *feeder) idleTick(ts int64) {
	if ts >= f.nextTick {
		f.tick(ts)
	}
	f.handOver()
}

// fail records the device error that ends the capture.
func (l *liveCapture) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.end)
	}
}

// stopping says whether the capture is to end.
func (l *liveCapture) stopping() bool {
	select {
	case <-l.stop:
		return true
	case <-l.end:
		return true
	default:
		return false
	}
}

// open opens the device, on the thread that may.
func (d *liveDevice) open() (err error) {
	d.cap.opener.do(func() { d.src, err = d.cap.opt.open(d.name, &d.cap.opt) })
	if err != nil {
		d.src = nil
		return err
	}
	d.since = time.Now()
	d.index = 0
	if d.name != anyDevice {
		d.index, _, _ = deviceState(d.name)
	}
	d.last.received, d.last.dropped, d.last.ifDropped = 0, 0, 0
	return nil
}

// run reads the device until the capture ends, and opens it again when it fails.
func (d *liveDevice) run() {
	retry := liveRetryMin
	for d.src != nil {
		err := d.read()
		d.readKernel()
		d.src.close()
		d.src = nil
		if err == nil {
			break
		}
		worked := time.Since(d.since)
		if worked > liveRetryReset {
			retry = liveRetryMin
		}
		d.batch().errors++
		d.send()
		if d.cap.exit {
			d.cap.fail(fmt.Errorf("device %q: %w", d.name, err))
			break
		}
		d.cap.log.errorf("device %q: %v; trying again until it works", d.name, err)
		retry = d.reopen(retry)
	}
	d.sayDrops(true)
	if d.cur != nil {
		d.send()
	}
}

// reopen opens the device again, with back-off that begins with wait; it returns what to begin with the next time.
// d.src is nil when the capture is to end.
func (d *liveDevice) reopen(wait time.Duration) time.Duration {
	from := time.Now()
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-d.cap.stop:
			timer.Stop()
			return wait
		case <-d.cap.end:
			timer.Stop()
			return wait
		}
		wait = min(2*wait, liveRetryMax)
		err := d.open()
		if err == nil {
			d.cap.log.warnf("device %q: captured again after %v", d.name, time.Since(from).Round(time.Millisecond))
			return wait
		}
		d.batch().errors++
		d.send()
		d.cap.log.debugf("device %q: %v", d.name, err)
	}
}

// batch returns the batch being filled.
func (d *liveDevice) batch() *liveBatch {
	if d.cur == nil {
		d.cur = <-d.free
	}
	return d.cur
}

// send gives the current batch to the capture goroutine.
func (d *liveDevice) send() {
	d.cap.full <- d.cur
	d.cur = nil
}

// read passes packets on until the capture ends (nil) or the device fails. Once the capture is to end it goes on until the
// kernel has handed over all it had captured by then.
func (d *liveDevice) read() error {
	var stopAt time.Time
	for {
		if stopAt.IsZero() && d.cap.stopping() {
			stopAt = time.Now()
		}
		b := d.batch()
		b.link = d.src.linkType()
		idle, err := d.src.fill(b)
		now := time.Now()
		if now.Sub(d.statsAt) >= liveStatsEvery {
			d.statsAt = now
			d.readKernel()
			d.sayDrops(false)
		}
		last := int64(0)
		if n := len(b.packets); n > 0 {
			last = b.packets[n-1].ts
		}
		if len(b.packets) > 0 || b.kernel != (kernelCounters{}) {
			d.send()
		}
		if err == nil && idle && now.Sub(d.checkAt) >= liveCheckEvery {
			d.checkAt = now
			err = d.check()
		}
		if err != nil {
			return err
		}
		if !stopAt.IsZero() {
			since := now.Sub(stopAt)
			if last > stopAt.UnixNano() || idle && since > 2*liveWait || since > liveStopBound {
				return nil
			}
		}
	}
}

// check says what is wrong with the device, which an idle handle would not tell.
func (d *liveDevice) check() error {
	if d.index == 0 {
		return nil
	}
	index, up, err := deviceState(d.name)
	switch {
	case err != nil:
		return nil // that is no news of the device
	case index == 0:
		return errors.New("the device is gone")
	case index != d.index:
		return errors.New("the device was replaced by another of its name")
	case !up:
		return errors.New("the device is down")
	}
	return nil
}

// deviceState returns a device's number, 0 if there is none of the name, and whether it is up (netdevice(7)).
func deviceState(name string) (index int, up bool, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, false, nil // too long for a name
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false, err
	}
	defer unix.Close(fd)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, false, nil
	}
	index = int(ifr.Uint32())
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return 0, false, nil
	}
	return index, ifr.Uint16()&unix.IFF_UP != 0, nil
}

// readKernel takes over what the kernel has counted since the last time.
func (d *liveDevice) readKernel() {
	received, dropped, ifDropped, err := d.src.kernel()
	if err != nil {
		return // the device is gone; what was read before is accounted for
	}
	k := &d.batch().kernel
	k.received += uint64(received - d.last.received)
	k.dropped += uint64(dropped - d.last.dropped)
	d.unsaid += uint64(dropped - d.last.dropped)
	d.last.received, d.last.dropped = received, dropped
	// A device that vanishes takes its own counter with it, which then seems to run backwards.
	if n := int32(ifDropped - d.last.ifDropped); n > 0 {
		k.ifDropped += uint64(n)
		d.unsaid += uint64(n)
	}
	d.last.ifDropped = ifDropped
}

// sayDrops warns of packets that were dropped since the last warning, at most every liveWarnEvery.
func (d *liveDevice) sayDrops(end bool) {
	if now := time.Now(); d.unsaid > 0 && (end || now.Sub(d.warnAt) >= liveWarnEvery) {
		d.cap.log.warnf("device %q: the kernel dropped %d packets, because they were not read in time (-buffer_size bridges bursts)", d.name, d.unsaid)
		d.unsaid, d.warnAt = 0, now
	}
}

// pcapSource is a device opened with libpcap.
type pcapSource struct {
	h    *pcap.Handle
	link uint32

	// sock is a second descriptor of the handle's socket, in the Go runtime's poller, to wait on while the device is
	// quiet; nil where it was not found, and then the waiting is gopacket's: a poll(2) in C every liveWait, each of
	// which keeps the runtime's monitor thread running for 10 ms (3 % of a core, against 0.1 %).
	sock  *os.File
	conn  syscall.RawConn
	ready func(fd uintptr) bool
	more  bool // the last read found a packet: there may be others, without waiting

	// A packet that was read but did not fit any more: libpcap's until the next read.
	pend     []byte
	pendTs   int64
	pendWire int
}

// openPcap opens a device with libpcap.
func openPcap(dev string, opt *liveOptions) (packetSource, error) {
	before := packetSockets()
	h, err := activate(dev, opt, opt.promisc && dev != anyDevice)
	if err != nil {
		return nil, err
	}
	s := &pcapSource{h: h, link: uint32(h.LinkType()), more: true}
	s.watch(before)
	if !linkKnown(s.link) {
		s.close()
		return nil, &deviceError{msg: fmt.Sprintf("open device %q: its link type %s is not supported", dev, linkName(s.link))}
	}
	if err := s.setFilter(opt.bpf); err != nil {
		s.close()
		return nil, &deviceError{filter: true, msg: fmt.Sprintf("bad filter %q (-bpf) for device %q: %v", opt.bpf, dev, err), hint: "the syntax is tcpdump's, see pcap-filter(7)"}
	}
	return s, nil
}

// activate opens the handle: not in immediate mode, so that the kernel hands over blocks of packets.
func activate(dev string, opt *liveOptions, promisc bool) (*pcap.Handle, error) {
	in, err := pcap.NewInactiveHandle(dev)
	if err != nil {
		return nil, openError(dev, err)
	}
	defer in.CleanUp()
	if err := errors.Join(in.SetSnapLen(opt.snaplen), in.SetPromisc(promisc), in.SetTimeout(liveWait), in.SetBufferSize(opt.bufferMB<<20)); err != nil {
		return nil, openError(dev, err)
	}
	h, err := in.Activate()
	if err != nil && promisc && (strings.Contains(err.Error(), "promisc") || strings.HasSuffix(err.Error(), "-11")) {
		return activate(dev, opt, false) // a device that has no such mode
	}
	if err != nil {
		return nil, openError(dev, err)
	}
	return h, nil
}

// openError explains why a device can't be opened. libpcap's reasons reach us as gopacket's texts.
func openError(dev string, err error) error {
	e := &deviceError{}
	reason := strings.TrimPrefix(strings.TrimSpace(err.Error()), "Error: ")
	switch {
	case reason == "No Such Device":
		reason, e.hint = "no such device", "devices here: "+strings.Join(deviceNames(), ", ")
	case reason == "Permission Denied" || strings.Contains(reason, "CAP_NET_RAW") || strings.Contains(reason, "not permitted"):
		reason = "not permitted"
		e.hint = "it takes the capability CAP_NET_RAW: run as root, or once: setcap cap_net_raw+ep $(command -v gopassivedns)"
	case reason == "Interface Not Up":
		reason, e.hint = "the device is down", fmt.Sprintf("ip link set %s up", dev)
	case strings.Contains(reason, "Cannot allocate memory"):
		e.hint = "a smaller -buffer_size needs less of the kernel's memory"
	}
	e.msg = fmt.Sprintf("open device %q: %s", dev, reason)
	return e
}

// deviceNames lists the devices that exist, at most 32.
func deviceNames() []string {
	names := []string{anyDevice}
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		names = append(names, i.Name)
	}
	slices.Sort(names)
	if len(names) > 32 {
		names = append(names[:32], "…")
	}
	return names
}

// setFilter gives the kernel the user's filter or, where expr is empty, one that lets all pass which the default may want.
func (s *pcapSource) setFilter(expr string) error {
	if expr == "" {
		if expr = kernelFilter(s.link); expr == "" {
			return nil
		}
	}
	return s.h.SetBPFFilter(expr)
}

func (s *pcapSource) linkType() uint32 { return s.link }

// packetSockets returns the descriptors of this process's packet sockets (packet(7)).
func packetSockets() map[int]bool {
	found := make(map[int]bool)
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return found
	}
	for _, e := range dir {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain == unix.AF_PACKET {
			found[fd] = true
		}
	}
	return found
}

// watch finds the handle's socket, the one that was not there before; gopacket does not tell it. Devices are opened one
// at a time, and nothing else in the process makes packet sockets.
func (s *pcapSource) watch(before map[int]bool) {
	own := -1
	for fd := range packetSockets() {
		if !before[fd] {
			if own >= 0 {
				return
			}
			own = fd
		}
	}
	if own < 0 {
		return
	}
	fd, err := unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return
	}
	sock := os.NewFile(uintptr(fd), "packet socket")
	conn, err := sock.SyscallConn()
	if err != nil || sock.SetReadDeadline(time.Time{}) != nil {
		sock.Close()
		return
	}
	s.sock, s.conn = sock, conn
	poll := []unix.PollFd{{Events: unix.POLLIN}}
	s.ready = func(fd uintptr) bool {
		poll[0].Fd = int32(fd)
		n, err := unix.Poll(poll, 0)
		return n != 0 || err != nil
	}
}

// wait returns when the device has something to say, or after liveIdleWait: false.
func (s *pcapSource) wait() bool {
	if s.sock == nil {
		return true
	}
	if s.sock.SetReadDeadline(time.Now().Add(liveIdleWait)) != nil {
		return true
	}
	return !errors.Is(s.conn.Read(s.ready), os.ErrDeadlineExceeded)
}

func (s *pcapSource) fill(b *liveBatch) (idle bool, err error) {
	if !s.more && !s.wait() {
		return true, nil
	}
	s.more = true
	if s.pend != nil {
		b.add(s.pend, s.pendTs, s.pendWire)
		s.pend = nil
	}
	for {
		pkt, ci, err := s.h.ZeroCopyReadPacketData()
		if err != nil {
			if err == pcap.NextErrorTimeoutExpired {
				s.more = false
				return true, nil
			}
			return false, s.readError(err)
		}
		ts := ci.Timestamp.UnixNano()
		if b.spans(ts) || !b.room(len(pkt)) {
			s.pend, s.pendTs, s.pendWire = pkt, ts, ci.Length
			return false, nil
		}
		b.add(pkt, ts, ci.Length)
	}
}

// readError returns libpcap's own words where it has some.
func (s *pcapSource) readError(err error) error {
	if text := strings.TrimSpace(s.h.Error().Error()); text != "" {
		return errors.New(text)
	}
	return err
}

func (s *pcapSource) kernel() (received, dropped, ifDropped uint32, err error) {
	st, err := s.h.Stats()
	if err != nil {
		return 0, 0, 0, err
	}
	return uint32(st.PacketsReceived), uint32(st.PacketsDropped), uint32(st.PacketsIfDropped), nil
}

func (s *pcapSource) close() {
	if s.sock != nil {
		s.sock.Close()
	}
	s.h.Close()
}

// kernelFilter returns the expression that the kernel applies by default on a device of link type lt, "" for none; locate
// then decides exactly, as for a file. It lets pass: port 53; IP fragments, which have no ports; IPv6 with extension
// headers; what decode_slow.go unwraps (IP-in-IP, GRE, AH, VXLAN, Geneve, GTP-U, Teredo, MPLS, PPPoE, LLC); and all of that
// behind VLAN tags. The outermost tag is usually not in the frame that the filter sees, since the device or the network stack
// has taken it off. Tags that are there are looked behind by hand: the keyword vlan finds them in files, but in frames
// that went out with a tag in place, or came in with two, libpcap 1.10.3 made it miss the port.
func kernelFilter(lt uint32) string {
	var b strings.Builder
	switch lt {
	case linkEthernet:
		filterBehind(&b, 14, 0)
	case linkSLL, linkSLL2:
		at := 14 // of the protocol
		if lt == linkSLL2 {
			at = 0
		}
		fmt.Fprintf(&b, "link[%d:2] = 4 or ", at) // IEEE 802.3 with LLC
		for _, e := range []int{etherVLAN, etherQinQ, etherQinQ91, etherMPLS, etherMPLSmc, etherPPPoE} {
			fmt.Fprintf(&b, "link[%d:2] = %d or ", at, e)
		}
		filterIP(&b)
	case linkRaw, linkRawDLT12, linkRawDLT14, linkIPv4, linkIPv6, linkNull, linkLoop:
		filterIP(&b)
	}
	return b.String()
}

// IP protocols and UDP ports that the default filter lets pass whatever they hold.
var (
	filterProtos4   = []int{protoIPIP, protoIPv6, protoGRE, protoAH}
	filterProtos6   = []int{protoHopByHop, protoIPIP, protoIPv6, protoRouting, protoFragment, protoGRE, protoAH, protoDestOpts, protoMobility, protoHIP, protoShim6}
	filterPorts     = []int{portVXLAN, portVXLANold, portGeneve, portGTPU, portTeredo}
	filterEthertype = []int{etherMPLS, etherMPLSmc, etherPPPoE}
)

// filterIP appends the expression for IP where libpcap finds it.
func filterIP(b *strings.Builder) {
	b.WriteString("port 53 or ip[6:2] & 0x3fff != 0")
	for _, p := range filterProtos4 {
		fmt.Fprintf(b, " or ip[9] = %d", p)
	}
	for _, p := range filterProtos6 {
		fmt.Fprintf(b, " or ip6[6] = %d", p)
	}
	for _, p := range filterPorts {
		fmt.Fprintf(b, " or udp dst port %d", p)
	}
	fmt.Fprintf(b, " or udp src port %d", portTeredo)
}

// filterBehind appends the expression for Ethernet frames whose network header is at byte off, behind so many tags.
func filterBehind(b *strings.Builder, off, tags int) {
	typ := fmt.Sprintf("ether[%d:2]", off-2)
	fmt.Fprintf(b, "%s <= 1500", typ)
	for _, e := range filterEthertype {
		fmt.Fprintf(b, " or %s = %d", typ, e)
	}
	b.WriteString(" or ")
	if tags == 0 {
		filterIP(b)
	} else {
		fmt.Fprintf(b, "(%s = %d and (ether[%d:2] & 0x3fff != 0", typ, etherIPv4, off+6)
		for _, p := range filterProtos4 {
			fmt.Fprintf(b, " or ether[%d] = %d", off+9, p)
		}
		l4 := fmt.Sprintf("%d + ((ether[%d] & 15) << 2)", off, off)
		filterPortsAt(b, fmt.Sprintf("ether[%d]", off+9), fmt.Sprintf("ether[%s:2]", l4), fmt.Sprintf("ether[%s + 2:2]", l4))
		fmt.Fprintf(b, ")) or (%s = %d and (", typ, etherIPv6)
		for i, p := range filterProtos6 {
			if i > 0 {
				b.WriteString(" or ")
			}
			fmt.Fprintf(b, "ether[%d] = %d", off+6, p)
		}
		filterPortsAt(b, fmt.Sprintf("ether[%d]", off+6), fmt.Sprintf("ether[%d:2]", off+40), fmt.Sprintf("ether[%d:2]", off+42))
		b.WriteString("))")
	}
	fmt.Fprintf(b, " or ((%s = %d or %s = %d or %s = %d)", typ, etherVLAN, typ, etherQinQ, typ, etherQinQ91)
	if tags < 2 { // behind more tags everything passes
		b.WriteString(" and (")
		filterBehind(b, off+4, tags+1)
		b.WriteString(")")
	}
	b.WriteString(")")
}

// filterPortsAt appends the ports of UDP and TCP, given the places of the protocol and of the ports.
func filterPortsAt(b *strings.Builder, proto, sport, dport string) {
	fmt.Fprintf(b, " or ((%s = %d or %s = %d) and (%s = %d or %s = %d", proto, protoUDP, proto, protoTCP, sport, dnsPort, dport, dnsPort)
	for _, p := range filterPorts {
		fmt.Fprintf(b, " or %s = %d", dport, p)
	}
	fmt.Fprintf(b, " or %s = %d))", sport, portTeredo)
}
