"""Listening sockets that come from a service manager: used in place of binding, kept over reloads, and open for those
who connect while nobody runs."""

import concurrent.futures
import contextlib
import os
import shutil
import socket
import stat
import struct
import subprocess

import pytest

import harness
from harness import curl, free_port, wait_until
from kssl_codec import Op
from kssl_peer import Closed, Peer

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")


def tcp_socket(address, family=socket.AF_INET, share=False):
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(share))
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(address)
    made.listen(64)
    return made


def unix_socket(path, mode=0o666):
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    os.chmod(path, mode)
    made.listen(64)
    return made


def passes(program, *sockets, name="test.socket"):
    """The program will have them. A clash with one that it binds itself would end it: no SO_REUSEPORT here."""
    program.inherits = [(one, name) for one in sockets]


def listening(program, address):
    """The line that tells of the address."""
    return program.wait_for("listening", address=address)


def has(process, inode):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for number in os.listdir(f"/proc/{process.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{process.pid}/fd/{number}") == f"socket:[{inode}]":
                    return True
    return False


def inode_of(one):
    return os.fstat(one.fileno()).st_ino


def queued(one):
    """Connections that wait to be accepted: tcp_info.tcpi_unacked."""
    return struct.unpack_from("=I", one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]


def asked(port):
    with Peer(port) as peer:
        return peer.ping().opcode == Op.PONG


def test_proxy_and_its_admin_address(stack):
    """Both addresses come from outside, and stay over a reload; each process has those of its kind only."""
    server = stack.key_server()
    proxy = stack.proxy(server, start=False, workers=2)
    with tcp_socket(("127.0.0.1", proxy.port)) as clients_here, tcp_socket(("127.0.0.1", proxy.admin_port)) as admin:
        passes(proxy, clients_here, admin)
        proxy.start()
        for port in (proxy.port, proxy.admin_port):
            line = listening(proxy, f"127.0.0.1:{port}")
            assert (line["sockets"], line["opened_by"]) == ("1", "the service manager")
        for _ in range(2):
            assert curl("p256.example", proxy.port).status == 0
            assert proxy.readiness()[0] == 200
            assert all(has(worker, inode_of(clients_here)) for worker in proxy.children("worker"))
            assert not any(has(worker, inode_of(admin)) for worker in proxy.children("worker"))
            assert [has(helper, inode_of(admin)) for helper in proxy.children("helper")] == [True]
            proxy.reload()
            wait_until(lambda: len(proxy.children("worker")) == 2, "the old workers to end")
        assert len(proxy.find("listening")) == 2
        assert not proxy.find("inherited socket closed")


def test_all_workers_share_one_socket(stack):
    server = stack.key_server(start=False, workers=2)
    with tcp_socket(("127.0.0.1", server.port)) as here, contextlib.ExitStack() as opened:
        passes(server, here)
        server.start()

        def both_serve():
            for _ in range(8):
                assert opened.enter_context(Peer(server.port)).ping().opcode == Op.PONG
            return len({line["process"] for line in server.find("connection opened")}) == 2

        wait_until(both_serve, "both front ends to accept")


def test_several_sockets_of_one_address(stack):
    """As many as there are, each one's queue is served, whoever has it."""
    server = stack.key_server(start=False, workers=2)
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(tcp_socket(("127.0.0.1", server.port), share=True)) for _ in range(3)]
        passes(server, *sockets)
        server.start()
        assert listening(server, f"127.0.0.1:{server.port}")["sockets"] == "3"
        peers = [opened.enter_context(Peer(server.port)) for _ in range(24)]
        assert all(peer.ping().opcode == Op.PONG for peer in peers)


def test_restart_refuses_nobody(stack):
    """Who connects while the program is away waits, and is served by the next one."""
    server = stack.key_server(start=False)
    with tcp_socket(("127.0.0.1", server.port)) as here:
        passes(server, here)
        server.start()
        assert asked(server.port)
        assert server.stop() == 0
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            waiting = [threads.submit(asked, server.port) for _ in range(8)]
            wait_until(lambda: queued(here) == len(waiting), "the clients to wait in the socket's queue")
            mark = server.mark()
            server.launch()
            server.wait_ready(after=mark)
            assert all(one.result(harness.PATIENCE) for one in waiting)


