"""A proxy whose key server does not know all of its chains, and lines that tell so."""

import shutil

import renewals
from harness import wait_until

WAITS = "certificate waits for its key server"
HAS = "certificate has its key server"
RENEWED = "certificate renewed"
WAITING = "keyless_certificates_waiting"


class World:
    """The key server has its own copy of the chains."""

    def __init__(self, stack, directory, mode="transcript", start=True, **changes):
        self.sites = renewals.Sites(directory)
        self.elsewhere = directory / "elsewhere"
        self.elsewhere.mkdir()
        self.known = directory / "known"
        shutil.copytree(self.sites.chains, self.known)
        self.key_server = stack.key_server(
            keys=[{"dir": str(self.sites.keys)}],
            certificates=[{"dir": str(self.known)}],
            clients=[{"match": "DNS:edge1.example", "keys": ["*"], "allow": ["tls13", "tls12", "transcript"],
                      **changes.pop("client", {})}],
        )
        self.proxy = stack.proxy(
            self.key_server,
            start=start,
            certificates=[{"dir": str(self.sites.chains)}],
            key_servers=[{"address": f"127.0.0.1:{self.key_server.port}", "server_name": "keys.example", "mode": mode}],
            tls={"default": "a.example", **changes.pop("tls", {})},
            **changes,
        )

    def shown(self, name="a.example"):
        return self.sites.shown(self.proxy.port, name)

    def replace(self, pem, name="a.example"):
        self.sites.path(name).write_bytes(pem)

    def tell_key_server(self, pem=None, key=None):
        """The chain, or a key that was elsewhere; and its reload."""
        if pem is not None:
            (self.known / f"new{len(list(self.known.iterdir()))}.pem").write_bytes(pem)
        if key is not None:
            (self.elsewhere / f"{key}.key").rename(self.sites.keys / f"{key}.key")
        self.key_server.reload()

    def wait_shown(self, pem, name="a.example", seconds=10.0):
        self.sites.wait_shown(self.proxy.port, name, pem, seconds)

    def wait_waiting(self, count=1):
        wait_until(lambda: self.proxy.metric(WAITING) == count, f"{count} waiting chains")
