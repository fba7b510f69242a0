#!/usr/bin/env python3
"""Ask over UDP, and ask again from the same socket with the same ID while no answer comes.

    ask.py SERVER NAME TYPE-NUMBER TRIES SECONDS [OPTION-LENGTH]

dig, kdig and drill open a new socket for each try; the stub resolvers of phones, cameras and routers do not. With
OPTION-LENGTH the query has an EDNS option (65001) of so many bytes, which dig would send over TCP.
"""
import socket
import struct
import sys

server, name = sys.argv[1], sys.argv[2]
qtype, tries, seconds = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
option = int(sys.argv[6]) if len(sys.argv) > 6 else 0
query = struct.pack(">HHHHHH", 0x5052, 0x0100, 1, 0, 0, 1 if option else 0)
for label in name.split("."):
    query += bytes([len(label)]) + label.encode()
query += struct.pack(">BHH", 0, qtype, 1)
if option:
    query += struct.pack(">BHHIHHH", 0, 41, 4096, 0, option + 4, 65001, option) + bytes(option)
with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(seconds)
    s.connect((server, 53))
    for _ in range(tries):
        s.send(query)
        try:
            if s.recv(65535)[:2] == query[:2]:
                sys.exit(0)
        except socket.timeout:
            pass
sys.exit("no answer")
