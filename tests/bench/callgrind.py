"""The work of callgrind.sh: a key server, a proxy under callgrind and a backend; once with few handshakes, once with more. The
difference is what a handshake costs, without start and end. (callgrind_control cannot reach a worker that has dropped its
privileges.)"""

import collections
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

import harness

SHOWN = int(os.environ.get("SHOWN", "40"))  # functions in each list
WARM_UP = 300  # the first 256 signatures are all verified


def backend():
    """Accepts, and closes when the other side does: no more than a connection needs."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)

    def serve(client):
        with client:
            while client.recv(4096):
                pass

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def handshakes(proxy, site, count):
    options = ["--tls", os.environ.get("TLS", "1.3"), "--groups", "X25519"]
    if options[1] == "1.3":
        options += ["--ciphersuites", "TLS_AES_128_GCM_SHA256"]
    if os.environ.get("RESUMED"):
        options.append("--resumed")
    subprocess.run([harness.BUILD / "tests/bench/keyless-bench", "handshake", "--quiet", "--count", str(count), "--warm-up", "0",
                    "--parallel", "4", "--timeout", "60000", "--sni", f"{site}.example", *options, f"127.0.0.1:{proxy.port}"],
                   check=True, stdout=subprocess.DEVNULL)
    harness.wait_until(lambda: proxy.metric("keyless_connections_open") == 0, "all connections to end")


def record(directory, site, count):
    """The file in which callgrind left what a worker did that served so many handshakes."""
    directory.mkdir()
    server = harness.KeyServer(directory, log={"level": "info"})
    # No sandbox: valgrind makes executable memory, and opens its file at the end.
    valgrind = ["valgrind", "--quiet", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={directory}/out.%p"]
    proxy = harness.Proxy(directory, server, wrapper=valgrind, log={"level": "info"}, sandbox=False,
                          backends={"web": {"servers": [f"127.0.0.1:{backend()}"]}})
    proxy.config["key_servers"][0]["mode"] = os.environ.get("MODE", "transcript")
    proxy.master = lambda: harness.Process(proxy.popen.pid)  # valgrind becomes the program
    try:
        server.start()
        proxy.start()
        worker = proxy.wait_for("child started", child="worker/0")["child_pid"]
        proxy.wait_for("key server connected")
        handshakes(proxy, site, count)
        proxy.stop()
    finally:
        proxy.kill_all()
        server.kill_all()
    return directory / f"out.{worker}"


def short(name):
    """Without the source file, the directory and what callgrind adds to the name of a recursive function."""
    match = re.match(r"(?:[^ ]*/)?([^/: ]*):([^ ]+?)(?:'\d+)? ?(?:\[.*?([^/]*)\])?$", name)
    if not match:
        return name
    source, function, library = match.groups()
    return f"{function} [{library if library and '.so' in library else source}]"


def annotate(dump, inclusive):
    """Instructions by function; "PROGRAM TOTALS" among them."""
    done = subprocess.run(["callgrind_annotate", "--auto=no", "--threshold=100", f"--inclusive={'yes' if inclusive else 'no'}", dump],
                          check=True, capture_output=True, text=True)
    found = collections.Counter()
    for line in done.stdout.splitlines():
        match = re.match(r"\s*([\d,]+) (?:\([ \d.]+%\))?\s+(.*)", line)
        if match:
            name = short(match.group(2).strip())
            if name.startswith(("=>", "events annotated")):
                continue
            number = int(match.group(1).replace(",", ""))
            found[name] = max(found[name], number) if inclusive else found[name] + number
    return found


def difference(few, many, count, inclusive):
    counts = annotate(many, inclusive)
    counts.subtract(annotate(few, inclusive))
    return [(number / count, name) for name, number in counts.most_common()]


def show(title, rows, total, shown=SHOWN):
    print(f"\n{title}")
    for number, name in rows[:shown]:
        print(f"{number:12,.0f} {100 * number / total:5.1f} %  {name}")


def by_library(rows):
    found = collections.Counter()
    for number, name in rows:
        library = name.rpartition("[")[2].rstrip("]")
        found[library if ".so" in library else "keyless-proxy"] += number
    return [(number, name) for name, number in found.most_common()]


def main(site, count, out):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="callgrind-"))
    os.chmod(directory, 0o777)  # workers write their counts after they have dropped their privileges
    old = os.umask(0)
    subprocess.run(["sh", harness.ROOT / "certs" / "make-certs.sh", harness.CERTS], check=True, stdout=subprocess.DEVNULL)
    try:
        few = record(directory / "few", site, WARM_UP)
        many = record(directory / "many", site, WARM_UP + count)
        own = difference(few, many, count, False)
        inclusive = difference(few, many, count, True)
        if out:
            shutil.copy(many, out)
    finally:
        os.umask(old)
        shutil.rmtree(directory, ignore_errors=True)
    total = next(number for number, name in own if name.startswith("PROGRAM TOTALS"))
    own = [(number, name) for number, name in own if not name.startswith("PROGRAM TOTALS")]
    inclusive = [(number, name) for number, name in inclusive if not name.startswith("PROGRAM TOTALS")]
    print(f"{site}: {total:,.0f} instructions per handshake")
    show("by library", by_library(own), total)
    show("by function, its own", own, total)
    show("by function, with what it calls", inclusive, total, 2 * SHOWN)


main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
