// Package truth is what a generated capture must give: the counts that gopassivedns has to report, in its default
// layout and sections, exactly. The generator writes it beside the capture; the runner counts the records and
// compares. Counting lookups and records by the rules of the record contract stands here once: a lookup has a line
// for each RR of its answer section, or one line without.
package truth

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Counts is the truth, or what was found. Make one with New.
type Counts struct {
	// Packets, Bytes (of the frames) and Messages describe the capture; records do not show them.
	Packets  int   `json:"packets"`
	Bytes    int64 `json:"bytes"`
	Messages int   `json:"messages"`
	// Repeated counts second responses, which have no record.
	Repeated int `json:"responses_repeated"`
	Seen
}

// Seen is the part that the records show.
type Seen struct {
	// Lookups and Records count by status.
	LookupsTotal int            `json:"lookups_total"`
	Lookups      map[string]int `json:"lookups"`
	RecordsTotal int            `json:"records_total"`
	Records      map[string]int `json:"records"`
	// Types counts the records by the mnemonic of their RR's type, "" for a lookup without one.
	Types map[string]int `json:"records_by_type"`
	// Retried counts the lookups with attempts > 1, answered or not.
	Retried    int `json:"lookups_retried"`
	TCPLookups int `json:"tcp_lookups"`
	TCPRecords int `json:"tcp_records"`
	// Sums over the lookups, each lookup once: ns, and bytes of DNS messages.
	ElapsedNs     int64 `json:"elapsed_ns"`
	ResponseBytes int64 `json:"response_bytes"`
	QueryBytes    int64 `json:"query_bytes"`
}

// New returns zero counts.
func New() *Counts {
	return &Counts{Seen: Seen{Lookups: map[string]int{}, Records: map[string]int{}, Types: map[string]int{}}}
}

// Add counts one lookup with the types of its answer RRs.
func (s *Seen) Add(status string, tcp bool, answers []string) {
	lines := max(1, len(answers))
	s.LookupsTotal++
	s.Lookups[status]++
	s.RecordsTotal += lines
	s.Records[status] += lines
	if tcp {
		s.TCPLookups++
		s.TCPRecords += lines
	}
	for _, t := range answers {
		s.Types[t]++
	}
	if len(answers) == 0 {
		s.Types[""]++
	}
}

// Write stores the counts as JSON.
func (c *Counts) Write(path string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// Read loads what Write stored.
func Read(path string) (*Counts, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := New()
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return c, nil
}

// Diff describes every count in which got is not want, one a line; "" says that they are equal.
func (s *Seen) Diff(got *Seen) string {
	var b strings.Builder
	line := func(what string, got, want int64) {
		if got != want {
			fmt.Fprintf(&b, "%s: %d, want %d (%+d)\n", what, got, want, got-want)
		}
	}
	table := func(what string, got, want map[string]int) {
		keys := maps.Clone(want)
		maps.Copy(keys, got)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			line(fmt.Sprintf("%s %q", what, k), int64(got[k]), int64(want[k]))
		}
	}
	line("lookups", int64(got.LookupsTotal), int64(s.LookupsTotal))
	table("lookups with status", got.Lookups, s.Lookups)
	line("records", int64(got.RecordsTotal), int64(s.RecordsTotal))
	table("records with status", got.Records, s.Records)
	table("records with atype", got.Types, s.Types)
	line("lookups with attempts > 1", int64(got.Retried), int64(s.Retried))
	line("lookups over tcp", int64(got.TCPLookups), int64(s.TCPLookups))
	line("records over tcp", int64(got.TCPRecords), int64(s.TCPRecords))
	line("sum of elapsed", got.ElapsedNs, s.ElapsedNs)
	line("sum of bytes", got.ResponseBytes, s.ResponseBytes)
	line("sum of qbytes", got.QueryBytes, s.QueryBytes)
	return b.String()
}
