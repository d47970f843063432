#!/usr/bin/python3
"""testssl.sh against the proxy as it is by default: no vulnerability and no weakness may be reported.

    python3 tests/testssl.py BUILD REPORT-DIRECTORY

BUILD holds the programs (build/release). The reports, text and JSON, stay in the directory.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

build, reports = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
os.environ.update(KEYLESS_BUILD=str(build), KEYLESS_SANITIZED="0")
sys.path.insert(0, str(pathlib.Path(__file__).parent / "integration"))

import harness  # noqa: E402  it reads the environment

NAME = "localhost"  # the demo's certificate; testssl.sh looks the name up

# What it reports that is not about the server's TLS, each with the reason.
ALLOWED = {
    "DNS_CAArecord": "the name has no DNS",
    "OCSP_stapling": "the certificate names no responder",
    "cert_revocation": "nor a list",
    "cert_mustStapleExtension": "nor does it demand a staple",
    "cert_chain_of_trust": "testssl.sh looks into the public stores as well",
    "cert_trust": "the same",
    "certificate_transparency": "a private CA logs nowhere",
    "cert_validityPeriod": "a test's certificate",
    "HSTS": "the backend's business",
    "security_headers": "the backend's business",
    "overall_grade": "it counts the above",
    "grade_cap_reason": "it counts the above",
}


def grave(finding):
    if finding["severity"] in ("OK", "INFO", "DEBUG", "WARN"):
        return False
    return not any(finding["id"].startswith(name) for name in ALLOWED)


def run(proxy):
    for old in reports.glob("testssl.*"):
        old.unlink()
    command = ["testssl", "--quiet", "--warnings", "off", "--color", "0", "--ip", "127.0.0.1", "--add-ca", str(harness.SITE_CA),
               "--sneaky", "--jsonfile", str(reports / "testssl.json"), "--logfile", str(reports / "testssl.log"),
               f"{NAME}:{proxy.port}"]
    print(harness.command_line(command), flush=True)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False,
                   timeout=1500)
    return json.loads((reports / "testssl.json").read_text())


def main():
    reports.mkdir(parents=True, exist_ok=True)
    subprocess.run(["sh", harness.ROOT / "certs" / "make-certs.sh", harness.CERTS], check=True)
    with tempfile.TemporaryDirectory() as directory:
        server = harness.KeyServer(directory, name="keyserver").start()
        proxy = harness.Proxy(directory, server, name="proxy", tls=None)
        proxy.config["tls"] = {}  # the default, whatever the tests' is
        try:
            findings = run(proxy.start())
            handshakes = proxy.metric("keyless_handshakes_succeeded_total")
        finally:
            proxy.stop()
            server.stop()
    tested = {finding["id"] for finding in findings}
    found = [finding for finding in findings if grave(finding)]
    for finding in found:
        print(f"{finding['severity']}: {finding['id']}: {finding['finding']}")
    print(f"{len(findings)} findings, {len(found)} of them grave; {handshakes:.0f} handshakes; reports in {reports}")
    complete = {"heartbleed", "ROBOT", "BEAST", "LUCKY13", "secure_renego", "TLS1", "TLS1_2", "TLS1_3"} <= tested
    if not complete:
        print("testssl.sh did not get through")
    return 0 if complete and not found else 1


if __name__ == "__main__":
    sys.exit(main())
