package main

// Lines to a file through lumberjack: it writes, compresses and removes old backups. When to
// rotate is decided here, for four reasons: lumberjack names backups by the millisecond and
// overwrites an older one of the same name; it refuses a write larger than its limit; it opens
// a rotated file without O_APPEND; and it gives every new file mode 0600. So lumberjack's own
// limit is set out of reach, and rotation here closes it, renames the file to a backup name in
// lumberjack's form that is not taken, makes the new file and lets lumberjack open that.
//
// Rules: one write holds whole lines and never passes the size limit, so no line is torn by a
// rotation; a line longer than the limit has a file of its own. What a failed write (disk
// full) left of a line is cut off again before anything else is written. No fsync.
//
// lumberjack starts one goroutine with its first write and never ends it (it has no way
// to); the sink keeps one lumberjack.Logger for life, so it is one for each process.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

const (
	filePiece      = 256 << 10 // most bytes given to one write, unless a single line is longer
	fileBackupForm = "2006-01-02T15-04-05.000"
	fileDefaultMB  = 100
)

// fileOptions are the settings of the file sink.
type fileOptions struct {
	path       string
	maxSize    int         // MB (2^20 bytes) at which the file is rotated; 0: 100
	maxAge     int         // days that backups are kept; 0: for ever
	maxBackups int         // backups kept; 0: all
	compress   bool        // gzip backups
	mode       fs.FileMode // of files that the sink makes, whatever the umask; 0: 0640
	log        logger
}

// validate returns an error that names what cannot be.
func (o *fileOptions) validate() error {
	switch {
	case o.path == "":
		return errors.New("log file: no path")
	case o.maxSize < 0:
		return fmt.Errorf("log file: size of %d MB is negative", o.maxSize)
	case o.maxSize > 1<<30:
		return fmt.Errorf("log file: size of %d MB is too large", o.maxSize)
	case o.maxAge < 0:
		return fmt.Errorf("log file: age of %d days is negative", o.maxAge)
	case o.maxAge > 100_000: // lumberjack computes in nanoseconds: more than 106,751 days wrap
		return fmt.Errorf("log file: age of %d days is too large", o.maxAge)
	case o.maxBackups < 0:
		return fmt.Errorf("log file: %d backups is negative", o.maxBackups)
	case o.mode&^fs.ModePerm != 0:
		return fmt.Errorf("log file: mode %o has more than permission bits", uint32(o.mode))
	}
	return nil
}

// fileSink is a sink on a rotated file. Only the queue's goroutine uses it.
type fileSink struct {
	opt      fileOptions
	maxBytes int64
	out      *lumberjack.Logger // nil file inside while own is nil
	own      *os.File           // the same file, to stat and truncate it; nil: open before writing
	regular  bool               // false: a device such as /dev/null, never rotated or cut
	size     int64              // bytes of whole lines in the file
	torn     bool               // behind size there may be part of a line
	lastMs   int64              // the millisecond in the newest backup's name
	holdOff  int64              // size below which a failed rotation is not tried again

	cur   *batch // the batch of an unfinished write
	next  int    // first record of cur that is not in the file
	lines uint64 // lines written
}

