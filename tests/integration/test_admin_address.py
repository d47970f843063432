"""The proxy's admin address over reloads: it stays, it moves, it comes back."""

import os
import socket

import pytest

import clients
from harness import free_port, wait_until


def wait_generation(proxy, number):
    """The line of a reload comes before the number."""
    wait_until(lambda: proxy.metric("keyless_generation") == number, f"generation {number}")


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_it_stays(stack):
    _, proxy = stack.pair()
    for number in range(2, 5):
        proxy.reload()
        wait_generation(proxy, number)


def test_it_moves(stack):
    """While a worker of the old generation is still at work, the new address answers; the old one goes with it."""
    _, proxy = stack.pair()
    old = proxy.admin_port
    with clients.connect(proxy.port) as client:
        proxy.config["admin"] = {"listen": f"127.0.0.1:{free_port()}"}
        proxy.reload()
        wait_generation(proxy, 2)
        assert len(proxy.children("worker")) == 2
        client.sendall(b"GET / HTTP/1.1\r\nHost: p256.example\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    wait_until(lambda: refuses(old), "the old address to be given up")


def test_it_is_switched_off_and_on(stack):
    _, proxy = stack.pair()
    admin = proxy.config.pop("admin")
    proxy.reload()
    wait_until(lambda: refuses(int(admin["listen"].rpartition(":")[2])), "the address to be given up")
    wait_until(lambda: not proxy.children("helper"), "the helper to end")
    proxy.config["admin"] = admin
    proxy.reload()
    wait_generation(proxy, 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_it_comes_back_after_a_reload_that_failed(stack):
    """A reload that fails late, in a child, must not have taken the address away."""
    _, proxy = stack.pair()
    admin = proxy.config["admin"]
    proxy.config["admin"] = {"listen": f"127.0.0.1:{free_port()}"}
    proxy.config["user"] = "no-such-user"
    assert "no-such-user" in proxy.reload(expect="reload failed")["reason"]
    proxy.config["admin"] = admin
    del proxy.config["user"]
    wait_until(lambda: proxy.metric("keyless_reloads_total", outcome="failed") == 1, "the failure to be counted")
    proxy.reload()
    assert proxy.metric("keyless_reloads_total", outcome="ok") == 1
