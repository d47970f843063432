"""A name server for the tests, on port 53 of a loopback address of its own: A, AAAA and SRV records over UDP and TCP, which may
change while it runs; and a machine's settings that name it, in the place of the real ones for one program."""

import collections
import os
import socket
import struct
import subprocess
import threading

import pytest

A, AAAA, SRV, NXDOMAIN, REFUSED = 1, 28, 33, 3, 5
TRUNCATED = 0x0200

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0,
    reason="needs root that may mount",
)


class Names:
    """Files in the place of /etc/hosts and /etc/resolv.conf for one program."""

    def __init__(self, directory, hosts="", server="127.0.0.1"):
        (directory / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        (directory / "resolv.conf").write_text(f"nameserver {server}\n")
        script = f"mount --bind {directory}/hosts /etc/hosts; mount --bind {directory}/resolv.conf /etc/resolv.conf"
        self.wrapper = ["unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh"]


class NameServer:
    """zone: {name: [addresses, or (priority, weight, port, host) of SRV records]}, or how it does not answer: "refused",
    "garbage", "silent", "late" (after 4 s). Over UDP with truncates there is nothing in its answers but that there is more.
    ttls: of names that have another one."""

    def __init__(self, zone, ttl=60, truncates=False, ttls=None):
        self.zone, self.ttl, self.truncates, self.ttls = zone, ttl, truncates, ttls or {}
        self.asked, self.asked_tcp = 0, 0
        self.asked_for = collections.Counter()  # addresses of names, IPv4
        self.socket, self.listener, self.address = self._bind()
        self._end = threading.Event()
        self._timers = []
        self.threads = [threading.Thread(target=one, daemon=True) for one in (self._serve, self._serve_tcp)]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def _bind():
        for number in range(254):
            address = f"127.53.{os.getpid() % 254 + 1}.{number + 1}"
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                made.bind((address, 53))
                listener.bind((address, 53))
                listener.listen()
            except OSError:
                made.close()
                listener.close()
                continue
            return made, listener, address
        raise AssertionError("no address for a name server")

    def stop(self):
        self._end.set()
        for timer in self._timers:
            timer.cancel()
        self.socket.sendto(b"", self.socket.getsockname())
        socket.create_connection(self.listener.getsockname()).close()
        for thread in self.threads:
            thread.join()
        self.socket.close()
        self.listener.close()
        return 0

    def _serve(self):
        while not self._end.is_set():
            query, peer = self.socket.recvfrom(4096)
            if len(query) < 12 or self.zone == "silent":
                continue
            self.asked += 1
            if self.zone == "late":
                answer = self._answer(query, {"r.test": ["127.0.0.1"]})
                self._timers.append(threading.Timer(4, self.socket.sendto, (answer, peer)))
                self._timers[-1].start()
                continue
            self.socket.sendto(self._answer(query, self.zone, self.truncates), peer)

    def _serve_tcp(self):
        """One query a connection; without patience for a client that has none."""
        while not self._end.is_set():
            client, _ = self.listener.accept()
            with client:
                client.settimeout(2)
                try:
                    query = client.recv(4096)[2:]
                    if len(query) < 12 or self.zone == "silent":
                        continue
                    self.asked_tcp += 1
                    answer = self._answer(query, self.zone)
                    client.sendall(struct.pack("!H", len(answer)) + answer)
                    client.recv(1)
                except OSError:
                    continue

    def _answer(self, query, zone, truncates=False):
        if zone == "garbage":
            return query[:2] + b"\xff" * 40
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        question, kind = query[12 : at + 5], struct.unpack("!H", query[at + 1 : at + 3])[0]
        name = ".".join(labels)
        self.asked_for[name] += kind == A
        code = REFUSED if zone == "refused" else 0 if name in zone else NXDOMAIN
        found = [one for one in map(_data, zone[name] if code == 0 else []) if one[0] == kind and not truncates]
        flags = 0x8580 | code | (TRUNCATED if truncates else 0)
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
        return head + question + b"".join(
            struct.pack("!HHHLH", 0xC00C, kind, 1, self.ttls.get(name, self.ttl), len(data)) + data for _, data in found
        )


def _data(record):
    """A record's type and data."""
    if isinstance(record, tuple):
        *numbers, host = record
        labels = b"".join(bytes([len(label)]) + label.encode() for label in host.split("."))
        return SRV, struct.pack("!HHH", *numbers) + labels + b"\0"
    if ":" in record:
        return AAAA, socket.inet_pton(socket.AF_INET6, record)
    return A, socket.inet_aton(record)
