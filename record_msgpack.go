package main

// temp
type msgpackEncoder struct{ sensor, level string }

func (e *msgpackEncoder) begin(w *worker, l *lookup, m *message, tstamp, elapsed int64, bytes int, cut bool, vlan uint16, status uint8, paired bool) {
}
func (e *msgpackEncoder) rrRecord(b []byte, m *message, r *rr) []byte            { return b }
func (e *msgpackEncoder) emptyRecord(b []byte, m *message) []byte                { return b }
func (e *msgpackEncoder) lookupRecord(b []byte, s sectionSet, m *message) []byte { return b }
