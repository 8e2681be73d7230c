"""The front door against web pages, slow and greedy clients, and whatever is no request."""

import select
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.request import urlopen

import pytest
from e2e.fleet import wait_until
from e2e.web import API, HTTP, Door, Reply, door_of, drained, gateways, heard, key_of, started

ALIVE = f"{API}/alive"
STEER = f"{API}/steer"


@pytest.fixture(scope="module")
def node(shared_fleet):
    flags = ("--http-host", "mesh.example.com", "--http-host", "[2001:DB8::7]")
    pages = ("--http-origin", "https://page.example.com")
    (node,) = shared_fleet.mesh("alone", flags=("--no-mdns", *HTTP, *flags, *pages))
    return node


@pytest.fixture(scope="module")
def door(node):
    return door_of(node)


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer.split(b" ", 2)[1])


def request(door, head: str, body: bytes = b"") -> bytes:
    """Make a request by hand; `head` may say more than once what a library says once."""
    key = f"Authorization: Bearer {door.key}\r\nConnection: close\r\n"
    return head.replace("\n", "\r\n").encode() + key.encode() + b"\r\n" + body


def test_only_the_hosts_that_are_ours_are_answered(node, door):
    port = door.address.rpartition(":")[2]
    names = ("localhost:1", "LOCALHOST.", "mesh.example.com", "[2001:db8:0::7]:80")
    for host in ("127.0.0.1", f"127.0.0.1:{port}", *names):
        assert door.ask("GET", ALIVE, Host=host).status == 200, host
    own = f"{node.ready['node_id']}.node.mesh.internal"
    assert door.ask("GET", ALIVE, Host=own).status == 200
    for host in ("evil.example.com", "127.0.0.1.evil.example.com", "192.0.2.1", "[::1]", "", "a b"):
        assert door.ask("GET", ALIVE, Host=host).status in {400, 421}, host
        assert door.with_key("").ask("GET", "/health", Host=host).status in {400, 421}
    twice = "GET /health HTTP/1.1\nHost: 127.0.0.1\nHost: evil.example.com\n"
    assert status_of(door.raw(request(door, twice))) == 400
    assert status_of(door.raw(request(door, "GET /health HTTP/1.1\n"))) == 400
    absolute = f"GET http://{door.address}/health HTTP/1.1\nHost: 127.0.0.1\n"
    assert status_of(door.raw(request(door, absolute))) == 200


def test_no_web_page_may_ask_unless_its_origin_is_configured(door):
    assert door.ask("GET", ALIVE, Origin="https://page.example.com").status == 200
    for origin in ("https://evil.example.com", "null", "http://page.example.com", ""):
        refused = door.ask("GET", ALIVE, Origin=origin)
        assert (refused.status, refused.code) == (403, "origin")
    assert door.ask("OPTIONS", ALIVE, Origin="https://evil.example.com").status == 403
    assert "access-control-allow-origin" not in door.ask("GET", ALIVE).headers
    for site in ("cross-site", "same-site"):  # as browsers say of an <img>, which has no Origin
        refused = door.ask("GET", ALIVE, Sec_Fetch_Site=site)
        assert (refused.status, refused.code) == (403, "origin")
        allowed = {"Origin": "https://page.example.com", "Sec_Fetch_Site": site}
        assert door.ask("GET", ALIVE, **allowed).status == 200
    for site in ("none", "same-origin"):
        assert door.ask("GET", ALIVE, Sec_Fetch_Site=site).status == 200


def test_a_page_of_a_configured_origin_may_read_what_is_answered(door):
    page, stranger = "https://page.example.com", door.with_key("")
    wanted = {"Access_Control_Request_Method": "DELETE"}
    asked = stranger.ask("OPTIONS", ALIVE, Origin=page, **wanted)
    assert (asked.status, asked.content) == (204, b"")
    assert "DELETE" in asked.headers["access-control-allow-methods"]
    allowed = asked.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type", "idempotency-key"} <= set(allowed)
    for answer in (
        asked,
        door.ask("GET", ALIVE, Origin=page),
        door.ask("GET", "/nowhere", Origin=page),
        stranger.ask("GET", ALIVE, Origin=page),
    ):
        assert answer.headers["access-control-allow-origin"] == page
        assert answer.headers["vary"] == "origin"
    assert "access-control-allow-credentials" not in asked.headers
    for origin in ("https://evil.example.com", "null"):
        refused = stranger.ask("OPTIONS", ALIVE, Origin=origin, **wanted)
        assert refused.status == 403
        assert "access-control-allow-origin" not in refused.headers
    assert stranger.ask("OPTIONS", ALIVE, Origin=page).status == 401, "asks for no preflight"
    assert stranger.ask("OPTIONS", ALIVE, **wanted).status == 401, "comes from no page"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "Bearer smk1_",
        "Bearer smk1_é",
        "Bearer é☃"[:8],
        "Bearer smk1_" + "A" * 20000,
        "bearer\tsmk1_x",
        "Bearer \xff\xfe",
    ],
)
def test_what_is_no_key_is_a_401_whatever_its_characters(door, token):
    head = b"GET " + ALIVE.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    sent = head + b"Authorization: " + token.encode("utf-8") + b"\r\n\r\n"
    assert status_of(door.raw(sent)) == 401


