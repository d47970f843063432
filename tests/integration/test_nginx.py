"""HTTP/1.1 and HTTP/2 through the proxy to a real nginx, over TCP and a Unix socket."""

import os
import subprocess

import pytest

from harness import PATIENCE, curl, free_port, open_to_all, wait_until

CONFIG = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{http1};
        listen unix:{directory}/nginx.sock;
        location / {{ return 200 "$server_protocol $request_uri\\n"; }}
        location /files/ {{ alias {directory}/files/; }}
    }}
    server {{
        listen 127.0.0.1:{http2} http2;
        location / {{ return 200 "$server_protocol $request_uri\\n"; }}
        location /files/ {{ alias {directory}/files/; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    directory = tmp_path_factory.mktemp("nginx")
    directory.chmod(0o755)
    (directory / "files").mkdir()
    (directory / "files" / "random").write_bytes(os.urandom(3_000_000))
    ports = {"http1": free_port(), "http2": free_port()}
    (directory / "nginx.conf").write_text(CONFIG.format(directory=directory, **ports))
    server = subprocess.Popen(["/usr/sbin/nginx", "-p", directory, "-c", directory / "nginx.conf", "-g", "user root;"],
                              stderr=subprocess.DEVNULL)
    socket_path = directory / "nginx.sock"
    wait_until(lambda: socket_path.exists() and (directory / "nginx.pid").exists(), "nginx to start")
    socket_path.chmod(0o666)
    open_to_all(directory)
    yield {"directory": directory, **ports}
    server.terminate()
    server.wait(PATIENCE)


@pytest.fixture(scope="module")
def proxy(module_stack, nginx):
    ports = {name: free_port() for name in ("http1", "http2", "unix")}
    server = module_stack.key_server()
    program = module_stack.proxy(
        server,
        tls={"alpn": ["h2", "http/1.1"]},
        listen=[{"address": f"127.0.0.1:{port}", "backend": name} for name, port in ports.items()],
        backends={
            "http1": {"servers": [f"127.0.0.1:{nginx['http1']}"]},
            "http2": {"servers": [f"127.0.0.1:{nginx['http2']}"]},
            "unix": {"servers": [f"unix:{nginx['directory']}/nginx.sock"]},
        },
    )
    program.ports = ports
    return program


@pytest.mark.parametrize("backend, option, protocol", [
    ("http1", "--http1.1", b"HTTP/1.1"),
    ("unix", "--http1.1", b"HTTP/1.1"),
    ("http2", "--http2", b"HTTP/2.0"),
])
@pytest.mark.parametrize("site", ["p256.example", "rsa2048.example"])
def test_protocols(proxy, nginx, backend, option, protocol, site):
    port = proxy.ports[backend]
    answer = curl(site, port, option, path="/some/path?q=1")
    assert answer.status == 0, answer.error
    assert answer.body == protocol + b" /some/path?q=1\n"
    file = curl(site, port, option, path="/files/random")
    assert file.status == 0, file.error
    assert file.body == (nginx["directory"] / "files" / "random").read_bytes()


def test_many_requests_on_one_connection(proxy):
    """HTTP/2 streams and HTTP/1.1 keep-alive: fifty requests, one handshake."""
    for backend, option in (("http1", "--http1.1"), ("http2", "--http2")):
        before = proxy.metric("keyless_handshakes_total", outcome="ok")
        answer = curl("p256.example", proxy.ports[backend], option, path="/[1-50]")
        assert answer.status == 0, answer.error
        assert len(answer.body.splitlines()) == 50
        wait_until(lambda: proxy.metric("keyless_handshakes_total", outcome="ok") == before + 1, "one handshake")


def test_backend_that_is_away(stack):
    _, proxy = stack.pair(backends={"web": {"servers": [f"127.0.0.1:{free_port()}"]}})
    answer = curl("p256.example", proxy.port)
    assert answer.status in (35, 52, 56), answer.error
    proxy.wait_for("backend connect failed", backend="web", reason="refused")
    assert proxy.metric("keyless_backend_connects_total", outcome="failed") == 1
    wait_until(lambda: proxy.metric("keyless_connections_closed_total", reason="no_backend") == 1, "the end to be counted")
