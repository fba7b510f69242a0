// This file: the names that are looked up, with their popularity. About 200,000 host names lie in 40,000 zones; some
// zones hold hundreds, most hold a few. A name is kept in wire format in one slab.
package main

import (
	"math"
	"math/rand/v2"
	"strings"

	"gopassivedns/testdata/bench/wire"
)

const (
	nameCount = 200_000
	zoneCount = 40_000
)

// host is a name in the slab. zone is the offset of its registered domain within the name.
type host struct {
	at   uint32
	size uint8
	zone uint8
}

// names is built once and then only read.
type names struct {
	slab  []byte
	hosts []host
	// Walker's alias table: a draw of constant cost from Zipf's law with an exponent below 1, which rand.Zipf
	// does not offer and resolvers' traffic has.
	keep  []float64
	alias []uint32
}

// wire returns the name in wire format; it belongs to n.
func (n *names) wire(i int) []byte {
	h := n.hosts[i]
	return n.slab[h.at : h.at+uint32(h.size)]
}

// draw picks a name by its popularity; the lower its number, the more popular.
func (n *names) draw(r *rand.Rand) int {
	i := r.IntN(len(n.keep))
	if r.Float64() < n.keep[i] {
		return i
	}
	return int(n.alias[i])
}

var (
	tlds     = []string{"com", "com", "com", "com", "com", "net", "net", "org", "io", "de", "co.uk", "fr", "nl", "com.br", "cn", "ru", "co.jp", "info", "app", "edu"}
	services = []string{"www", "www", "www", "api", "cdn", "mail", "static", "img", "assets", "login", "push", "tracking", "gateway", "metrics", "update", "telemetry", "edge", "config", "events", "download"}
	regions  = []string{"eu-west-1", "us-east-1", "prod", "dc2", "fra", "ams3", "global", "v2", "client", "internal"}
	heads    = []string{"b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "br", "pl"}
	vowels   = []string{"a", "e", "i", "o", "u", "ai", "ee", "ou"}
	tails    = []string{"", "", "", "n", "r", "l", "m", "nd", "rt"}
)

const hexDigits = "0123456789abcdef"

// word returns a pronounceable label of n syllables.
func word(r *rand.Rand, n int) string {
	var b strings.Builder
	for range n {
		b.WriteString(heads[r.IntN(len(heads))])
		b.WriteString(vowels[r.IntN(len(vowels))])
		b.WriteString(tails[r.IntN(len(tails))])
	}
	return b.String()
}

// hexWord returns n hexadecimal digits.
func hexWord(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = hexDigits[r.IntN(16)]
	}
	return string(b)
}

// label returns what stands in front of a zone: "" for the zone's own name.
func label(r *rand.Rand) string {
	s := services[r.IntN(len(services))]
	switch k := r.IntN(100); {
	case k < 10:
		return ""
	case k < 35:
		return s
	case k < 55:
		return s + string(hexDigits[r.IntN(10)])
	case k < 72:
		return s + "." + regions[r.IntN(len(regions))]
	case k < 84:
		return word(r, 2) + "-" + s
	case k < 92:
		return s + "." + word(r, 2) + "." + regions[r.IntN(len(regions))]
	case k < 97:
		return hexWord(r, 8+r.IntN(9)) + "." + s
	default:
		return hexWord(r, 32) + "." + s + "." + regions[r.IntN(len(regions))]
	}
}

func buildNames(r *rand.Rand) *names {
	zones := make([]string, zoneCount)
	for i := range zones {
		zones[i] = word(r, 2+r.IntN(3)) + "." + tlds[r.IntN(len(tlds))]
	}
	n := &names{slab: make([]byte, 0, nameCount*32)}
	seen := make(map[string]bool, nameCount)
	for len(n.hosts) < nameCount {
		u := r.Float64()
		zone := zones[int(zoneCount*u*u)]
		name := zone
		if l := label(r); l != "" {
			name = l + "." + zone
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		at := len(n.slab)
		n.slab = wire.AppendName(n.slab, name)
		n.hosts = append(n.hosts, host{uint32(at), uint8(len(n.slab) - at), uint8(len(name) - len(zone))})
	}
	n.buildAlias()
	return n
}

// buildAlias prepares draw for weights 1/(i+1)^0.95 (Vose's construction).
func (n *names) buildAlias() {
	n.keep = make([]float64, nameCount)
	n.alias = make([]uint32, nameCount)
	total := 0.0
	for i := range n.keep {
		n.keep[i] = math.Pow(float64(i+1), -0.95)
		total += n.keep[i]
	}
	var small, large []uint32
	for i := range n.keep {
		n.keep[i] *= nameCount / total
		if n.keep[i] < 1 {
			small = append(small, uint32(i))
		} else {
			large = append(large, uint32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		n.alias[s] = l
		n.keep[l] -= 1 - n.keep[s]
		if n.keep[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) {
		n.keep[i] = 1
	}
}