def test_a_stranger_learns_nothing_of_what_there_is(door):
    stranger = door.with_key("")
    for method, path, body in (
        ("GET", "/openapi.json", None),
        ("GET", "/sessions/nothing", None),
        ("DELETE", f"{API}/agents/nobody", None),
        ("POST", STEER, b"not json"),
        ("GET", f"{ALIVE}?filter=nonsense", None),
        ("GET", "/nowhere", None),
        ("PUT", ALIVE, b"{}"),
        ("OPTIONS", ALIVE, None),
        ("GET", "/health/", None),
    ):
        refused = stranger.ask(method, path, body)
        assert (refused.status, refused.code) == (401, "not_authenticated")
        assert refused.headers["www-authenticate"].startswith("Bearer")
    assert stranger.ask("HEAD", ALIVE).status == 401
    assert stranger.ask("GET", "/.well-known/nothing").code == "not_found"
    assert stranger.ask("POST", "/health", b"{}").headers["allow"] == "GET, HEAD"
    health = stranger.ask("GET", "/health")
    assert (health.status, set(health.json)) == (200, {"status", "sessions", "coverage"})
    assert health.headers["cache-control"] == "no-store"


def test_a_key_in_an_address_is_refused_and_in_no_log(node, door):
    refused = door.ask("GET", f"{ALIVE}?session_key={door.key}")
    assert (refused.status, refused.code) == (400, "usage")
    door.ask("GET", f"/sessions/{door.key}")
    door.with_key(door.key[:-9]).ask("GET", ALIVE)
    door.ask("POST", STEER, {"agent_id": door.key, "direction": "north"})
    logged = node.stderr + "".join(file.read_text() for file in node.home.glob("node.log*"))
    assert door.key[8:60] not in logged


def test_bodies_are_json_of_a_bounded_size_in_bounded_time(door):
    def posted(body, **headers):
        return door.ask("POST", STEER, body, **headers)

    body = b'{"agent_id": "nobody", "direction": "north"}'
    for kind in (
        "application/json",
        "application/json; charset=utf-8",
        "application/x-www-form-urlencoded",
        "",
    ):
        assert posted(body, Content_Type=kind).status == 404, kind
    for kind in (
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/jsonx",
    ):
        assert posted(body, Content_Type=kind).code == "not_json"
    assert posted(body, Content_Encoding="gzip").code == "not_json"
    twice = b'{"agent_id": "a", "agent_id": "b", "direction": "c"}'
    for wrong in (
        b"",
        b"{",
        b"[]",
        b"\xff",
        twice,
        b'{"agent_id": NaN}',
        b"[" * 60_000,
        b'{"agent_id": 7, "direction": "n"}',
        b'{"agent_id": "a"}',
        b'{"agent_id": "a", "direction": "b", "mood": "c"}',
        b'{"agent_id": "a", "session_id": "b", "direction": "c"}',
    ):
        assert posted(wrong).code == "usage", wrong[:40]
    assert posted(b"x" * (64 << 10)).code == "usage"
    assert posted(b"x" * ((64 << 10) + 1)).code == "too_large"
    chunks = b"".join(b"4000\r\n" + b" " * 0x4000 + b"\r\n" for _ in range(5)) + b"0\r\n\r\n"
    head = f"POST {STEER} HTTP/1.1\nHost: 127.0.0.1\nTransfer-Encoding: chunked\n"
    assert status_of(door.raw(request(door, head, chunks))) == 413
    both = (
        f"POST {STEER} HTTP/1.1\nHost: 127.0.0.1\nTransfer-Encoding: chunked\nContent-Length: 5\n"
    )
    assert status_of(door.raw(request(door, both, b"0\r\n\r\n"))) == 400


