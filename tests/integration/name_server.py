"""A name server for the tests: A records over UDP, on port 53 of a loopback address of its own."""

import os
import socket
import struct
import threading

A, AAAA, NXDOMAIN, REFUSED = 1, 28, 3, 5


class NameServer:
    """zone: {name: [IPv4 addresses]}, or how it does not answer: "refused", "garbage", "silent", "late" (after 4 s)."""

    def __init__(self, zone):
        self.zone = zone
        self.socket, self.address = self._bind()
        self._end = threading.Event()
        self._timers = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @staticmethod
    def _bind():
        for number in range(254):
            address = f"127.53.{os.getpid() % 254 + 1}.{number + 1}"
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                made.bind((address, 53))
            except OSError:
                made.close()
                continue
            return made, address
        raise AssertionError("no address for a name server")

    def stop(self):
        self._end.set()
        for timer in self._timers:
            timer.cancel()
        self.socket.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()
        return 0

    def _serve(self):
        while not self._end.is_set():
            query, peer = self.socket.recvfrom(4096)
            if len(query) < 12 or self.zone == "silent":
                continue
            if self.zone == "late":
                answer = self._answer(query, {"r.test": ["127.0.0.1"]})
                self._timers.append(threading.Timer(4, self.socket.sendto, (answer, peer)))
                self._timers[-1].start()
                continue
            self.socket.sendto(self._answer(query, self.zone), peer)

    @staticmethod
    def _answer(query, zone):
        if zone == "garbage":
            return query[:2] + b"\xff" * 40
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        question, kind = query[12 : at + 5], struct.unpack("!H", query[at + 1 : at + 3])[0]
        name = ".".join(labels)
        code = REFUSED if zone == "refused" else 0 if name in zone else NXDOMAIN
        found = zone[name] if code == 0 and kind == A else []
        head = query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(found), 0, 0)
        records = b"".join(struct.pack("!HHHLH", 0xC00C, A, 1, 60, 4) + socket.inet_aton(one) for one in found)
        return head + question + records
