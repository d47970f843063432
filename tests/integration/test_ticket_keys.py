"""Ticket keys (0x66): what each entry gets, that key servers of one secret agree, over rotations and restarts; that who
leaves a group takes nothing along; what the secret's file holds, and what is wrong with one."""

import collections
import hashlib
import hmac
import os
import struct
import time

import pytest

from counters import Gains
from harness import wait_until
from kssl_codec import Error, Op, parse_hello
from kssl_peer import Closed, Peer

MAGIC = b"keyless tickets\0"
RECORD = 512

Key = collections.namedtuple("Key", "name not_before not_after aes_key hmac_key")


# ---- The derivation, once more.


def expand(key, info, size):
    """HKDF-Expand with SHA-256 (RFC 5869 section 2.3)."""
    blocks, block = b"", b""
    for number in range(1, size // 32 + 2):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        blocks += block
    return blocks[:size]


def walk(value, steps):
    for _ in range(steps):
        value = expand(value, b"keyless ticket chain", 32)
    return value


def derive(value, group, generation, rotate, epoch, lifetime):
    info = b"keyless ticket key" + bytes([len(group)]) + group + struct.pack(">IIQ", generation, rotate, epoch)
    key = expand(value, info, 80)
    return Key(key[:16], epoch * rotate, (epoch + 1) * rotate + lifetime, key[16:48], key[48:])


def own_group(match):
    """Of an entry that names none."""
    return b"\0" + hashlib.sha256(match.encode()).digest()


def parse(payload):
    count, keys = payload[0], payload[1:]
    assert len(keys) == 96 * count
    return [Key(*struct.unpack(">16sQQ32s32s", keys[at:at + 96])) for at in range(0, len(keys), 96)]


# ---- Files.


def chain_record(value, rotate, epoch):
    octets = MAGIC + struct.pack(">IQ", rotate, epoch) + value
    return (octets + hashlib.sha256(octets).digest()).ljust(RECORD, b"\0")


def state_file(value, rotate, epoch):
    """As a key server writes it, of a chain that stands at this epoch and groups that nobody was ever in."""
    groups = struct.pack(">II", 0, 0)
    return 2 * chain_record(value, rotate, epoch) + hashlib.sha256(groups).digest() + groups


def read_chain(octets):
    """(rotate, epoch, value) of both records."""
    return [(*struct.unpack(">IQ", record[16:28]), record[28:60]) for record in (octets[:RECORD], octets[RECORD:2 * RECORD])]


def write(path, octets, mode=0o600):
    path.write_bytes(octets)
    path.chmod(mode)
    return path


# ---- Servers.


def entry(name, **settings):
    return {"match": f"DNS:{name}.example", "keys": ["*"], "allow": ["tls13", "ticket-keys"], **settings}


def start(stack, secret, clients, rotate=86400, lifetime=2 * 86400, **changes):  # not long ago from 1970
    return stack.key_server(
        clients=clients, ticket_keys={"secret": str(secret), "rotate": f"{rotate}s", "lifetime": f"{lifetime}s"}, **changes
    )


def keys_of(server, name="edge1"):
    with Peer(server.port, name) as peer:
        answer = peer.request(Op.TICKET_KEYS)
        assert answer.opcode == Op.SUCCESS, answer
        return parse(answer.payload)


def raw_secret(tmp_path, name="ticket.secret"):
    return write(tmp_path / name, bytes(range(32)))


# ---- What is answered.


def test_keys_from_a_raw_secret(stack, tmp_path):
    """The value of epoch 0; the present key, the next one, then those that still open tickets, newest first."""
    rotate, lifetime = 86400, 2 * 86400
    secret = raw_secret(tmp_path)
    server = start(stack, secret, [entry("edge1", ticket_group="eu")], rotate, lifetime)
    gains = Gains(server)
    before = int(time.time())
    keys = keys_of(server)
    epoch = keys[0].not_before // rotate
    assert before // rotate <= epoch <= time.time() // rotate
    assert [key.not_before // rotate for key in keys] == [epoch, epoch + 1, epoch - 1, epoch - 2, epoch - 3][:len(keys)]
    assert len(keys) in (4, 5) and keys[-1].not_after >= before  # 5: in the second in which the oldest one still does
    oldest = min(key.not_before // rotate for key in keys)
    value = walk(bytes(range(32)), oldest)
    made = {}
    for at in range(oldest, epoch + 2):
        made[at] = derive(value, b"eu", 0, rotate, at, lifetime)
        value = walk(value, 1)
    assert [made[key.not_before // rotate] for key in keys] == keys
    gains.assert_gained("keyless_keyserver_requests_total", 1, operation="ticket-keys", outcome="ok",
                        client="DNS:edge1.example")


def test_two_servers_agree_over_rotations(stack, tmp_path):
    """Of one file, started at different times, over three rotations: what one calls present the other knows too. An entry
    that names no group has keys of its own, the same on both."""
    rotate, lifetime = 2, 4
    epoch = int(time.time()) // rotate - 10
    secrets = [write(tmp_path / f"{name}.secret", state_file(bytes(32), rotate, epoch)) for name in "ab"]
    clients = [entry("edge1", ticket_group="eu"), entry("edge2", ticket_group="eu"), entry("stranger")]
    servers = [start(stack, secret, clients, rotate, lifetime, name=f"keys-{secret.stem}") for secret in secrets]
    seen = {}
    wait_until(lambda: both_know(servers, seen) >= 5, "five epochs' keys")
    for at, known in seen.items():
        if len(known) < 3:
            continue  # the first or last epoch, which not all were asked in
        value = walk(bytes(32), at - epoch)
        groups = {"edge1": b"eu", "edge2": b"eu", "stranger": own_group("DNS:stranger.example")}
        assert known == {(name, derive(value, group, 0, rotate, at, lifetime)) for name, group in groups.items()}


def both_know(servers, seen):
    """Asks each server as each client; every epoch's keys go into seen. The number of epochs that are known whole."""
    for server in servers:
        for name in ("edge1", "edge2", "stranger"):
            for key in keys_of(server, name):
                seen.setdefault(key.not_before // 2, set()).add((name, key))
    return sum(len(known) >= 3 for known in seen.values())


def test_who_leaves_takes_nothing_along(stack, tmp_path):
    """Removed, denied or no longer allowed: the others get keys of the next generation, at once; other groups keep
    theirs. It stays so over a restart, and when the entry comes back."""
    secret = raw_secret(tmp_path)
    eu = {"ticket_group": "eu"}
    clients = [entry("edge1", **eu), entry("edge2", **eu), entry("stranger")]
    server = start(stack, secret, clients, 86400, 86400)
    first, other = keys_of(server), keys_of(server, "stranger")
    for step, second in enumerate((None, entry("edge2", deny=True, **eu), entry("edge2", allow=["tls13"]))):
        if step:
            server.config["clients"] = clients
            server.reload()
        before = keys_of(server)
        server.config["clients"] = [clients[0], *([second] if second else []), clients[2]]
        server.reload()
        after = keys_of(server)
        assert not {key.name for key in after} & {key.name for key in before}
        assert [key.not_before for key in after] == [key.not_before for key in before]
        value = walk(bytes(range(32)), after[0].not_before // 86400)
        assert after[0] == derive(value, b"eu", step + 1, 86400, after[0].not_before // 86400, 86400)
        assert keys_of(server, "stranger") == other
    server.config["clients"] = clients
    server.reload()
    assert keys_of(server) == after != first  # who comes back changes nothing
    server.restart()
    assert keys_of(server) == after
    server.config["clients"] = [clients[0], clients[2]]  # found out at the start, too
    server.restart()
    assert not {key.name for key in keys_of(server)} & {key.name for key in after}


def test_a_removed_client_is_cut_off(stack, tmp_path):
    server = start(stack, raw_secret(tmp_path), [entry("edge1"), entry("edge2")])
    with Peer(server.port, "edge2") as peer:
        assert peer.request(Op.TICKET_KEYS).opcode == Op.SUCCESS
        server.config["clients"] = [entry("edge1")]
        server.reload()
        with pytest.raises((Closed, OSError)):
            peer.request(Op.TICKET_KEYS)


def test_who_may_not(stack, tmp_path):
    """Not in hello's list, and an opcode like any unknown one; whoever may, only without payload and within its rate."""
    server = start(stack, raw_secret(tmp_path), [entry("edge1", allow=["tls13"]), entry("edge2", rate=1)])
    gains = Gains(server)
    with Peer(server.port, "edge1") as peer:
        assert Op.TICKET_KEYS not in parse_hello(peer.hello().payload).opcodes
        assert peer.request(Op.TICKET_KEYS).error == Error.BAD_OPCODE
    with Peer(server.port, "edge2") as peer:
        assert Op.TICKET_KEYS in parse_hello(peer.hello().payload).opcodes
        assert peer.request(Op.TICKET_KEYS, b"eu").error == Error.FORMAT
        answers = [peer.request(Op.TICKET_KEYS) for _ in range(4)]
    assert answers[0].opcode == Op.SUCCESS and answers[-1].error == Error.RATE
    gains.assert_gained("keyless_keyserver_refusals_total", 1, error="0x05")
    gains.assert_gained("keyless_keyserver_refusals_total", 1, error="0x07")
    line = server.find("request refused", operation="ticket-keys", client="DNS:edge2.example")[-1]
    assert line["reason"] == "over its rate" and "key" not in line


def test_no_secret_no_ticket_keys(stack):
    """Nobody can be given them by mistake."""
    server = stack.key_server()
    with Peer(server.port) as peer:
        assert peer.request(Op.TICKET_KEYS).error == Error.BAD_OPCODE


# ---- The file.


def test_the_file_opens_no_older_session(stack, tmp_path):
    """The operator's octets are gone when the server is ready, from what was the file as well; and the value goes on with
    the clock, in the file and so for who reads it later."""
    rotate, lifetime = 1, 1
    secret = raw_secret(tmp_path)
    secret.write_bytes(state_file(bytes(32), rotate, int(time.time()) - 5))
    with open(secret, "rb") as original:
        server = start(stack, secret, [entry("edge1")], rotate, lifetime)
        assert original.read(2 * RECORD) == bytes(2 * RECORD)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.new"))
    first = read_chain(secret.read_bytes())
    assert first[0] == first[1]
    later = wait_until(lambda: (now := read_chain(secret.read_bytes()))[0][1] > first[0][1] + 2 and now, "the chain to go on")
    rotated, epoch, value = later[0]
    assert rotated == rotate and value == walk(first[0][2], epoch - first[0][1])
    assert epoch <= time.time() and all(first[0][2] not in record for record in (secret.read_bytes(),))
    keys = keys_of(server)
    epochs = {key.not_before for key in keys}
    assert min(epochs) >= epoch


def test_a_torn_record_does_no_harm(stack, tmp_path):
    rotate = 86400
    epoch = int(time.time()) // rotate - 9
    whole, torn = chain_record(bytes(32), rotate, epoch), bytearray(chain_record(bytes(32), rotate, epoch + 1))
    torn[40] ^= 1
    rest = state_file(bytes(32), rotate, epoch)[2 * RECORD:]
    for name, octets in ("first", bytes(torn) + whole + rest), ("second", whole + bytes(torn) + rest):
        secret = write(tmp_path / name, octets)
        keys = keys_of(start(stack, secret, [entry("edge1")], rotate, rotate, name=name))
        value = walk(bytes(32), keys[0].not_before // rotate - epoch)
        assert keys[0] == derive(value, own_group("DNS:edge1.example"), 0, rotate, keys[0].not_before // rotate, rotate)


WRONG = [
    (b"", 0o600, "damaged; expected 32 random octets"),
    (bytes(31), 0o600, "damaged; expected 32 random octets"),
    (bytes(33), 0o600, "damaged; expected 32 random octets"),
    (bytes(32), 0o640, "must be its owner's alone"),
    (state_file(bytes(32), 86400, 9)[:-1], 0o600, "damaged"),
    (state_file(bytes(32), 86400, 9) + b"\0", 0o600, "damaged"),
    (bytes(RECORD) * 2 + state_file(bytes(32), 86400, 9)[2 * RECORD:], 0o600, "damaged"),
    (state_file(bytes(32), 1800, 9), 0o600, "made for ticket_keys.rotate: 1800s; expected that, or another secret"),
    (state_file(bytes(32), 86400, 2**40), 0o600, "expected a clock that is right"),
    (bytes(5 * 2**20), 0o600, "has at most"),
    (None, 0, "cannot open: No such file"),
]


@pytest.mark.parametrize("octets, mode, reason", WRONG, ids=range(len(WRONG)))
def test_a_file_that_is_not_as_it_must_be(stack, tmp_path, octets, mode, reason):
    """-t says so and changes nothing; a start fails with the reason, and a reload leaves the old state running."""
    good, bad = raw_secret(tmp_path), tmp_path / "bad.secret"
    if octets is not None:
        write(bad, octets, mode)
    server = start(stack, good, [entry("edge1")])
    keys = keys_of(server)
    server.config["ticket_keys"]["secret"] = str(bad)
    checked = server.check()
    assert checked.returncode == 2 and reason in checked.stderr and str(bad) in checked.stderr, checked.stderr
    assert octets is None or bad.read_bytes() == octets
    line = server.reload("reload failed")
    assert reason in line["reason"], line
    assert keys_of(server) == keys


def test_a_directory_that_is_read_only(stack, tmp_path):
    """The secret could not be replaced by what is left of it: no start, and the reason."""
    directory = tmp_path / "fixed"
    directory.mkdir()
    secret = raw_secret(directory)
    if os.geteuid() == 0:
        secret = directory / "link"
        secret.symlink_to(raw_secret(tmp_path))  # root may write anywhere; but a link is not followed
    else:
        directory.chmod(0o500)
    server = start(stack, raw_secret(tmp_path, "other"), [entry("edge1")])
    server.config["ticket_keys"]["secret"] = str(secret)
    checked = server.check()
    assert checked.returncode == 2 and str(secret) in checked.stderr
    line = server.reload("reload failed")
    assert str(secret) in line["reason"]
    directory.chmod(0o700)


def test_what_is_checked_beforehand(stack, tmp_path):
    secret = raw_secret(tmp_path)
    names = {"ticket_group": "eu", "names": ["a.example"]}
    server = start(stack, secret, [entry("edge1", **names), entry("edge2", ticket_group="eu", names=["b.example"])])
    assert server.find("ticket group with different names", client="DNS:edge2.example", other="DNS:edge1.example", group="eu")
    checked = server.check()
    assert checked.returncode == 0 and "ticket_group: warning" in checked.stderr
    assert "rotate: 1d" in checked.stdout and "lifetime: 2d" in checked.stdout
    for change, error in [
        ({"rotate": "1500ms"}, "ticket_keys.rotate: got \"1500ms\", expected whole seconds"),
        ({"rotate": "1s", "lifetime": "1h"}, "expected at most 250 times ticket_keys.rotate"),
        ({"secret": None}, "ticket_keys.secret"),
    ]:
        server.config["ticket_keys"] = {k: v for k, v in {"secret": str(secret), **change}.items() if v is not None}
        checked = server.check()
        assert checked.returncode == 2 and error in checked.stderr, checked.stderr
    server.config["ticket_keys"] = None
    server.config = {key: value for key, value in server.config.items() if value is not None}
    assert "clients[0].allow" in server.check().stderr
    server.config["clients"] = [{"match": "DNS:edge1.example", "keys": ["*"], "ticket_group": "eu"}]
    assert "expected ticket-keys in allow" in server.check().stderr