def test_what_is_no_http_is_answered_or_hung_up_on(door):
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # a TLS hello
        b"\x00" * 500,
        b"GET /health HTTP/one\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        answer = door.raw(sent)
        assert not answer or status_of(answer) == 400
    large = request(door, f"GET {ALIVE} HTTP/1.1\nHost: 127.0.0.1\nX-Large: {'a' * 70_000}\n")
    with door.connected() as plug:
        plug.sendall(large[:40_000])
        assert status_of(drained(plug)) == 431
    assert door.ask("GET", "/nowhere").code == "not_found"
    for method, path, allowed in (
        ("PUT", ALIVE, "GET, HEAD"),
        ("PUT", f"{API}/registry", "DELETE, GET, HEAD, POST"),
        ("POST", "/sessions/x", "DELETE, GET, HEAD"),
        ("GET", STEER, "POST"),
        ("PUT", "/openapi.json", "GET, HEAD"),
    ):
        refused = door.ask(method, path, b"{}")
        assert (refused.code, refused.headers["allow"]) == ("method_not_allowed", allowed)


def test_head_says_of_every_page_what_get_does(door):
    for path in ("/health", ALIVE, "/openapi.json", "/sessions/nothing"):
        told, asked = door.ask("HEAD", path), door.ask("GET", path)
        assert (told.status, told.content) == (asked.status, b"")
        same = ("content-type", "cache-control")
        assert [told.headers[one] for one in same] == [asked.headers[one] for one in same]
        assert int(told.headers["content-length"]) > 0
    assert door.ask("HEAD", STEER).headers["allow"] == "POST"


def test_who_is_slow_is_cut_and_holds_up_nobody(door):
    half_head = f"GET {ALIVE} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
    half_body = request(door, f"POST {STEER} HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 9\n", b"{")

    def held(sent: bytes) -> bytes:
        with door.connected() as plug:
            plug.sendall(sent)
            try:
                return drained(plug)
            except ConnectionError:
                return b""

    with ThreadPoolExecutor(60) as pool:
        silent = [pool.submit(held, sent) for sent in (b"", half_head) for _ in range(20)]
        stuck = [pool.submit(held, half_body) for _ in range(10)]

        def let_go() -> bool:
            assert door.ask("GET", ALIVE).status == 200
            return all(one.done() for one in (*silent, *stuck))

        wait_until(let_go, "slow connections to be cut")
    assert {one.result() for one in silent} == {b""}
    assert {status_of(one.result()) for one in stuck} == {408}


def test_who_asks_and_does_not_read_is_cut(door):
    head = "GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    head += f"Authorization: Bearer {door.key}\r\n\r\n"
    with door.connected() as plug:
        plug.setblocking(False)
        unsent = head.encode() * 400  # of answers, tens of megabytes
        watched = select.poll()
        watched.register(plug, 0)  # nothing but its end
        cut: list = []
        give_up_at = time.monotonic() + 40
        while not cut and time.monotonic() < give_up_at:
            with suppress(BlockingIOError):
                unsent = unsent[plug.send(unsent) :] if unsent else unsent
            cut = watched.poll(100)
        assert cut
    assert door.ask("GET", ALIVE).status == 200


def test_too_many_are_told_when_to_come_back(node, fleet):
    (other,) = gateways(fleet, "strict")
    stranger = Door(other.ready["http"])
    replies = [stranger.ask("GET", ALIVE) for _ in range(80)]
    assert {reply.status for reply in replies} == {401, 429}
    late = next(reply for reply in replies if reply.status == 429)
    assert (late.code, int(late.headers["retry-after"]) >= 1) == ("too_many", True)
    assert stranger.ask("GET", "/health").status == 200
    assert door_of(other).ask("GET", ALIVE).status == 200, "who has a key need not wait"

    def again() -> bool:
        return stranger.ask("GET", ALIVE).status == 401

    wait_until(again, "the address to be let in again")