def test_unix_socket_keeps_its_file(stack, tmp_path):
    """Nor are its permissions ours to change."""
    path = tmp_path / "keys.sock"
    server = stack.key_server(start=False, listen=[f"unix:{path}"])
    with unix_socket(path, 0o600) as here:
        passes(server, here)
        server.start()
        assert asked(path)
        server.reload()
        assert asked(path)
        assert server.stop() == 0
        assert path.is_socket() and stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(path))


@pytest.mark.skipif(len(harness.LOOPBACKS) < 2, reason="this machine has no IPv6")
def test_ipv6(stack):
    server = stack.key_server(start=False)
    server.config["listen"] = [f"127.0.0.1:{server.port}", f"[::1]:{server.port}"]
    with tcp_socket(("::1", server.port), socket.AF_INET6) as here:
        passes(server, here)
        server.start()
        assert listening(server, f"[::1]:{server.port}")["opened_by"] == "the service manager"
        assert "opened_by" not in listening(server, f"127.0.0.1:{server.port}")
        assert asked(server.port)
        with socket.create_connection(("::1", server.port)) as client:
            client.sendall(b"no TLS at all")
            assert client.recv(64) == b""
            name = client.getsockname()
        server.wait_for("handshake failed", peer=f"[::1]:{name[1]}")


def test_what_no_address_wants_is_closed(stack):
    server = stack.key_server(start=False)
    other = free_port()
    with tcp_socket(("127.0.0.1", other)) as stranger, tcp_socket(("127.0.0.1", server.port)) as here:
        server.inherits = [(stranger, "other.socket"), (here, "keys.socket")]
        server.start()
        (line,) = server.find("inherited socket closed")
        assert (line["level"], line["address"], line["name"]) == ("warn", f"127.0.0.1:{other}", "other.socket")
        assert not any(has(process, inode_of(stranger)) for process in server.processes())
        assert asked(server.port)


def datagram(port):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", port))
    return made


def not_listening(port):
    made = socket.socket()
    made.bind(("127.0.0.1", port))
    return made


def no_socket(port):
    del port
    return open(os.devnull, "rb")


@pytest.mark.parametrize("make", [datagram, not_listening, no_socket])
def test_what_is_no_listening_stream_socket(stack, make):
    server = stack.key_server(start=False)
    with make(server.port) as wrong:
        server.inherits = [(wrong, "keys.socket")]
        server.launch()
        assert server.wait_exit() == 2
    (line,) = server.find("start failed")
    assert "descriptor 3 (keys.socket)" in line["reason"] and "not a listening stream socket" in line["reason"]
    server.popen = None


def test_meant_for_another_process(stack):
    """What the environment says is for the process that it names."""
    server = stack.key_server(start=False)
    with tcp_socket(("127.0.0.1", free_port())) as stranger:
        passes(server, stranger)
        server.environment["KEYLESS_LISTEN_PID"] = "1"
        server.start()
    assert not server.find("inherited socket closed")
    assert "opened_by" not in listening(server, f"127.0.0.1:{server.port}")
    assert asked(server.port)


@ROOT
def test_port_that_needs_a_privilege(stack):
    """Without the right to bind it, the program has it from somebody who may."""
    port = next(number for number in range(700, 1024) if not refuses_to_bind(number))
    without = ["setpriv", "--bounding-set", "-net_bind_service"]
    server = stack.key_server(start=False, wrapper=without, listen=[f"127.0.0.1:{port}"])
    server.launch()
    wait_until(lambda: server.find("ready") or server.find("start failed"), "the start to go well or to fail")
    if server.find("ready"):
        pytest.skip("here such ports need no privilege")
    assert "Permission denied" in server.find("start failed")[0]["reason"]
    assert server.wait_exit() == 1
    mark = server.mark()
    with tcp_socket(("127.0.0.1", port)) as here:
        passes(server, here)
        server.launch()
        server.wait_ready(after=mark)
        assert asked(port)


def refuses_to_bind(port):
    try:
        tcp_socket(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd is not installed")
def test_systemd_itself(stack):
    """Its own tool passes the socket on, and starts the program for the first who connects."""
    server = stack.key_server(start=False, admin=None)
    command = ["systemd-socket-activate", f"--listen=127.0.0.1:{server.port}", "--fdname=keys", server.path(), "-c",
               server.config_path]
    server.write_config()
    with open(server.log_path, "ab") as log:
        server.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                        start_new_session=True)

    def answers():
        with contextlib.suppress(ConnectionRefusedError, Closed):
            return asked(server.port)

    wait_until(answers, "the program to be started and to answer")
    assert listening(server, f"127.0.0.1:{server.port}")["opened_by"] == "the service manager"