// newFileSink opens the file, making it and its directory where missing, so that what is
// wrong with it is known at start. The error names the file.
func newFileSink(opt fileOptions) (*fileSink, error) {
	if err := opt.validate(); err != nil {
		return nil, err
	}
	if opt.maxSize == 0 {
		opt.maxSize = fileDefaultMB
	}
	if opt.mode == 0 {
		opt.mode = 0o640
	}
	s := &fileSink{
		opt:      opt,
		maxBytes: int64(opt.maxSize) << 20,
		out: &lumberjack.Logger{
			Filename: opt.path, MaxSize: 1 << 40, MaxAge: opt.maxAge, MaxBackups: opt.maxBackups, Compress: opt.compress,
		},
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *fileSink) name() string { return "file" }

// open opens the file for appending. A line without its end, left by a crash, is closed by
// a newline when the first line is written, so that the next record starts a line of its own.
func (s *fileSink) open() error {
	info, err := os.Stat(s.opt.path)
	made := errors.Is(err, fs.ErrNotExist)
	switch {
	case made:
		if err := os.MkdirAll(filepath.Dir(s.opt.path), 0o755); err != nil {
			return fileError("make the directory of", s.opt.path, err)
		}
	case err != nil:
		return fileError("open", s.opt.path, err)
	case info.Mode().IsRegular() || info.Mode()&fs.ModeCharDevice != 0:
	case info.IsDir():
		return fmt.Errorf("open log file %q: is a directory", s.opt.path)
	default: // opening a pipe would wait for its reader
		return fmt.Errorf("open log file %q: neither a file nor a character device", s.opt.path)
	}
	own, err := os.OpenFile(s.opt.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, s.opt.mode)
	if errors.Is(err, fs.ErrPermission) && !made { // write-only for us: enough, but for the look at the last byte
		own, err = os.OpenFile(s.opt.path, os.O_WRONLY|os.O_APPEND, s.opt.mode)
	}
	if err != nil {
		return fileError("open", s.opt.path, err)
	}
	if made {
		err = own.Chmod(s.opt.mode)
	}
	if err == nil {
		info, err = own.Stat()
	}
	if err == nil {
		_, err = s.out.Write(nil) // opens it
	}
	if err != nil {
		own.Close()
		s.out.Close()
		return fileError("open", s.opt.path, err)
	}
	s.own, s.regular, s.size, s.torn, s.holdOff = own, info.Mode().IsRegular(), info.Size(), false, 0
	if s.regular && s.size > 0 {
		var last [1]byte
		if n, _ := own.ReadAt(last[:], s.size-1); n == 1 && last[0] != '\n' {
			if err := s.put([]byte{'\n'}); err != nil {
				s.shut()
				return err
			}
		}
	}
	return nil
}

// fileError names the log file once, whatever the error names.
func fileError(what, path string, err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return fmt.Errorf("%s log file %q: %w", what, path, err)
}

// shut closes the file; the next write opens it again.
func (s *fileSink) shut() error {
	if s.own == nil {
		return nil
	}
	err := s.out.Close()
	if err2 := s.own.Close(); err == nil {
		err = err2
	}
	s.own = nil
	return err
}

func (s *fileSink) write(b *batch) error {
	if s.cur != b {
		s.cur, s.next = b, 0
	}
	for s.next < b.records() {
		if s.own == nil {
			if err := s.open(); err != nil {
				return err
			}
		}
		if s.torn {
			if err := s.mend(); err != nil {
				return err
			}
		}
		start := 0
		if s.next > 0 {
			start = int(b.ends[s.next-1])
		}
		room := max(s.maxBytes-s.size, 0)
		if !s.regular || s.size < s.holdOff {
			room = filePiece
		}
		end := b.lineAt(start + int(min(room, filePiece))) // behind the records that end within the room
		if end == s.next {
			if s.regular && s.size > 0 && s.size >= s.holdOff && int64(len(b.line(s.next))) > room {
				if err := s.rotate(); err != nil {
					return err
				}
				continue
			}
			end++ // one line longer than a piece or than a whole file
		}
		if err := s.put(b.json[start:b.ends[end-1]]); err != nil {
			return err
		}
		s.lines += uint64(end - s.next)
		s.next = end
	}
	s.cur = nil
	return nil
}

// put appends whole lines. After an error the lines that did go in whole are accounted as
// written, and the rest of the last one is due to be cut off.
func (s *fileSink) put(p []byte) error {
	n, err := s.out.Write(p)
	if err == nil {
		s.size += int64(n)
		return nil
	}
	if s.cur != nil && n > 0 {
		start := 0
		if s.next > 0 {
			start = int(s.cur.ends[s.next-1])
		}
		whole := s.cur.lineAt(start + n)
		s.lines += uint64(whole - s.next)
		if whole > s.next {
			s.size += int64(int(s.cur.ends[whole-1]) - start)
		}
		s.next = whole
	}
	if s.regular && n > 0 {
		s.torn = true
		if mendErr := s.mend(); mendErr != nil {
			return errors.Join(err, mendErr)
		}
	}
	return fileError("write", s.opt.path, err)
}

// mend cuts off what lies behind the last whole line.
func (s *fileSink) mend() error {
	if err := s.own.Truncate(s.size); err != nil {
		return fileError("cut off the torn line of", s.opt.path, err)
	}
	s.torn = false
	return nil
}

// rotate makes the file a backup and starts a new one. When it cannot be renamed (no right
// to write the directory) the file is kept, grows, and the next try is 1 MB later.
func (s *fileSink) rotate() error {
	if s.moved() {
		if err := s.shut(); err != nil {
			s.opt.log.errorf("sink file: close: %v", err)
		}
		return s.open()
	}
	backup, err := s.backupName()
	if err == nil {
		err = os.Rename(s.opt.path, backup)
	}
	if err != nil {
		if s.holdOff == 0 {
			s.opt.log.errorf("sink file: cannot rotate, the file grows on: %v", err)
		}
		s.holdOff = s.size + 1<<20
		return nil
	}
	old, statErr := s.own.Stat()
	if err := s.shut(); err != nil {
		s.opt.log.errorf("sink file: close %q: %v", backup, err)
	}
	if err := s.open(); err != nil {
		return err
	}
	if stat, ok := sysStat(old, statErr); ok && (int(stat.Uid) != os.Geteuid() || int(stat.Gid) != os.Getegid()) {
		// As lumberjack does: the new file belongs to whom the old one belonged, if we may.
		if err := s.own.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
			s.opt.log.debugf("sink file: %v", err)
		}
	}
	return nil
}

