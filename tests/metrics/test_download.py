"""Fetching of weights, from a server on this machine."""

import hashlib
import io
import os
import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from gdown.exceptions import FileURLRetrievalError

from mmbench.__main__ import _run
from mmbench.core.cards import Card, MissingAsset, absence, find
from mmbench.core.catalogue import shipped

BODY = random.Random(0).randbytes(3_000_000)  # the same in every test process
SHA256 = hashlib.sha256(BODY).hexdigest()
PAGES = {"/good.pth": BODY, "/quota.pth": b"<!DOCTYPE html><html>Quota exceeded</html>"}


class Handler(BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self):
        type(self).requests += 1
        if self.path == "/cut.pth":
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY[:1000])
            return
        if self.path not in PAGES:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGES[self.path])))
        self.end_headers()
        self.wfile.write(PAGES[self.path])

    def do_HEAD(self):
        self.send_response(200 if self.path in PAGES else 404)
        self.send_header("Content-Length", str(len(PAGES.get(self.path, b""))))
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("mmbench.core.download.PAUSES", (0, 0))
    monkeypatch.setenv("MMBENCH_DOWNLOAD", "yes")


def card(origin, sha256=SHA256):
    return Card("some/file.pth", sha256, origin, "none")


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8], None])
def test_a_file_is_fetched_once_and_checked(server, tmp_path, sha256):
    path = find(card(f"{server}/good.pth", sha256), tmp_path)
    assert path == tmp_path / "weights" / "some" / "file.pth"
    assert path.read_bytes() == BODY
    count = Handler.requests
    assert find(card(f"{server}/good.pth", sha256), tmp_path) == path
    assert Handler.requests == count


@pytest.mark.parametrize(
    ("page", "sha256", "reason"),
    [
        ("good.pth", "00" * 32, f"sha256 {SHA256}"),
        ("quota.pth", SHA256, "a web page came instead"),
        ("quota.pth", None, "a web page came instead"),
        ("absent.pth", SHA256, "404"),
        ("cut.pth", SHA256, "could not fetch it"),
    ],
)
def test_what_is_not_the_file_is_never_kept(server, tmp_path, page, sha256, reason):
    with pytest.raises(MissingAsset, match=reason) as error:
        find(card(f"{server}/{page}", sha256), tmp_path)
    assert "\n" not in str(error.value)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    assert left == []


def test_no_connection_is_one_line(tmp_path):
    with pytest.raises(MissingAsset, match=r"could not fetch it .*data.source=toy needs none") as error:
        find(card("http://127.0.0.1:9/file.pth"), tmp_path)
    assert "\n" not in str(error.value)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Answers, typed on a terminal; what is asked there."""
    monkeypatch.setenv("MMBENCH_DOWNLOAD", "ask")
    monkeypatch.setattr("mmbench.core.download._declined", set())

    def typed(answers):
        shown = Terminal()
        monkeypatch.setattr("sys.stdin", Terminal(answers))
        monkeypatch.setattr("sys.stderr", shown)
        return shown

    return typed


@pytest.mark.parametrize("policy", ["never", "ask", ""])
def test_fetching_can_be_forbidden_and_is_without_a_terminal(server, tmp_path, monkeypatch, policy):
    monkeypatch.setenv("MMBENCH_DOWNLOAD", policy)
    count = Handler.requests
    with pytest.raises(MissingAsset, match=r"found no file: put it there, or fetch it by download=yes; .* needs none"):
        find(card(f"{server}/good.pth"), tmp_path)
    with pytest.raises(MissingAsset, match="found no file: put it there"):
        find(card("ask the authors"), tmp_path)
    assert Handler.requests == count


UNKNOWN = "hash not known: the file's own will be recorded"


def test_size_hash_and_licence_are_said_before_anything_is_fetched(server, tmp_path, capsys):
    find(card(f"{server}/good.pth"), tmp_path)
    said = f"fetching some/file.pth (3,000,000 bytes; sha256 {SHA256}) from {server}/good.pth; terms: none\n"
    assert said in capsys.readouterr().err
    stated = Card("b.pth", SHA256, f"{server}/good.pth", "MIT", size=2**20)
    find(stated, tmp_path)
    assert "fetching b.pth (1,048,576 bytes;" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sha256", "size", "said"),
    [(None, None, f"size unknown; {UNKNOWN}"), (SHA256, 2**20, f"1,048,576 bytes; sha256 {SHA256}")],
)
def test_a_refusal_says_size_hash_and_terms_and_asks_no_server(server, tmp_path, monkeypatch, sha256, size, said):
    monkeypatch.setenv("MMBENCH_DOWNLOAD", "never")
    monkeypatch.setattr("requests.head", lambda *_, **__: pytest.fail("nothing is asked"))
    origin = f"{server}/good.pth"
    wanted = Card("b.pth", sha256, origin, "MIT", size=size)
    expected = f"expected b.pth ({said}; from {origin}; terms: MIT) at {tmp_path / 'weights' / 'b.pth'}, found no file"
    with pytest.raises(MissingAsset) as error:
        find(wanted, tmp_path)
    assert str(error.value).startswith(f"{expected}: put it there, or fetch it by download=yes; ")
    assert absence(wanted, tmp_path).startswith(f"{expected}: put it there; download=yes fetches it; ")


def test_what_is_not_known_of_a_file_is_said_where_one_is_asked(tmp_path, terminal):
    shown = terminal("n\n")
    with pytest.raises(MissingAsset, match="found no file"):
        find(Card("b.pth", None, "gdrive:id", "none stated"), tmp_path)
    expected = f"to fetch: b.pth (size unknown; {UNKNOWN}) from gdrive:id; terms: none stated\n"
    assert shown.getvalue().startswith(expected)


def test_a_hash_that_was_not_known_is_recorded(server, tmp_path):
    path = find(card(f"{server}/good.pth", None), tmp_path)
    assert path.with_name("file.pth.sha256").read_text() == f"{SHA256}  file.pth\n"


def cards_in(node, place):
    """The cards anywhere in a file of `conf`, with the file's name."""
    if isinstance(node, dict):
        if {"file", "sha256", "origin"} <= node.keys():
            yield pytest.param(node, id=f"{place} {node['file']}")
        for item in node.values():
            yield from cards_in(item, place)


