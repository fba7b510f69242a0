package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func compressGzip(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func compressZstd(t testing.TB, b []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, append([]zstd.EOption{zstd.WithEncoderConcurrency(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// compressPattern is n bytes that compress a little.
func compressPattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x>>24) & 0x0f
	}
	copy(b, "\xd4\xc3\xb2\xa1")
	return b
}

// readSniffed returns all that sniffReader gives of r and the error, if any.
func readSniffed(t testing.TB, r io.Reader) ([]byte, error) {
	t.Helper()
	plain, closer, err := sniffReader(r, make([]byte, 64))
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(plain)
	if cerr := closer(); cerr != nil {
		t.Errorf("close: %v", cerr)
	}
	return got, err
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestSniffReader(t *testing.T) {
	plain := compressPattern(300_000)
	skip := []byte("\x53\x2a\x4d\x18\x03\x00\x00\x00abc")
	gz, zs := compressGzip(t, plain), compressZstd(t, plain)
	tests := []struct {
		name string
		in   []byte
		want []byte
		err  string
	}{
		{name: "plain", in: plain, want: plain},
		{name: "empty"},
		{name: "one byte", in: []byte{0x1f}, want: []byte{0x1f}},
		{name: "three bytes of zstd's magic", in: []byte{0x28, 0xb5, 0x2f}, want: []byte{0x28, 0xb5, 0x2f}},
		{name: "nearly zstd", in: []byte{0x28, 0xb5, 0x2f, 0xfe, 1}, want: []byte{0x28, 0xb5, 0x2f, 0xfe, 1}},
		{name: "gzip", in: gz, want: plain},
		{name: "gzip of nothing", in: compressGzip(t, nil), want: nil},
		{name: "gzip members", in: join(gz, compressGzip(t, []byte("more"))), want: join(plain, []byte("more"))},
		{name: "zstd", in: zs, want: plain},
		{name: "zstd of nothing", in: compressZstd(t, nil, zstd.WithZeroFrames(true)), want: nil},
		{name: "zstd frames", in: join(skip, zs, skip, compressZstd(t, []byte("more"))), want: join(plain, []byte("more"))},

		{name: "gzip method", in: []byte{0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 0}, err: "gzip: invalid header"},
		{name: "gzip header only", in: gz[:5], err: "gzip: unexpected EOF"},
		{name: "gzip two bytes", in: gz[:2], err: "gzip: unexpected EOF"},
		{name: "gzip checksum", in: join(gz[:len(gz)-8], []byte{1, 2, 3, 4}, gz[len(gz)-4:]), want: plain, err: "gzip: invalid checksum"},
		{name: "gzip then junk", in: join(gz, []byte("junk junk junk")), want: plain, err: "gzip: invalid header"},
		{name: "zstd then junk", in: join(zs, []byte("junk junk junk")), want: plain, err: "zstd: invalid input: magic number mismatch"},
		{name: "zstd header only", in: zs[:5], err: "zstd: unexpected EOF"},
		{name: "zstd window of 256 MiB", in: []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 18 << 3, 1, 0, 0}, err: "zstd: window size exceeded"},

		{name: "gzip in zstd", in: compressZstd(t, gz), err: "zstd: what is compressed is gzip again: decompress it once first"},
		{name: "zstd in gzip", in: compressGzip(t, zs), err: "gzip: what is compressed is zstd again: decompress it once first"},
		{name: "gzip in gzip", in: compressGzip(t, gz), err: "gzip: what is compressed is gzip again: decompress it once first"},
	}
	for _, tt := range tests {
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"at once":     func(r io.Reader) io.Reader { return r },
			"one by one":  iotest.OneByteReader,
			"err at data": iotest.DataErrReader,
		} {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				got, err := readSniffed(t, wrap(bytes.NewReader(tt.in)))
				gotErr := ""
				if err != nil {
					gotErr = err.Error()
				}
				if gotErr != tt.err {
					t.Errorf("got error %q, want %q", gotErr, tt.err)
				}
				if !bytes.Equal(got, tt.want) {
					t.Errorf("got %d bytes, want %d", len(got), len(tt.want))
				}
			})
		}
	}
}

