package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestExpandCaptureList(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{
		"a.pcap", "b.pcap", "c.pcapng", "x,y.pcap", "[ab].pcap", "q?.pcap", ".hidden.pcap",
		"day/2.pcap", "day/1.pcap.gz", "day/.tmp", "day/sub/3.pcap", "d*/4.pcap",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"empty", "only/dirs"} {
		if err := os.MkdirAll(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"day/link": "../a.pcap", "day/dangling": "nowhere", "day/subdir": "sub", "null": os.DevNull} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		arg  string
		want []string
		err  string
	}{
		{arg: "-", want: []string{"-"}},
		{arg: "a.pcap", want: []string{"a.pcap"}},
		{arg: "b.pcap,a.pcap", want: []string{"b.pcap", "a.pcap"}},
		{arg: "x,y.pcap", want: []string{"x,y.pcap"}},
		{arg: "[ab].pcap", want: []string{"[ab].pcap"}},
		{arg: "[a-b].pcap", want: []string{"a.pcap", "b.pcap"}},
		{arg: "q?.pcap", want: []string{"q?.pcap"}},
		{arg: "*.pcap", want: []string{"[ab].pcap", "a.pcap", "b.pcap", "q?.pcap", "x,y.pcap"}},
		{arg: ".h*", want: []string{".hidden.pcap"}},
		{arg: "day", want: []string{"day/1.pcap.gz", "day/2.pcap", "day/link"}},
		{arg: "day/", want: []string{"day/1.pcap.gz", "day/2.pcap", "day/link"}},
		{arg: "d*", want: []string{"d*/4.pcap"}},
		{arg: "day/*", want: []string{"day/1.pcap.gz", "day/2.pcap", "day/link"}},
		{arg: "da?/2*,*.pcapng,day,a.pcap", want: []string{"day/2.pcap", "c.pcapng", "day/1.pcap.gz", "day/link", "a.pcap"}},
		{arg: "a.pcap,./a.pcap,day/../a.pcap," + dir + "/a.pcap,b.pcap", want: []string{"a.pcap", "b.pcap"}},
		{arg: dir + "/a.pcap,a.pcap", want: []string{dir + "/a.pcap"}},
		{arg: "null", want: []string{"null"}},

		{arg: "", err: `empty name in the list of captures ""`},
		{arg: "a.pcap,", err: `empty name in the list of captures "a.pcap,"`},
		{arg: "a.pcap,,b.pcap", err: `empty name in the list of captures "a.pcap,,b.pcap"`},
		{arg: "a.pcap,-", err: `standard input ("-") and other captures in "a.pcap,-": it can only be read alone`},
		{arg: "-,-", err: `standard input ("-") and other captures in "-,-": it can only be read alone`},
		{arg: "a.pcap,missing.pcap", err: `open capture "missing.pcap": no such file or directory`},
		{arg: "a.pcap/b", err: `open capture "a.pcap/b": not a directory`},
		{arg: "a.pcap,z*", err: `capture pattern "z*" matches nothing`},
		{arg: "a.pcap/*", err: `capture pattern "a.pcap/*" matches nothing`},
		{arg: "onl[xy]", err: `capture pattern "onl[xy]" matches no regular file`},
		{arg: "nul[l]", err: `capture pattern "nul[l]" matches no regular file`},
		{arg: "a[", err: `capture pattern "a[": syntax error in pattern`},
		{arg: "empty", err: `capture directory "empty" holds no regular file`},
		{arg: "only", err: `capture directory "only" holds no regular file`},
	}
	for _, tt := range tests {
		t.Run(tt.arg, func(t *testing.T) {
			got, err := expandCaptureList(tt.arg)
			gotErr := ""
			if err != nil {
				gotErr = err.Error()
			}
			if gotErr != tt.err || !slices.Equal(got, tt.want) {
				t.Errorf("got  %q, error %q\nwant %q, error %q", got, gotErr, tt.want, tt.err)
			}
		})
	}
	if _, err := expandCaptureList("missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want it to be os.ErrNotExist", err)
	}
}

func TestOrderByFirstPacket(t *testing.T) {
	times := map[string]int64{"a": 5, "b": math.MaxInt64, "c": -1, "d": 5, "e": math.MinInt64}
	damaged := errors.New(`capture "bad": not a capture`)
	first := func(name string) (int64, bool, error) {
		if name == "bad" {
			return 0, false, damaged
		}
		ts, ok := times[name]
		return ts, ok, nil
	}
	tests := []struct {
		names, want []string
		err         error
	}{
		{names: nil, want: nil},
		{names: []string{"bad"}, want: []string{"bad"}}, // not looked into
		{names: []string{"none2", "d", "b", "none1", "a", "c", "e"}, want: []string{"e", "c", "d", "a", "b", "none2", "none1"}},
		{names: []string{"a", "bad"}, err: damaged},
	}
	for _, tt := range tests {
		given := slices.Clone(tt.names)
		got, err := orderByFirstPacket(tt.names, first)
		if !slices.Equal(got, tt.want) || err != tt.err {
			t.Errorf("%q: got %q, %v, want %q, %v", tt.names, got, err, tt.want, tt.err)
		}
		if !slices.Equal(tt.names, given) {
			t.Errorf("names were changed to %q", tt.names)
		}
	}
}