// sysStat returns the owner of a file.
func sysStat(info fs.FileInfo, err error) (*syscall.Stat_t, bool) {
	if err != nil {
		return nil, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return stat, ok
}

// backupName returns a name in lumberjack's form (so that its retention finds it) that no
// backup has, compressed or not, and that sorts behind those made before.
func (s *fileSink) backupName() (string, error) {
	ext := filepath.Ext(s.opt.path)
	prefix := strings.TrimSuffix(s.opt.path, ext) + "-"
	ms := max(time.Now().UnixMilli(), s.lastMs+1)
	for range 100_000 {
		name := prefix + time.UnixMilli(ms).UTC().Format(fileBackupForm) + ext
		_, err := os.Lstat(name)
		_, errGz := os.Lstat(name + ".gz")
		if errors.Is(err, fs.ErrNotExist) && errors.Is(errGz, fs.ErrNotExist) {
			s.lastMs = ms
			return name, nil
		}
		for _, err := range []error{err, errGz} {
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
		}
		ms++
	}
	return "", fmt.Errorf("no free backup name for %q", s.opt.path)
}

// moved reports whether the path is no longer that of the open file.
func (s *fileSink) moved() bool {
	at, err := os.Stat(s.opt.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	have, err := s.own.Stat()
	return err == nil && !os.SameFile(at, have)
}

// reopen is for SIGHUP. A file that was moved or removed from its path (logrotate) is left
// and a new one begun; one that is still there is rotated.
func (s *fileSink) reopen() error {
	if s.own == nil {
		return s.open()
	}
	if s.torn {
		if err := s.mend(); err != nil {
			return err
		}
	}
	if s.regular && s.size > 0 || s.moved() {
		return s.rotate()
	}
	return nil
}

func (s *fileSink) tally() sinkTally { return sinkTally{delivered: s.lines} }

// close closes the file. A torn line is cut off first.
func (s *fileSink) close(context.Context) error {
	var err error
	if s.own != nil && s.torn {
		err = s.mend()
	}
	return errors.Join(err, s.shut())
}
