// Compressed captures: the bytes of a capture go in, and come out as they were
// before gzip or zstd, recognised by the magic bytes and not by the name, so
// that standard input and renamed files work.
//
// Rules: a plain capture costs a copy of the few bytes that were looked at and
// nothing after that; memory is bounded whatever the stream asks for; bytes
// before the damage in a broken stream are delivered before its error; what
// was compressed twice is refused, since nobody does that but to make a small
// file expand without end.

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// sniffLen is the length of the longest magic number.
	sniffLen = 4

	// compressWindow bounds the memory of a zstd stream: 128 MiB is the
	// most that zstd itself accepts without --long=28 or more.
	compressWindow = 128 << 20

	// compressRead is how much compressed data is read at a time.
	compressRead = 128 << 10

	// sniffEmptyReads bounds the reads that return neither bytes nor error.
	sniffEmptyReads = 100
)

// sniffReader returns a reader of the plain bytes of r, which is compressed
// with gzip (RFC 1952, of several members too) or zstd (RFC 8878, of several
// frames too) or not at all, and a function that frees what the reader holds;
// it doesn't close r. buf is used to look at the beginning of r and belongs to
// the reader until its first reads have returned what was in it; one too small
// is replaced. An error of the compressed stream begins with "gzip: " or
// "zstd: ", and can come from either sniffReader or the reader.
//
// Only as many bytes are awaited as it takes to tell, so a plain stream that
// is just being written gets through at once. A compressed one gets through
// as its blocks are complete.
func sniffReader(r io.Reader, buf []byte) (io.Reader, func() error, error) {
	in, format := sniff(r, buf)
	if format == "" {
		return in, func() error { return nil }, nil
	}
	compressed := bufio.NewReaderSize(in, compressRead)
	plain := &decompressor{format: format}
	closer := func() error { return nil }
	switch format {
	case "gzip":
		z, err := gzip.NewReader(compressed)
		if err != nil {
			return nil, nil, compressError(format, err)
		}
		plain.r, closer = z, func() error { z.Close(); return nil } // its error is the last of Read's
	case "zstd":
		z, err := zstd.NewReader(compressed,
			zstd.WithDecoderConcurrency(1), // in this goroutine
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(compressWindow))
		if err != nil {
			return nil, nil, compressError(format, err)
		}
		plain.r, closer = z, func() error { z.Close(); return nil }
	}
	out, inner := sniff(plain, make([]byte, sniffLen))
	if inner != "" {
		closer()
		return nil, nil, fmt.Errorf("%s: what is compressed is %s again: decompress it once first", format, inner)
	}
	return out, closer, nil
}

// sniff reads enough of r into buf to tell its format, "gzip", "zstd" or "",
// and returns a reader of all of r.
func sniff(r io.Reader, buf []byte) (*sniffedReader, string) {
	if len(buf) < sniffLen {
		buf = make([]byte, sniffLen)
	}
	s := &sniffedReader{r: r}
	n, empty := 0, 0
	for s.err == nil && mayBeCompressed(buf[:n]) && n < sniffLen {
		var m int
		m, s.err = r.Read(buf[n:])
		n += m
		if m > 0 {
			empty = 0
		} else if empty++; empty == sniffEmptyReads && s.err == nil {
			s.err = io.ErrNoProgress
		}
	}
	s.prefix = buf[:n]
	return s, compressFormat(s.prefix)
}

// compressFormat returns the format that the beginning of a stream shows.
func compressFormat(b []byte) string {
	switch {
	case len(b) >= 2 && b[0] == 0x1f && b[1] == 0x8b: // RFC 1952 §2.3.1
		return "gzip"
	case len(b) < sniffLen:
		return ""
	case b[0] == 0x28 && b[1] == 0xb5 && b[2] == 0x2f && b[3] == 0xfd: // RFC 8878 §3.1.1
		return "zstd"
	case b[0]&0xf0 == 0x50 && b[1] == 0x2a && b[2] == 0x4d && b[3] == 0x18: // §3.1.2: skippable frame, pzstd's first
		return "zstd"
	}
	return ""
}

// mayBeCompressed reports whether more bytes could make b the beginning of a
// compressed stream.
func mayBeCompressed(b []byte) bool {
	return len(b) == 0 || bytes.IndexByte([]byte{0x1f, 0x28}, b[0]) >= 0 || b[0]&0xf0 == 0x50
}

// sniffedReader gives back what was looked at, then the rest.
type sniffedReader struct {
	prefix []byte
	err    error // met while looking
	r      io.Reader
}

func (s *sniffedReader) Read(p []byte) (int, error) {
	if len(s.prefix) > 0 {
		n := copy(p, s.prefix)
		s.prefix = s.prefix[n:]
		return n, nil
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.r.Read(p)
}

// decompressor names the format in the errors of r.
type decompressor struct {
	format string
	r      io.Reader
}

func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF {
		err = compressError(d.format, err)
	}
	return n, err
}

// compressError makes err begin with the format, once.
func compressError(format string, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if strings.HasPrefix(err.Error(), format+": ") {
		return err
	}
	return fmt.Errorf("%s: %w", format, err)
}
