package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func openFileSink(t *testing.T, opt fileOptions) *fileSink {
	t.Helper()
	if opt.log == nil {
		opt.log = &sinkLog{}
	}
	s, err := newFileSink(opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// backups returns the backups of dns.log in dir, oldest first.
func backups(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "dns-*.log*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// readLog returns all that dns.log and its backups hold, in order, and checks that every
// file holds whole lines.
func readLog(t *testing.T, dir string) []byte {
	t.Helper()
	var all []byte
	for _, name := range append(backups(t, dir), filepath.Join(dir, "dns.log")) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if data, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if len(data) > 0 && data[len(data)-1] != '\n' {
			t.Errorf("%s ends in a torn line", name)
		}
		all = append(all, data...)
	}
	return all
}

// Far more than one rotation in a millisecond's time must neither lose nor tear a line.
func TestFileManyRotations(t *testing.T) {
	defer noLeaks(t)()
	dir := t.TempDir()
	s := openFileSink(t, fileOptions{path: filepath.Join(dir, "dns.log")})
	s.maxBytes = 3000
	q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, block: true, log: &sinkLog{}})
	bs, want := testBatches(0, 10000, 100)
	start := time.Now()
	for _, b := range bs {
		q.submit(b)
	}
	if err := q.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	names := backups(t, dir)
	t.Logf("%d rotations in %v", len(names), time.Since(start))
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Size() > 3000 || info.Size() < 2400 {
			t.Fatalf("%s: %v, %v", name, info, err)
		}
	}
	if !bytes.Equal(readLog(t, dir), want) {
		t.Error("lines differ")
	}
	if st := balanced(t, q); st.written != 10000 || len(names) < 1500 {
		t.Errorf("got %+v, %d backups", st, len(names))
	}
}

// lumberjack's retention and compression must find the backups.
func TestFileRetention(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "dns.log")
	old := filepath.Join(dir, "dns-2001-01-01T00-00-00.000.log")
	if err := os.WriteFile(old, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openFileSink(t, fileOptions{path: path, maxAge: 1, maxBackups: 3, compress: true})
	s.maxBytes = 3000
	bs, want := testBatches(0, 100, 100)
	if err := s.write(bs[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The mill works in the background and tells nobody when it is done.
	var names []string
	for range 1000 {
		if names = backups(t, dir); len(names) == 3 && !slices.ContainsFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".log.gz") }) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(names) != 3 {
		t.Fatalf("got %q", names)
	}
	if got := readLog(t, dir); !bytes.HasSuffix(want, got) || len(got) < 3*2400 {
		t.Errorf("%d bytes kept are not the newest lines", len(got))
	}
}

func TestFileLongLines(t *testing.T) {
	dir := t.TempDir()
	s := openFileSink(t, fileOptions{path: filepath.Join(dir, "dns.log")})
	s.maxBytes = 1 << 20
	long := func(n int) string { return `{"q":"` + strings.Repeat("x", n) + "\"}\n" }
	b := testBatch(testLine(1), long(300<<10), testLine(2), long(3<<20), long(3<<20), testLine(3), long(800<<10), testLine(4))
	if err := s.write(b); err != nil {
		t.Fatal(err)
	}
	if err := s.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readLog(t, dir), b.json) {
		t.Error("lines differ")
	}
	if got := len(backups(t, dir)); got != 3 || s.tally().delivered != 8 {
		t.Errorf("%d backups, %d lines", got, s.tally().delivered)
	}
}

