# SPDX-License-Identifier: GPL-2.0-or-later
"""Tell how each TCP stream from a host begins, until stdin ends.

This file needs nothing but Python, and is sent to a host of the lab::

    python3 sniffing.py eth1 10.9.0.1

It prints a line when it listens, and then the first bytes of each stream.
"""

from __future__ import annotations

import select
import socket
import sys

# <linux/if_ether.h>, <linux/in.h>
ETH_P_ALL = 3
ETH_HEADER = 14
ETH_P_IP = b"\x08\x00"
IPPROTO_TCP = 6
SHOWN = 4


def payload(frame: bytes, sender: bytes) -> tuple[bytes, bytes]:
    """Return the ports of a TCP segment of a sender, and what it carries."""
    packet = frame[ETH_HEADER:]
    if frame[ETH_HEADER - 2 : ETH_HEADER] != ETH_P_IP:
        return b"", b""
    if packet[9] != IPPROTO_TCP or packet[12:16] != sender:
        return b"", b""
    length = int.from_bytes(packet[2:4], "big")
    segment = packet[(packet[0] & 15) * 4 : length]
    return segment[:4], segment[(segment[12] >> 4) * 4 :]


def main() -> None:
    """Listen."""
    interface, address = sys.argv[1:]
    sender = socket.inet_aton(address)
    # 'sudo' is not needed: the caller is root.
    listener = socket.socket(
        socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)
    )
    listener.bind((interface, 0))
    print("listens", flush=True)
    seen = set()
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        ports, data = payload(listener.recv(1 << 16), sender)
        if data and ports not in seen:
            seen.add(ports)
            print(data[:SHOWN].hex(), flush=True)


if __name__ == "__main__":
    main()
