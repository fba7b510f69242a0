package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"gopassivedns/testdata/bench/wire"
)

func floodFile(t *testing.T, name string, n int) ([]byte, *truth) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "flood"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	want, err := generate(name, n, 100_000, 1, file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b, want
}

// TestKinds reads every flood with gopacket: as many packets as the truth says, in order of time where the kind is
// not about time, 1 % of them good, and of each good lookup exactly one query and one response.
func TestKinds(t *testing.T) {
	const n = 3000
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			file, want := floodFile(t, name, n)
			if again, _ := floodFile(t, name, n); sha256.Sum256(again) != sha256.Sum256(file) {
				t.Error("the same flags give another capture")
			}
			var r gopacket.PacketDataSource
			var err error
			if k.ng {
				r, err = pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
			} else {
				r, err = pcapgo.NewReader(bytes.NewReader(file))
			}
			if err != nil {
				t.Fatal(err)
			}
			packets, last := 0, int64(0)
			good := map[string][2]int{} // queries and responses
			for {
				b, ci, err := r.ReadPacketData()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				packets++
				if ns := ci.Timestamp.UnixNano(); k.clock == nil {
					if ns < last {
						t.Fatalf("packet %d at %d after one at %d", packets, ns, last)
					}
					last = ns
				}
				if i := bytes.Index(b, []byte("\x0b"+goodPrefix)); i > 12 {
					c := good[string(b[i+1:i+12])]
					c[b[i-12+2]>>7]++
					good[string(b[i+1:i+12])] = c
				}
			}
			if packets != want.Packets {
				t.Errorf("%d packets, want %d", packets, want.Packets)
			}
			if len(good) != want.GoodLookups || want.GoodLookups < 3 {
				t.Errorf("%d good lookups, want %d", len(good), want.GoodLookups)
			}
			for i := range want.GoodLookups {
				if got := good[fmt.Sprintf("good-%06d", i)]; got != [2]int{1, 1} {
					t.Errorf("good-%06d: %d queries and %d responses, want one of each", i, got[0], got[1])
				}
			}
			if share := float64(want.Packets-want.FloodPackets) / float64(want.Packets); share < 0.009 || share > 0.015 {
				t.Errorf("%.4f of the packets are good, want about 0.01", share)
			}
		})
	}
}

func TestMixedCounts(t *testing.T) {
	_, want := floodFile(t, "mixed-3", 1000)
	if want.Units["connections"] != 1000 || want.Units["trains"] != 1000 {
		t.Errorf("got %v, want 1000 connections and 1000 trains", want.Units)
	}
}

// TestClocks keeps a good lookup between two jumps: wherever it may lie, query and response are at most 4 ms apart.
func TestClocks(t *testing.T) {
	for name, k := range kinds {
		if k.clock == nil {
			continue
		}
		for tooth := range int64(12) {
			for _, at := range []int64{0, toothNs / 2} {
				query := startNs + tooth*toothNs + at
				apart := int64(k.clock(query+4*msNs) - k.clock(query))
				if apart > 4000 || apart < -4000 {
					t.Errorf("%s, tooth %d: response %d µs after the query", name, tooth, apart)
				}
			}
		}
	}
}

// TestFragments puts the parts of a good response together again and lets gopacket check the UDP checksum.
func TestFragments(t *testing.T) {
	for _, from := range []*wire.Host{&server4, &server6} {
		to := &wire.Host{Addr: [16]byte{10, 64, 0, 1}, V6: from.V6}
		datagram := wire.AppendUDP(nil, from, to, 53, 4000, bytes.Repeat([]byte("0123456789"), 50), true)
		var got []byte
		for lo := 0; lo < len(datagram); lo += 232 {
			hi := min(lo+232, len(datagram))
			frame := appendFragment(nil, from, to, 7, lo, hi < len(datagram), datagram[lo:hi])
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			part, more, offset := []byte(nil), false, 0
			if l, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
				part, more, offset = l.Payload, l.Flags&layers.IPv4MoreFragments != 0, int(l.FragOffset)*8
			} else if l, ok := p.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment); ok {
				part, more, offset = l.Payload, l.MoreFragments, int(l.FragmentOffset)*8
			}
			if offset != lo || more != (hi < len(datagram)) {
				t.Errorf("fragment at %d: offset %d, more %v", lo, offset, more)
			}
			got = append(got, part...)
		}
		if !bytes.Equal(got, datagram) {
			t.Errorf("put together: %d bytes, want %d", len(got), len(datagram))
		}
	}
}