func TestFileAppends(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "dns.log")
	if err := os.WriteFile(path, []byte("{\"torn\":\"by a cra"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := openFileSink(t, fileOptions{path: path, mode: 0o600})
	b := testBatch(testLine(1))
	if err := s.write(b); err != nil {
		t.Fatal(err)
	}
	if err := s.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := string(readLog(t, dir)), "{\"torn\":\"by a cra\n"+testLine(1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
}

func TestFileMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, c := range []struct{ mode, want fs.FileMode }{{0, 0o640}, {0o664, 0o664}, {0o600, 0o600}} {
		dir := t.TempDir()
		s := openFileSink(t, fileOptions{path: filepath.Join(dir, "new", "dns.log"), mode: c.mode})
		s.maxBytes = 3000
		bs, _ := testBatches(0, 20, 20)
		if err := s.write(bs[0]); err != nil {
			t.Fatal(err)
		}
		if err := s.close(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, name := range append(backups(t, filepath.Join(dir, "new")), filepath.Join(dir, "new", "dns.log")) {
			if info, err := os.Stat(name); err != nil || info.Mode() != c.want {
				t.Errorf("mode %o: %s has %v", c.mode, name, info.Mode())
			}
		}
	}
}

func TestFileCannotOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	pipe := filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		opt  fileOptions
		want string
	}{
		{fileOptions{}, "log file: no path"},
		{fileOptions{path: file, maxSize: -1}, "log file: size of -1 MB is negative"},
		{fileOptions{path: file, maxAge: -1}, "log file: age of -1 days is negative"},
		{fileOptions{path: file, maxBackups: -1}, "log file: -1 backups is negative"},
		{fileOptions{path: file, mode: fs.ModeSetuid | 0o644}, "log file: mode 40000644 has more than permission bits"},
		{fileOptions{path: dir}, fmt.Sprintf("open log file %q: is a directory", dir)},
		{fileOptions{path: pipe}, fmt.Sprintf("open log file %q: neither a file nor a character device", pipe)},
		{fileOptions{path: file + "/dns.log"}, fmt.Sprintf("open log file %q: not a directory", file+"/dns.log")},
		{fileOptions{path: "/proc/none/dns.log"}, `make the directory of log file "/proc/none/dns.log": no such file or directory`},
	} {
		_, err := newFileSink(c.opt)
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

// A device is written to, and never renamed, whatever the limit.
func TestFileDevice(t *testing.T) {
	dir := t.TempDir()
	s := openFileSink(t, fileOptions{path: "/dev/null"})
	s.maxBytes = 1000
	bs, _ := testBatches(0, 100, 100)
	if err := errors.Join(s.write(bs[0]), s.reopen(), s.write(bs[0]), s.close(t.Context())); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat("/dev/null"); err != nil || info.Mode()&fs.ModeCharDevice == 0 || len(backups(t, dir)) != 0 {
		t.Fatalf("got %v, %v", info, err)
	}
}

// logrotate's two ways, and our own rotation, each followed by SIGHUP's reopen.
func TestFileReopen(t *testing.T) {
	defer noLeaks(t)()
	for _, how := range []string{"moved", "moved and made", "removed", "left", "left empty", "copied and truncated"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			path, aside := filepath.Join(dir, "dns.log"), filepath.Join(dir, "dns.log.1")
			s := openFileSink(t, fileOptions{path: path})
			q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, block: true, log: &sinkLog{}})
			bs, _ := testBatches(0, 30, 10)
			one, two, three := string(bs[0].json), string(bs[1].json), string(bs[2].json)
			if how == "left empty" {
				one, two = "", ""
			} else {
				q.submit(bs[0])
				waitSettled(t, q)
			}
			var err error
			switch how {
			case "moved":
				err = os.Rename(path, aside)
			case "moved and made":
				err = errors.Join(os.Rename(path, aside), os.WriteFile(path, nil, 0o600))
			case "removed":
				err = os.Remove(path)
			case "copied and truncated":
				err = errors.Join(os.WriteFile(aside, []byte(one), 0o600), os.Truncate(path, 0))
			}
			if err != nil {
				t.Fatal(err)
			}
			if two != "" {
				q.submit(bs[1]) // after the move, before the signal: belongs to the old file
				waitSettled(t, q)
			}
			if how != "copied and truncated" {
				q.reopen()
			}
			q.submit(bs[2])
			if err := q.drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantAside, wantLog, wantBackups := one+two, three, ""
			switch how {
			case "removed":
				wantAside = ""
			case "left", "left empty":
				wantAside, wantBackups = "", one+two
			case "copied and truncated":
				wantAside, wantLog = one, two+three
			}
			gotAside, _ := os.ReadFile(aside)
			gotLog, _ := os.ReadFile(path)
			var gotBackups []byte
			for _, name := range backups(t, dir) {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				gotBackups = append(gotBackups, data...)
			}
			if string(gotAside) != wantAside || string(gotLog) != wantLog || string(gotBackups) != wantBackups {
				t.Errorf("moved file %d bytes of %d, log %d of %d, backups %d of %d",
					len(gotAside), len(wantAside), len(gotLog), len(wantLog), len(gotBackups), len(wantBackups))
			}
		})
	}
}