CONF = shipped("conf")
CARDS = [
    found
    for group in ("network", "method")
    for path in sorted((CONF / group).rglob("*.yaml"))
    for found in cards_in(yaml.safe_load(path.read_text(encoding="utf-8")), path.relative_to(CONF))
]


@pytest.mark.parametrize("described", CARDS)
def test_a_card_names_its_terms_and_the_hash_that_is_in_the_files_name(described):
    assert described["licence"]
    assert described.get("size") is None or described["size"] > 0
    for part in re.findall(r"-([0-9a-f]{8})\.pth$", described["file"]):
        assert described["sha256"].startswith(part)


def test_cards_of_one_network_file_say_the_same_of_it():
    found = {}
    for described in (param.values[0] for param in CARDS if param.id.startswith("network")):
        facts = tuple(described.get(key) for key in ("sha256", "size", "licence", "origin"))
        found.setdefault((described["file"], described.get("member")), set()).add(facts)
    assert len(found) > 20
    assert [name for name, facts in found.items() if len(facts) > 1] == []


def test_on_a_terminal_one_is_asked(server, tmp_path, terminal):
    shown = terminal("n\n")
    count = Handler.requests
    for _ in range(2):  # a second time it is not asked again
        with pytest.raises(MissingAsset, match="or fetch it by download=yes"):
            find(card(f"{server}/good.pth"), tmp_path)
    assert Handler.requests == count
    assert shown.getvalue().count("(3,000,000 bytes;") == shown.getvalue().count("fetch it?") == 1
    terminal("y\n")
    assert find(Card("a.pth", SHA256, f"{server}/good.pth", "MIT"), tmp_path).read_bytes() == BODY
    shown = terminal("all\n")
    for name in ("b.pth", "c.pth"):
        find(Card(name, SHA256, f"{server}/good.pth", "MIT"), tmp_path)
    assert shown.getvalue().count("fetch it?") == 1


@pytest.mark.parametrize("answer", ["", "\n", "what\n"])  # nothing: the terminal was closed
def test_whoever_says_nothing_has_said_no(server, tmp_path, terminal, answer):
    terminal(answer)
    with pytest.raises(MissingAsset, match="found no file"):
        find(card(f"{server}/good.pth"), tmp_path)


def test_a_word_of_every_command_says_whether_weights_are_fetched(monkeypatch, capsys):
    monkeypatch.setenv("MMBENCH_DOWNLOAD", "ask")
    assert _run(["list", "download=never", "group=metric"]) == 0
    assert os.environ["MMBENCH_DOWNLOAD"] == "never"
    capsys.readouterr()
    for words, message in (
        (["download=maybe"], "expected download=ask, yes or never, found 'maybe': choose one"),
        (["download=yes", "download=never"], "expected download= once, found yes and never: remove one"),
    ):
        assert _run(["list", *words]) == 1
        assert message in capsys.readouterr().err


def test_a_wrong_file_in_place_is_refused(tmp_path):
    path = tmp_path / "weights" / "some" / "file.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    with pytest.raises(ValueError, match=f"expected sha256 {SHA256}, found .*: remove it and fetch it from"):
        find(card("http://127.0.0.1:9/file.pth"), tmp_path)


def test_google_drive(tmp_path, monkeypatch):
    def drive(id, output, **kwargs):  # noqa: A002
        with open(output, "wb") as file:  # noqa: PTH123
            file.write(PAGES[f"/{id}.pth"])
        kwargs["progress"](1, None)

    monkeypatch.setattr("gdown.download", drive)
    assert find(card("gdrive:good"), tmp_path).read_bytes() == BODY
    with pytest.raises(MissingAsset, match="a web page came instead of the file, as when a quota"):
        find(card("gdrive:quota"), tmp_path / "other")

    def refused(**kwargs):
        raise FileURLRetrievalError("Too many users\nhave viewed this file")

    monkeypatch.setattr("gdown.download", refused)
    with pytest.raises(MissingAsset, match="Too many users have viewed this file"):
        find(card("gdrive:good"), tmp_path / "third")
