package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGolden: each capture of testdata/pcap gives the records of the .jsonl beside it, those of all sections.
func TestGolden(t *testing.T) {
	var names []string
	for _, pattern := range []string{"*.pcap", "*.pcapng", "*.gz", "*.zst"} {
		found, err := filepath.Glob("testdata/pcap/" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	if len(names) == 0 {
		t.Fatal("no captures in testdata/pcap")
	}
	goldens := map[string]bool{}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			got, stderr, code := runCapture(t, nil, name, "-sections", "answer,authority,additional")
			wantCode := exitOK
			if strings.HasPrefix(filepath.Base(name), "truncated") {
				wantCode = exitFailure
			}
			if code != wantCode {
				t.Errorf("exit code %d, want %d: %s", code, wantCode, stderr)
			}
			for line := range strings.Lines(got) {
				checkRecord(t, []byte(line))
			}
			golden := strings.TrimSuffix(name, ".pcap") + ".jsonl"
			goldens[golden] = true
			want, err := os.ReadFile(golden)
			if err != nil && !(*update && errors.Is(err, fs.ErrNotExist)) {
				t.Fatal(err)
			}
			if got == string(want) && err == nil {
				return
			}
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("the records are not those of %s (go test -update rewrites it): %s", golden, firstDifference(string(want), got))
		})
	}
	all, err := filepath.Glob("testdata/pcap/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, golden := range all {
		if !goldens[golden] {
			t.Errorf("%s belongs to no capture", golden)
		}
	}
}

// goldenRecord has every field of a record with its exact type; what a record may lack is a pointer or a slice.
type goldenRecord struct {
	Tstamp    string  `json:"tstamp"`
	Sensor    string  `json:"sensor"`
	QueryID   uint16  `json:"query_id"`
	Src       string  `json:"src"`
	Sport     string  `json:"sport"`
	Dst       string  `json:"dst"`
	Dport     string  `json:"dport"`
	Protocol  string  `json:"protocol"`
	VLAN      *uint16 `json:"vlan"`
	Opcode    *string `json:"opcode"`
	Q         string  `json:"q"`
	Qtype     string  `json:"qtype"`
	Qclass    *string `json:"qclass"`
	Rcode     int     `json:"rcode"`
	Status    string  `json:"status"`
	Aname     *string `json:"aname"`
	Atype     *string `json:"atype"`
	A         *string `json:"a"`
	TTL       *uint32 `json:"ttl"`
	Section   *string `json:"section"`
	Elapsed   *int64  `json:"elapsed"`
	Attempts  *uint16 `json:"attempts"`
	Bytes     int     `json:"bytes"`
	Qbytes    *int    `json:"qbytes"`
	AA        bool    `json:"aa"`
	RD        bool    `json:"rd"`
	RA        bool    `json:"ra"`
	Truncated bool    `json:"truncated"`
	AD        bool    `json:"ad"`
	CD        bool    `json:"cd"`
	EDNSUDP   *uint16 `json:"edns_udp"`
	DO        *bool   `json:"do"`
	ECS       *string `json:"ecs"`
	EDE       []struct {
		Code uint16 `json:"code"`
		Text string `json:"text"`
	} `json:"ede"`
	Cut         bool       `json:"cut"`
	Level       *string    `json:"level"`
	Answers     []goldenRR `json:"answers"`
	Authorities []goldenRR `json:"authorities"`
	Additionals []goldenRR `json:"additionals"`
}

// goldenRR is an RR of -layout lookup.
type goldenRR struct {
	Name  string  `json:"name"`
	Type  string  `json:"type"`
	Class *string `json:"class"`
	TTL   uint32  `json:"ttl"`
	Data  string  `json:"data"`
}

// checkRecord reads a line into the exact types, which fails on a field that is not known, and returns it.
func checkRecord(t testing.TB, line []byte) goldenRecord {
	t.Helper()
	var r goldenRecord
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	if d.More() || !bytes.HasSuffix(line, []byte("}\n")) || bytes.Count(line, []byte("\n")) != 1 {
		t.Fatalf("not one line: %q", line)
	}
	// What depends on the status, as the record table says.
	response := r.Status != "unanswered"
	paired := response && r.Status != "unsolicited"
	switch {
	case (r.Rcode == -1) == response, (r.Elapsed != nil) != paired, (r.Qbytes != nil) != (r.Status != "unsolicited"), (r.Bytes == 0) == response:
		t.Fatalf("fields do not fit the status: %s", line)
	case (r.EDNSUDP == nil) != (r.DO == nil), r.Attempts != nil && *r.Attempts < 2:
		t.Fatalf("fields contradict each other: %s", line)
	}
	return r
}