// waitSettled waits until the queue is empty.
func waitSettled(t *testing.T, q *sinkQueue) {
	t.Helper()
	waitFor(t, "empty queue", func() bool { return balanced(t, q).queuedRecords == 0 })
}

// waitFor waits until cond holds, for at most a minute.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// A directory that may not be written: nothing can be renamed, so the file grows on and
// nothing is lost. The mount is read-only but for the file, since root may write anywhere.
func TestFileCannotRotate(t *testing.T) {
	dir := mountTmpfs(t, "1M")
	path := filepath.Join(dir, "dns.log")
	log := &sinkLog{}
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	// A file that is a mount point cannot be renamed.
	if err := syscall.Mount(path, path, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(path, syscall.MNT_DETACH) })
	s := openFileSink(t, fileOptions{path: path, log: log})
	s.maxBytes = 3000
	bs, want := testBatches(0, 100, 50)
	for _, b := range bs {
		if err := s.write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readLog(t, dir), want) {
		t.Error("lines differ")
	}
	if said := log.said(); len(said) != 1 || !strings.Contains(said[0], "cannot rotate, the file grows on") {
		t.Errorf("said %q", said)
	}
}

// mountTmpfs mounts a tmpfs of the given size for the test.
func mountTmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// Disk full while a file is read: said once, resumed when there is room, complete, and at no
// time a torn line.
func TestFileDiskFull(t *testing.T) {
	defer noLeaks(t)()
	dir := mountTmpfs(t, "1M")
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 900<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &sinkLog{}
	s := openFileSink(t, fileOptions{path: filepath.Join(dir, "dns.log"), log: log})
	q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, block: true, log: log})
	bs, want := testBatches(0, 1000, 100) // about 400 KB into 100 KB
	for _, b := range bs {
		q.submit(b)
	}
	waitFor(t, "disk full", func() bool { return balanced(t, q).errors >= 3 })
	full := readLog(t, dir)
	if !bytes.HasPrefix(want, full) || len(full) < 80<<10 {
		t.Errorf("%d bytes while the disk is full are not the first lines", len(full))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitSettled(t, q)
	if err := q.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := readLog(t, dir); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
	said := log.said()
	if len(said) != 2 || !strings.Contains(said[0], "no space left on device; trying again until it works") || !strings.Contains(said[1], "works again after") {
		t.Errorf("said %q", said)
	}
	if st := balanced(t, q); st.written != 1000 || st.failed != 0 {
		t.Errorf("got %+v", st)
	}
}

// The disk stays full to the end: what the file holds is what was counted as written.
func TestFileDiskFullToTheEnd(t *testing.T) {
	defer noLeaks(t)()
	dir := mountTmpfs(t, "128k")
	log := &sinkLog{}
	s := openFileSink(t, fileOptions{path: filepath.Join(dir, "dns.log"), log: log})
	q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, log: log})
	bs, want := testBatches(0, 1000, 100)
	for _, b := range bs {
		q.submit(b)
	}
	waitFor(t, "disk full", func() bool { return balanced(t, q).errors >= 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := q.drain(ctx); err == nil {
		t.Error("no error")
	}
	got := readLog(t, dir)
	st := balanced(t, q)
	if lines := uint64(bytes.Count(got, []byte("\n"))); !bytes.HasPrefix(want, got) || st.written != lines || st.failed != 1000-lines || lines < 100 {
		t.Errorf("%d lines in the file, counted %+v", lines, st)
	}
}

func BenchmarkFileSink(b *testing.B) {
	s, err := newFileSink(fileOptions{path: filepath.Join(b.TempDir(), "dns.log"), maxBackups: 1, log: &sinkLog{}})
	if err != nil {
		b.Fatal(err)
	}
	bs, _ := testBatches(0, 700, 700)
	b.ReportAllocs()
	b.SetBytes(int64(len(bs[0].json)))
	for b.Loop() {
		if err := s.write(bs[0]); err != nil {
			b.Fatal(err)
		}
	}
	s.close(b.Context())
}
