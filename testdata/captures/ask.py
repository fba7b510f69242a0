#!/usr/bin/env python3
"""Ask for an address record over UDP, and ask again from the same socket with the same ID while no answer comes.

    ask.py SERVER NAME TRIES SECONDS

dig, kdig and drill open a new socket for each try; the stub resolvers of phones, cameras and routers do not.
"""
import socket
import struct
import sys

server, name, tries, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
query = struct.pack(">HHHHHH", 0x5052, 0x0100, 1, 0, 0, 0)
for label in name.split("."):
    query += bytes([len(label)]) + label.encode()
query += struct.pack(">BHH", 0, 1, 1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(seconds)
    s.connect((server, 53))
    for _ in range(tries):
        s.send(query)
        try:
            if s.recv(4096)[:2] == query[:2]:
                sys.exit(0)
        except socket.timeout:
            pass
sys.exit("no answer")
