#!/usr/bin/env python3
"""Write a classic pcap again in a form that Linux tools do not make here.

    rewrite.py MODE IN OUT

IN is a little-endian classic pcap in µs of Ethernet frames (IPv4 or IPv6), captured from real servers. OUT has the
same packets with the same times; only what MODE names is different. A frame that the mode can't carry is an error.
"""
import struct
import sys

NULL, ETHERNET, PPP, RAW_BSD, IEEE802_11, LOOP, RADIOTAP = 0, 1, 9, 12, 105, 108, 127
RAW, IPV4, IPV6 = 101, 228, 229


def read(path):
    """Return (link type, [(seconds, microseconds, original length, bytes)]) of a classic pcap."""
    data = open(path, "rb").read()
    magic, _, _, _, _, _, link = struct.unpack_from("<IHHiIII", data)
    if magic != 0xA1B2C3D4:
        sys.exit(f"{path}: not a little-endian pcap in microseconds")
    packets, off = [], 24
    while off < len(data):
        sec, usec, caplen, length = struct.unpack_from("<IIII", data, off)
        packets.append((sec, usec, length, data[off + 16 : off + 16 + caplen]))
        off += 16 + caplen
    return link, packets


def write(path, link, packets, order="<", magic=0xA1B2C3D4):
    with open(path, "wb") as f:
        f.write(struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link))
        for sec, usec, length, frame in packets:
            f.write(struct.pack(order + "IIII", sec, usec, len(frame), length) + frame)


def ip(frame):
    """Return (EtherType, IP packet) of an untagged Ethernet frame that holds IPv4 or IPv6."""
    ethertype = struct.unpack_from(">H", frame, 12)[0]
    if ethertype not in (0x0800, 0x86DD):
        sys.exit(f"EtherType {ethertype:#06x} is not IP")
    return ethertype, frame[14:]


def null(frame):  # host byte order, here little-endian; AF_INET6 of FreeBSD
    ethertype, packet = ip(frame)
    return struct.pack("<I", 2 if ethertype == 0x0800 else 28) + packet


def loop(frame):  # network byte order; AF_INET6 of OpenBSD
    ethertype, packet = ip(frame)
    return struct.pack(">I", 2 if ethertype == 0x0800 else 24) + packet


def ppp(frame):  # HDLC-like framing of RFC 1662
    ethertype, packet = ip(frame)
    return b"\xff\x03" + struct.pack(">H", 0x0021 if ethertype == 0x0800 else 0x0057) + packet


def raw(frame):
    return ip(frame)[1]


def wifi(frame):
    """An 802.11 data frame from the station to the distribution system, with LLC and SNAP."""
    ethertype, packet = ip(frame)
    bssid = bytes.fromhex("02000000000a")
    header = struct.pack("<HH", 0x0108, 0) + bssid + frame[6:12] + frame[0:6] + struct.pack("<H", 0)
    return header + bytes.fromhex("aaaa03000000") + struct.pack(">H", ethertype) + packet


def radiotap(frame):
    """The smallest radiotap header (version 0, length 8, no field) before the 802.11 frame; no FCS."""
    return struct.pack("<BBHI", 0, 0, 8, 0) + wifi(frame)


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def teredo(frame):
    """IPv6 in UDP port 3544 in IPv4 (RFC 4380 §5): what a Teredo client sends to its relay, and back."""
    ethertype, packet = ip(frame)
    if ethertype != 0x86DD:
        sys.exit("Teredo carries IPv6 only")
    outward = packet[8:24] < packet[24:40]  # the client's address is the lower one
    a, b = bytes([192, 0, 2, 10]), bytes([203, 0, 113, 44])
    src, dst = (a, b) if outward else (b, a)
    sport, dport = (51413, 3544) if outward else (3544, 51413)
    udp = struct.pack(">HHHH", sport, dport, 8 + len(packet), 0) + packet
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0x4000, 64, 17, 0) + src + dst
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return frame[:12] + b"\x08\x00" + head + udp


def tag9100(frame):
    """Turn the outer 802.1ad tag of a double-tagged frame into the older TPID 0x9100."""
    if frame[12:14] != b"\x88\xa8":
        sys.exit("the frame has no 802.1ad tag")
    return frame[:12] + b"\x91\x00" + frame[14:]


def ng(order, packets, link):
    """A pcapng with one interface whose times are milliseconds, a custom block and a block of an unknown type."""
    def block(kind, body):
        body += b"\0" * (-len(body) % 4)
        return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))

    out = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    tsresol = struct.pack(order + "HHBxxxHH", 9, 1, 3, 0, 0)
    out += block(1, struct.pack(order + "HHI", link, 0, 0) + tsresol)
    out += block(0x0BAD, struct.pack(order + "I", 32473) + b"skip me!")
    out += block(0x7ABCDEF0, b"a block of a type that nobody knows")
    for sec, usec, length, frame in packets:
        t = sec * 1000 + usec // 1000
        out += block(6, struct.pack(order + "IIIII", 0, t >> 32, t & 0xFFFFFFFF, len(frame), length) + frame)
    return out


FRAMES = {
    "null": (NULL, null),
    "loop": (LOOP, loop),
    "ppp": (PPP, ppp),
    "raw-bsd": (RAW_BSD, raw),
    "raw-ipv4": (IPV4, raw),
    "raw-ipv6": (IPV6, raw),
    "ieee80211": (IEEE802_11, wifi),
    "radiotap": (RADIOTAP, radiotap),
    "teredo": (ETHERNET, teredo),
    "9100": (ETHERNET, tag9100),
}


def main():
    mode, source, target = sys.argv[1:]
    link, packets = read(source)
    if mode == "big-endian":
        write(target, link, packets, ">")
    elif mode == "pcapng-big-endian":
        open(target, "wb").write(ng(">", packets, link))
    elif link != ETHERNET:
        sys.exit(f"{source}: link type {link} is not Ethernet")
    else:
        newlink, change = FRAMES[mode]
        changed = []
        for sec, usec, length, frame in packets:
            new = change(frame)
            changed.append((sec, usec, length + len(new) - len(frame), new))
        write(target, newlink, changed)


if __name__ == "__main__":
    main()