// TestSniffReaderTruncated cuts compressed streams at many lengths: what comes
// out is a prefix of the whole, as long as the format allows, and then an
// error, never a silent end.
func TestSniffReaderTruncated(t *testing.T) {
	plain := compressPattern(8_000)
	// zstd's blocks are whole or lost, so make several.
	var flushed bytes.Buffer
	w, err := zstd.NewWriter(&flushed, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for part := plain; len(part) > 0; part = part[1000:] {
		if _, err := w.Write(part[:1000]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for format, in := range map[string][]byte{"gzip": compressGzip(t, plain), "zstd": flushed.Bytes()} {
		longest := 0
		for n := sniffLen; n < len(in); n++ {
			if n > 200 && n < len(in)-50 && n%17 != 0 {
				continue // enough of the middle
			}
			got, err := readSniffed(t, bytes.NewReader(in[:n]))
			if err == nil || !strings.HasPrefix(err.Error(), format+": ") || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s cut at %d of %d: got error %v", format, n, len(in), err)
			}
			if !bytes.HasPrefix(plain, got) {
				t.Fatalf("%s cut at %d of %d: got other bytes", format, n, len(in))
			}
			if len(got) < longest {
				t.Fatalf("%s cut at %d of %d: got %d bytes, but %d of one that was cut earlier", format, n, len(in), len(got), longest)
			}
			longest = len(got)
			if least := len(plain)*n/len(in) - 1500; len(got) < least {
				t.Fatalf("%s cut at %d of %d: got %d bytes, want at least %d", format, n, len(in), len(got), least)
			}
		}
		if longest != len(plain) {
			t.Errorf("%s without its last byte: got %d bytes of %d", format, longest, len(plain))
		}
	}
}

// TestSniffReaderReadError: an error of the stream below comes after its
// bytes, whenever it strikes.
func TestSniffReaderReadError(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, in := range []string{"", "\x1f", "\xd4", "\xd4\xc3\xb2\xa1 and more"} {
		got, err := readSniffed(t, io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken)))
		if string(got) != in || err != broken {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	gz := compressGzip(t, compressPattern(5000))
	_, err := readSniffed(t, io.MultiReader(bytes.NewReader(gz[:len(gz)/2]), iotest.ErrReader(broken)))
	if want := "gzip: disk on fire"; err == nil || err.Error() != want || !errors.Is(err, broken) {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := readSniffed(t, emptyReader{}); err != io.ErrNoProgress {
		t.Errorf("got %v, want %v", err, io.ErrNoProgress)
	}
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

// scriptedReader fails the test when it's asked for more than it has.
type scriptedReader struct {
	t     *testing.T
	reads []string
}

func (r *scriptedReader) Read(p []byte) (int, error) {
	if len(r.reads) == 0 {
		r.t.Fatal("read more than was there: a live stream would hang")
	}
	n := copy(p, r.reads[0])
	r.reads = r.reads[1:]
	return n, nil
}

// TestSniffReaderDoesNotWait: what a live stream has sent is delivered without
// waiting for more.
func TestSniffReaderDoesNotWait(t *testing.T) {
	for _, first := range []string{"\xd4\xc3\xb2\xa1 header", "\x0a", "\x28\xb5\x2f\xfe"} {
		plain, _, err := sniffReader(&scriptedReader{t, []string{first, "packet"}}, make([]byte, 64))
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		for _, want := range []string{first, "packet"} {
			n, err := plain.Read(buf)
			if got := string(buf[:n]); got != want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
	}
}

// A stream can be small and ask for much: nothing is kept but the window.
func TestSniffReaderBomb(t *testing.T) {
	zeros := make([]byte, 1<<20)
	for format, bomb := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, 9) },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)) },
	} {
		var in bytes.Buffer
		w, err := bomb(&in)
		if err != nil {
			t.Fatal(err)
		}
		for range 64 {
			if _, err := w.Write(zeros); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		size := in.Len()
		plain, closer, err := sniffReader(&in, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := int64(0)
		allocated := testing.AllocsPerRun(1, func() {
			m, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, plain, make([]byte, 1<<16))
			if err != nil {
				t.Fatal(err)
			}
			n += m
		})
		if n != 64<<20 || allocated > 10_000 {
			t.Errorf("%s: %d bytes from %d, %v allocations", format, n, size, allocated)
		}
		if err := closer(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzSniffReader(f *testing.F) {
	plain := compressPattern(300)
	f.Add(plain)
	f.Add(compressGzip(f, plain))
	f.Add(compressZstd(f, plain))
	f.Fuzz(func(t *testing.T, in []byte) {
		plain, closer, err := sniffReader(bytes.NewReader(in), nil)
		format := compressFormat(in)
		if err == nil {
			var got []byte
			got, err = io.ReadAll(io.LimitReader(plain, 1<<20))
			if format == "" && !bytes.Equal(got, in) {
				t.Errorf("plain bytes changed: got %x, want %x", got, in)
			}
			if err := closer(); err != nil {
				t.Error(err)
			}
		}
		if err != nil && (format == "" || !strings.HasPrefix(err.Error(), format+": ")) {
			t.Errorf("format %q: error %q", format, err)
		}
		for _, wrap := range []struct {
			format string
			in     []byte
		}{{"gzip", compressGzip(t, in)}, {"zstd", compressZstd(t, in)}} {
			got, err := readSniffed(t, bytes.NewReader(wrap.in))
			if format != "" {
				if want := fmt.Sprintf("%s: what is compressed is %s again", wrap.format, format); err == nil || !strings.HasPrefix(err.Error(), want) {
					t.Errorf("got error %v, want %s", err, want)
				}
			} else if err != nil || !bytes.Equal(got, in) {
				t.Errorf("%s: got %x, %v, want %x", wrap.format, got, err, in)
			}
		}
	})
}

func BenchmarkSniffReader(b *testing.B) {
	plain := compressPattern(8 << 20)
	buf := make([]byte, 1<<20)
	for _, bb := range []struct {
		name string
		in   []byte
	}{{"plain", plain}, {"gzip", compressGzip(b, plain)}, {"zstd", compressZstd(b, plain)}} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				r, closer, err := sniffReader(bytes.NewReader(bb.in), make([]byte, 64))
				if err != nil {
					b.Fatal(err)
				}
				for {
					if _, err := r.Read(buf); err != nil {
						break
					}
				}
				closer()
			}
		})
	}
}