def test_two_hundred_clients_at_once_are_all_answered(node, door):
    session_id = started(node, "popular")

    def asked(number: int) -> Reply:
        if number % 4 == 0:
            return door.ask("POST", STEER, {"agent_id": "popular", "message": f"m{number}"})
        return door.ask("GET", ALIVE if number % 2 else f"/sessions/{session_id}")

    def client(number: int) -> int:
        def answered() -> Reply | None:
            reply = asked(number)
            if reply.status != 429:
                return reply
            assert number % 4 == 0  # one agent reads one line at a time
            assert int(reply.headers["retry-after"]) >= 1
            return None

        return wait_until(answered, f"client {number} to be answered").status

    with ThreadPoolExecutor(200) as pool:
        assert set(pool.map(client, range(400))) == {200}
    steers = {f"m{number}" for number in range(0, 400, 4)}
    wait_until(lambda: set(heard(node, "popular")) == steers)


def test_plain_http_does_not_leave_this_machine(fleet):
    node = fleet.node("open")
    node.json("init", "--name", "open")
    for place in ("0.0.0.0:0", "[::]:0", "192.0.2.1:8888", "example.com:80"):
        refused = node.call("up", "--no-mdns", "--http", place, "-o", "json")
        assert (refused.code, refused.error["code"]) == (2, "usage"), refused.err
        assert "--http-tls" in refused.error["hint"]
    nonsense = node.call("up", "--no-mdns", "--http", "sometimes", "-o", "json")
    assert nonsense.code == 2
    (node.home / "config.yaml").write_text("http: {listen: 0.0.0.0:8888}\n")
    assert node.call("up", "--no-mdns", "-o", "json").code == 2
    for host in ("mesh.example.com:8443", "https://mesh.example.com", "a/b", ""):
        never = node.call("up", "--http", "on", "--http-host", host, "-o", "json")
        assert (never.code, "no host that could be" in never.error["message"]) == (2, True)
    half = node.call("up", "--http", "on", "--http-tls-cert", "/nowhere.pem", "-o", "json")
    assert (half.code, "belong together" in half.error["message"]) == (2, True)


def test_a_port_that_is_taken_is_named(node, fleet):
    other = fleet.node("second")
    other.json("init", "--name", "second")
    taken = node.ready["http"]
    refused = other.call(
        "up", "--no-mdns", "--listen", "127.0.0.1:0", "--http", taken, "-o", "json"
    )
    assert (refused.code, refused.error["code"]) == (7, "conflict")
    assert taken in refused.error["message"]


@pytest.mark.parametrize("flag", ["--http", "--metrics"])
def test_a_node_that_cannot_start_for_a_port_is_to_others_as_it_was(node, fleet, flag):
    anna, berta = fleet.mesh("anna", "berta")
    assert berta.call("down").code == 0
    assert berta.wait() == 0
    wait_until(lambda: anna.states()["berta"] == "down", "anna to hear that it was stopped")
    on_disk = berta.json("nodes")["nodes"]
    refused = berta.call("up", "--no-mdns", "--listen", "127.0.0.1:0", flag, node.ready["http"])
    assert refused.code == 7, refused.err
    assert berta.json("nodes")["nodes"] == on_disk
    assert anna.states()["berta"] == "down"


def test_the_nodes_own_certificate_serves_beyond_this_machine(fleet):
    (node,) = fleet.mesh("secure", flags=("--no-mdns", "--http", "0.0.0.0:0", "--http-tls"))
    port = node.ready["http"].rpartition(":")[2]
    name = f"{node.ready['node_id']}.node.mesh.internal"
    trusting = ssl.create_default_context(cafile=node.home / "mesh.pem")
    head = f"GET {ALIVE} HTTP/1.1\r\nHost: {name}\r\nAuthorization: Bearer {key_of(node)}\r\n"
    plug = Door(f"127.0.0.1:{port}").connected()
    with trusting.wrap_socket(plug, server_hostname=name) as secure:
        secure.sendall(f"{head}Connection: close\r\n\r\n".encode())
        assert status_of(drained(secure)) == 200
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        urlopen(f"https://127.0.0.1:{port}/health", timeout=10)
    left = [file.name for file in node.home.joinpath("run").iterdir() if file.is_dir()]
    assert left == []


def test_without_the_extra_a_sentence_says_what_to_install(fleet, tmp_path):
    node = fleet.node("bare")
    node.json("init", "--name", "bare")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib import util\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'fastapi' else real(name, *more)\n"
    )
    refused = node.call("up", "--http", "on", "-o", "json", env={"PYTHONPATH": str(tmp_path)})
    assert (refused.code, refused.error["code"]) == (2, "usage")
    assert "pipx install --force '.[http]'" in refused.error["hint"]
