"""Archives are fetched from a real server, checked before they are unpacked, and unpacked whole or not at all."""

import errno
import gzip
import hashlib
import io
import multiprocessing
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from server import serving

from mmbench.core import download as downloading
from mmbench.core import unpacking
from mmbench.core.download import MissingAsset, download
from mmbench.data.archives import Archive, receipts
from mmbench.data.fetching import obtain
from mmbench.data.packing import pack

PICTURE = random.Random(0).randbytes(3_000_000)  # does not pack
FILES = {"birds/a.jpg": PICTURE, "birds/sub/b.txt": b"two\n", "words/a.txt": b"a bird\n"}
CAN_MOUNT = (
    subprocess.run(["unshare", "-rm", "true"], check=False).returncode == 0 if shutil.which("unshare") else False
)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(downloading, "PAUSES", (0, 0))


@pytest.fixture
def server():
    with serving() as server:
        yield server


def _tree(folder, files=FILES):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _archive(file, contents=("birds", "words"), origin="made here", **known):
    return Archive(file, origin, None, None, "none", contents, **known)


@pytest.fixture
def published(server, tmp_path):
    """A tar on the server, with size and sum."""
    [made] = pack(_tree(tmp_path / "tree"), [_archive("birds.tgz")], tmp_path / "published")
    server.publish(tmp_path / "published")
    return replace(made, origin=f"{server.address}/birds.tgz")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "assets" / "birds"


def _listed(folder):
    """Path to bytes of what a data set's folder holds, its locks and the record of its archives aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and path.parent.name != "archives"
    }


def _stamps(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


def _refused(pattern, *arguments, kind=ValueError):
    with pytest.raises(kind, match=pattern) as error:
        obtain(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def _nothing_left(root):
    assert not root.exists() or [path for path in root.rglob("*") if path.is_file()] == []


def test_an_archive_is_fetched_checked_unpacked_and_written_down(server, published, root):
    assert obtain([published], root) == []
    assert _listed(root) == FILES
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []
    receipt = receipts(root)["birds.tgz"]
    assert (receipt["sha256"], receipt["size"]) == (published.sha256, published.size)
    assert receipt["members"] == len(FILES)
    assert len(server.asked) == 1
    stamps = _stamps(root)
    obtain([published], root)
    assert len(server.asked) == 1
    assert _stamps(root) == stamps


def test_a_cut_connection_goes_on_where_it_stopped_in_the_same_run(server, published, root, monkeypatch):
    half = published.size // 2
    server.cut["/birds.tgz"] = half

    def mended(pause):
        del server.cut["/birds.tgz"]

    monkeypatch.setattr(downloading.time, "sleep", mended)
    obtain([published], root)
    assert [asked.range for asked in server.asked] == [None, f"bytes={half}-"]
    assert server.sent("/birds.tgz") == published.size
    assert _listed(root) == FILES


def test_a_cut_connection_goes_on_where_it_stopped_in_the_next_run(server, published, root):
    half = published.size // 2
    server.cut["/birds.tgz"] = half
    _refused(
        r"could not fetch it \(the connection was cut after 1,500,660 bytes; run this again to go on there\)",
        [published],
        root,
        kind=MissingAsset,
    )
    assert server.sent("/birds.tgz") == half
    assert not (root / "archives" / "birds.tgz").exists()
    del server.cut["/birds.tgz"]
    obtain([published], root)
    assert server.asked[-1].range == f"bytes={half}-"
    assert server.asked[-1].sent == published.size - half
    assert _listed(root) == FILES
    assert sorted(path.name for path in (root / "archives").iterdir()) == ["birds.tgz", "birds.tgz.receipt.json"]


def test_a_server_that_sends_no_parts_is_asked_for_all(server, published, root):
    server.cut["/birds.tgz"] = published.size // 2
    _refused("could not fetch it", [published], root, kind=MissingAsset)
    server.cut.clear()
    server.ranges = False
    obtain([published], root)
    assert server.asked[-1].sent == published.size
    assert _listed(root) == FILES


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, published, root, tmp_path):
    server.cut["/birds.tgz"] = 1000
    _refused("could not fetch it", [published], root, kind=MissingAsset)
    server.cut.clear()
    other = FILES | {"birds/sub/b.txt": b"three\n"}
    [made] = pack(_tree(tmp_path / "other", other), [_archive("birds.tgz")], tmp_path / "newer")
    server.publish(tmp_path / "newer")
    obtain([replace(made, origin=published.origin)], root)
    assert server.asked[-1].sent == made.size
    assert _listed(root) == other


def test_a_part_that_nobody_can_know_again_is_not_kept(server, published, root):
    server.validators = False
    server.cut["/birds.tgz"] = published.size // 2
    _refused(r"the connection was cut after 1,.* bytes; run this again\)", [published], root, kind=MissingAsset)
    _nothing_left(root)


def test_a_finished_part_of_a_killed_run_is_used(server, published, tmp_path):
    path = tmp_path / "birds.tgz"
    download(published.origin, path)
    server.cut["/birds.tgz"] = 1000
    with pytest.raises(OSError, match="cut after 1,000 bytes; run this again to go on there"):
        download(published.origin, tmp_path / "again.tgz")
    shutil.copyfile(path, tmp_path / ".again.tgz.part")
    count = len(server.asked)
    download(published.origin, tmp_path / "again.tgz")
    assert len(server.asked) == count
    assert (tmp_path / "again.tgz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"sha256": "00" * 32}, "expected sha256 0000.* for birds.tgz, found [0-9a-f]{64}: it was not kept; fetch it"),
        ({"sha256": None, "md5": "00" * 16}, "expected md5 0000.* for birds.tgz, found [0-9a-f]{32}: it was not kept"),
        (
            {"size": 77},
            r"expected birds.tgz \(77 bytes.*\(expected 77 bytes, found 3,[0-9,]* there\): put it there, or name",
        ),
    ],
)
def test_what_is_not_the_archive_is_not_kept(published, root, known, reason):
    _refused(reason, [replace(published, **known)], root)
    _nothing_left(root)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_not_taken_for_an_archive(server, published, root, kind):
    server.files["/birds.tgz"] = b"<!DOCTYPE html><html><head><title>Quota &amp; more</title></head></html>"
    server.types["/birds.tgz"] = kind
    unpublished = replace(published, size=None, sha256=None)
    _refused(r"a web page came instead of the file \(Quota & more\), as when a quota", [unpublished], root)
    _nothing_left(root)


def test_what_cannot_be_fetched_is_named_with_its_place(server, root):
    lost = _archive("lost.tgz", origin=f"{server.address}/lost.tgz")
    _refused(
        r"expected lost.tgz \(size unknown.*found no file at .*lost.tgz and could not fetch it \(.*404",
        [lost],
        root,
        kind=MissingAsset,
    )
    _refused(
        r"found no file at .*archives/lost.tgz: put it there, or name a folder or URL",
        [replace(lost, origin="ask the authors")],
        root,
        kind=MissingAsset,
    )
    started = time.monotonic()
    with pytest.raises(MissingAsset, match=r"could not fetch it \(.*Connection refused"):
        obtain([replace(lost, origin="http://127.0.0.1:9/lost.tgz")], root)
    assert time.monotonic() - started < 2


def test_an_optional_archive_that_cannot_be_had_stops_nothing(server, published, root):
    lost = _archive("lost.tgz", ("lost",), f"{server.address}/lost.tgz", optional=True)
    [reason] = obtain([lost, published], root)
    assert "404" in reason
    assert _listed(root) == FILES


def test_an_archive_put_into_the_folder_is_used_and_checked(server, published, root, tmp_path):
    (root / "archives").mkdir(parents=True)
    place = root / "archives" / "birds.tgz"
    place.write_bytes(b"half")
    _refused(
        f"{re.escape(str(place))}: expected 3,.* bytes in birds.tgz, found 4: remove it to fetch it", [published], root
    )
    assert place.read_bytes() == b"half"
    shutil.copyfile(tmp_path / "published" / "birds.tgz", place)
    obtain([published], root)
    assert _listed(root) == FILES
    assert server.asked == []


def test_the_first_file_of_an_unpublished_sum_is_remembered(server, published, root, tmp_path):
    unpublished = replace(published, size=None, sha256=None)
    obtain([unpublished], root)
    shutil.rmtree(root / "birds")
    (root / "archives" / "birds.tgz").unlink()
    other = FILES | {"birds/sub/b.txt": b"three\n"}
    pack(_tree(tmp_path / "other", other), [_archive("birds.tgz")], tmp_path / "newer")
    server.publish(tmp_path / "newer")
    first = receipts(root)["birds.tgz"]["md5"]
    _refused(
        rf"expected md5 {first} for birds.tgz, written down in birds.tgz.receipt.json at its first use, found",
        [unpublished],
        root,
    )


def test_a_mirror_that_is_a_folder_is_read_in_place(server, published, root, tmp_path):
    mirror = tmp_path / "published"
    stamps = _stamps(mirror)
    obtain([published], root, str(mirror))
    assert _listed(root) == FILES
    assert _stamps(mirror) == stamps
    assert server.asked == []
    assert [path.name for path in (root / "archives").iterdir()] == ["birds.tgz.receipt.json"]


def test_a_mirror_is_checked_and_what_it_lacks_is_fetched(server, published, root, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "birds.tgz").write_bytes(b"half")
    _refused(
        r"mirror/birds.tgz: expected .* bytes in birds.tgz, found 4: correct the mirror, or leave",
        [published],
        root,
        str(mirror),
    )
    assert (mirror / "birds.tgz").read_bytes() == b"half"
    (mirror / "birds.tgz").unlink()
    obtain([published], root, str(mirror))
    assert _listed(root) == FILES


def test_a_mirror_that_is_an_address(server, published, root):
    elsewhere = replace(published, origin="http://127.0.0.1:9/birds.tgz")
    obtain([elsewhere], root, f"{server.address}/")
    assert [asked.path for asked in server.asked] == ["/birds.tgz"]
    shutil.rmtree(root)
    server.files = {"/origin": server.files["/birds.tgz"]}
    obtain([replace(published, origin=f"{server.address}/origin")], root, server.address)
    assert [asked.path for asked in server.asked] == ["/birds.tgz", "/birds.tgz", "/origin"]
    assert _listed(root) == FILES


# What may lie in an archive.


def _zip(path, *members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, mode in members:
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = name  # as it is: the constructor cleans names
            entry.external_attr = mode << 16
            archive.writestr(entry, content)


def _tar(path, *members):
    with tarfile.open(path, "w:gz") as archive:
        for name, kind, link, content in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, link, len(content)
            archive.addfile(entry, io.BytesIO(content))


GOOD_ZIP = ("birds/a.jpg", b"good", 0o100644)
GOOD_TAR = ("birds/a.jpg", tarfile.REGTYPE, "", b"good")
OUTSIDE = "expected a path inside the archive, found one that leads out of it"


@pytest.mark.parametrize(
    ("file", "member", "reason"),
    [
        ("x.zip", ("../escaped", b"bad", 0o100644), OUTSIDE),
        ("x.zip", ("birds/../../escaped", b"bad", 0o100644), OUTSIDE),
        ("x.zip", ("/tmp/escaped", b"bad", 0o100644), OUTSIDE),
        ("x.zip", ("C:/escaped", b"bad", 0o100644), OUTSIDE),
        ("x.zip", ("..\\escaped", b"bad", 0o100644), OUTSIDE),
        ("x.zip", ("birds/link", b"/etc", stat.S_IFLNK | 0o777), "expected a file or a folder, found a link"),
        ("x.zip", ("birds/pipe", b"", stat.S_IFIFO | 0o644), "expected a file or a folder, found a device"),
        ("x.tgz", ("../escaped", tarfile.REGTYPE, "", b"bad"), OUTSIDE),
        ("x.tgz", ("/tmp/escaped", tarfile.REGTYPE, "", b"bad"), OUTSIDE),
        ("x.tgz", ("birds/link", tarfile.SYMTYPE, "../..", b""), "expected a file or a folder, found a link"),
        ("x.tgz", ("birds/link", tarfile.LNKTYPE, "birds/a.jpg", b""), "expected a file or a folder, found a link"),
        ("x.tar.gz", ("birds/pipe", tarfile.FIFOTYPE, "", b""), "expected a file or a folder, found a device"),
    ],
    ids=lambda value: None if isinstance(value, tuple) else value.partition(",")[0],
)
def test_nothing_leads_out_of_an_archive(root, tmp_path, file, member, reason):
    (root / "archives").mkdir(parents=True)
    path = root / "archives" / file
    (_zip if file.endswith(".zip") else _tar)(path, GOOD_ZIP if file.endswith(".zip") else GOOD_TAR, member)
    before = {entry for entry in tmp_path.rglob("*") if entry != path} | {path}
    _refused(f"{re.escape(file)}: {re.escape(member[0])}: {reason}: do not use this file", [_archive(file)], root)
    assert {entry for entry in tmp_path.rglob("*") if entry.suffix != ".lock"} == before
    assert not Path("/tmp/escaped").exists()


def test_an_archive_out_of_all_proportion_is_refused(root, monkeypatch):
    (root / "archives").mkdir(parents=True)
    monkeypatch.setattr(unpacking, "MAX_SMALL", 500_000)
    with tarfile.open(root / "archives" / "x.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo("birds/zeros")
        entry.size = 10_000_000
        archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    bound = "expected at most 500,000 bytes in all when unpacked, found more"
    _refused(f"x.tgz: birds/zeros: {bound}", [_archive("x.tgz")], root)
    with zipfile.ZipFile(root / "archives" / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("birds/zeros", bytes(10_000_000))
    _refused(f"x.zip: table of contents: {bound}", [_archive("x.zip")], root)
    monkeypatch.setattr(unpacking, "MAX_MEMBERS", 2)
    _tar(root / "archives" / "y.tgz", *(GOOD_TAR,) * 3)
    _refused("y.tgz: birds/a.jpg: expected at most 2 members, found more", [_archive("y.tgz")], root)
    assert _listed(root) == {}


def _damage(path, change):
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content))


def _flipped(content):
    content[len(content) // 2] ^= 1
    return content


@pytest.mark.parametrize("file", ["x.tgz", "x.zip"])
@pytest.mark.parametrize("change", [lambda content: content[:-2000], _flipped, lambda content: b"not an archive" * 99])
def test_a_damaged_archive_without_a_sum_is_noticed(root, tmp_path, file, change):
    pack(_tree(tmp_path / "tree"), [_archive(file)], root / "archives")
    _damage(root / "archives" / file, change)
    message = _refused(f"^{file}: .*: expected a whole archive, found .*: do not use this file", [_archive(file)], root)
    assert len(message) < 300
    assert _listed(root) == {}


def test_a_wrong_byte_in_the_last_block_of_a_tar_is_noticed(root, tmp_path):
    pack(_tree(tmp_path / "tree"), [_archive("x.tgz")], tmp_path)
    content = bytearray(gzip.decompress((tmp_path / "x.tgz").read_bytes()))
    packed = bytearray(gzip.compress(bytes(content), 1))
    packed[-8] ^= 1  # of the sum that gzip compares at the end
    (root / "archives").mkdir(parents=True)
    (root / "archives" / "x.tgz").write_bytes(packed)
    _refused("x.tgz: .*: expected a whole archive, found CRC check failed", [_archive("x.tgz")], root)


def test_inner_archives_single_files_and_folders_come_to_their_places(root, tmp_path):
    files = {
        "meta/birds/text/a.txt": b"a bird\n",
        "meta/birds/train/filenames.pickle": b"names",
        "labels/imagelabels.mat": b"labels",
        "birds/a.jpg": b"picture",
    }
    wanted = [
        _archive("birds.zip", ("meta/birds",), folder="meta", inner=("birds/text.zip",)),
        _archive("imagelabels.mat", ("labels/imagelabels.mat",)),
        _archive("pictures.tar", ("birds",)),
        _archive("absent.zip", ("absent",), optional=True),
    ]
    made = pack(_tree(tmp_path / "tree", files), wanted, root / "archives")
    assert [archive.file for archive in made] == ["birds.zip", "imagelabels.mat", "pictures.tar"]
    assert zipfile.ZipFile(root / "archives" / "birds.zip").namelist() == [
        "birds/text.zip",
        "birds/train/filenames.pickle",
    ]
    obtain(made, root)
    assert _listed(root) == files


def test_contents_are_found_wherever_they_lie(root, capsys):
    (root / "archives").mkdir(parents=True)
    _tar(
        root / "archives" / "x.tar.gz",
        ("cvpr2016_cub/text_c10", tarfile.DIRTYPE, "", b""),
        ("cvpr2016_cub/text_c10/a.txt", tarfile.REGTYPE, "", b"a bird\n"),
        ("cvpr2016_cub/vocab_c10.t7", tarfile.REGTYPE, "", b"not wanted"),
    )
    obtain([_archive("x.tar.gz", ("text_c10",))], root)
    assert _listed(root) == {"text_c10/a.txt": b"a bird\n"}
    assert capsys.readouterr().err == "mmbench: warning: x.tar.gz holds text_c10 as cvpr2016_cub/text_c10\n"
    _refused(
        r"x.tar.gz: expected absent in it, found cvpr2016_cub: it is another archive",
        [_archive("x.tar.gz", ("absent",))],
        root,
    )


def test_what_a_mac_adds_is_left_out(root, capsys):
    (root / "archives").mkdir(parents=True)
    _zip(root / "archives" / "x.zip", ("__MACOSX/birds/._a.jpg", b"junk", 0), GOOD_ZIP)
    obtain([_archive("x.zip", ("birds",))], root)
    assert _listed(root) == {"birds/a.jpg": b"good"}
    assert capsys.readouterr().err == ""


def test_the_same_files_are_packed_to_the_same_bytes(tmp_path):
    wanted = [_archive("x.tgz", ("birds",)), _archive("x.zip", ("words",))]
    first = pack(_tree(tmp_path / "a"), wanted, tmp_path / "1")
    time.sleep(0.01)
    assert pack(_tree(tmp_path / "b", dict(reversed(FILES.items()))), wanted, tmp_path / "2") == first
    assert [archive.sha256 for archive in first] == [
        hashlib.sha256((tmp_path / "2" / name).read_bytes()).hexdigest() for name in ("x.tgz", "x.zip")
    ]


def test_what_is_written_must_belong_to_an_archive(tmp_path):
    tree = _tree(tmp_path / "tree")
    with pytest.raises(
        ValueError, match=r"words/a.txt: expected it among the contents of an archive, found it in none"
    ):
        pack(tree, [_archive("x.tgz", ("birds",))], tmp_path / "out")
    with pytest.raises(ValueError, match=r"tree: expected faces for x.tgz, found none"):
        pack(tree, [_archive("x.tgz", ("birds", "faces"))], tmp_path / "out")


# Full disks, killed processes, and two at once.


def test_a_disk_too_small_is_said_before_anything_is_fetched(server, published, root, monkeypatch):
    usage = shutil.disk_usage(root.anchor)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    message = _refused(
        rf"expected {published.size:,} bytes more on this disk, found 1,000 bytes free", [published], root
    )
    assert "MMBENCH_HOME" in message
    _nothing_left(root)


def test_a_disk_that_fills_up_leaves_what_can_be_gone_on_with(server, published, root, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    write = unpacking._write

    def failing(entry, *arguments):
        if entry.name == "words/a.txt":
            raise full
        write(entry, *arguments)

    monkeypatch.setattr(unpacking, "_write", failing)
    _refused("expected more on this disk, found .* bytes free: make room and run this again", [published], root)
    assert _listed(root) == {}
    monkeypatch.undo()
    obtain([published], root)
    assert _listed(root) == FILES
    assert server.sent("/birds.tgz") == published.size


SMALL_DISK = """
import sys
from pathlib import Path
from mmbench.core import download
from mmbench.data.archives import Archive
from mmbench.data.fetching import obtain
download.require_space = lambda path, needed: None  # as if something else took the room meanwhile
archive = Archive("birds.tgz", sys.argv[2], None, None, "none", ("birds", "words"))
try:
    obtain([archive], Path(sys.argv[1]) / "birds")
except ValueError as error:
    left = sorted(path.name for path in Path(sys.argv[1]).rglob("*") if path.is_file() and path.suffix != ".lock")
    print(f"{error}|{left}")
"""


@pytest.mark.skipif(not CAN_MOUNT, reason="not run: no small disk can be mounted here")
def test_a_small_disk_that_is_really_full(server, published, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = f'mount -t tmpfs -o size=1m tmpfs {disk} && exec "$0" "$@"'
    words = [sys.executable, "-c", SMALL_DISK, str(disk), published.origin]
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command, *words], capture_output=True, text=True, check=True)
    assert re.match(r".*birds.tgz: expected more on this disk, found 0 bytes free: make room and run", done.stdout)
    assert "|['.birds.tgz.part', '.birds.tgz.part.json']" in done.stdout


fork = multiprocessing.get_context("fork")


def _killed(process):
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL


def test_killed_while_it_fetches(server, published, root):
    server.cut["/birds.tgz"] = published.size // 2
    server.stalled.add("/birds.tgz")
    process = fork.Process(target=obtain, args=([published], root))
    process.start()
    part = root / "archives" / ".birds.tgz.part"
    deadline = time.monotonic() + 20
    while not part.is_file() or part.stat().st_size < 2**20:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    length = part.stat().st_size
    server.cut.clear()
    server.stalled.clear()
    obtain([published], root)
    assert server.asked[-1].range == f"bytes={length}-"
    assert server.asked[-1].sent == published.size - length
    assert _listed(root) == FILES


@pytest.mark.parametrize("where", ["unpacking", "moving", "writing down"])
def test_killed_while_it_unpacks(server, published, root, where, monkeypatch):
    def kill(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)

    def inside(name, folder):
        return kill() if name.startswith("words") else folder / name

    def move(path, target):
        return kill() if path.name == "words" else os.replace(path, target)  # noqa: PTH105

    name, last = {
        "unpacking": ("mmbench.core.unpacking._inside", inside),
        "moving": ("pathlib.Path.replace", move),
        "writing down": ("mmbench.data.fetching.write_json", kill),
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(name, last)
        _killed(fork.Process(target=obtain, args=([published], root)))
    # Whatever lies where data are looked for is whole.
    found = {name: content for name, content in _listed(root).items() if not name.startswith(".")}
    birds = {name: content for name, content in FILES.items() if name.startswith("birds")}
    assert found == {"unpacking": {}, "moving": birds, "writing down": FILES}[where]
    assert receipts(root) == {}
    obtain([published], root)
    assert _listed(root) == FILES
    assert receipts(root)["birds.tgz"]["sha256"] == published.sha256
    assert len(server.asked) == 1


def test_two_processes_do_the_work_once(server, published, root):
    processes = [fork.Process(target=obtain, args=([published], root)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(server.asked) == 1
    assert _listed(root) == FILES


# Google Drive, whose addresses lead to the server on this machine.

FORM = (  # one line, as Google's is
    b'<!DOCTYPE html><html><body><form id="download-form" action="https://drive.google.com/big.tgz" method="get">'
    b'<input type="hidden" name="id" value="big"><input type="hidden" name="confirm" value="t"></form></body></html>'
)
QUOTA = b"""<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></body></html>"""


@pytest.fixture
def drive(server, published, monkeypatch):
    get = requests.Session.request

    def redirected(session, method, url, **arguments):
        for host in ("https://drive.google.com", "https://drive.usercontent.google.com"):
            url = url.replace(host, server.address)
        return get(session, method, url, **arguments)

    monkeypatch.setattr(requests.Session, "request", redirected)
    monkeypatch.setattr(random, "uniform", lambda low, high: 0)  # gdown's pauses
    server.files |= {"/uc": FORM, "/big.tgz": server.files["/birds.tgz"]}
    server.types["/uc"] = "text/html; charset=utf-8"
    return server


def test_google_drive_asks_whether_one_means_it(drive, published, root):
    obtain([replace(published, origin="gdrive:big")], root)
    assert [asked.path for asked in drive.asked] == ["/uc?id=big", "/big.tgz?id=big&confirm=t"]
    assert _listed(root) == FILES
    assert stat.S_IMODE((root / "archives" / "birds.tgz").stat().st_mode) & 0o044 == 0o044 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_google_drive_goes_on_where_it_stopped(drive, published, root):
    drive.cut["/big.tgz"] = published.size // 2
    _refused(
        r"could not fetch it \(Download is incomplete: received \d+ bytes but [^.]*\): put",
        [replace(published, origin="gdrive:big")],
        root,
    )
    [part] = (root / "archives").iterdir()
    length = part.stat().st_size
    assert length >= 2**20
    drive.cut.clear()
    obtain([replace(published, origin="gdrive:big")], root)
    assert (drive.asked[-1].range, drive.asked[-1].sent) == (f"bytes={length}-", published.size - length)
    assert _listed(root) == FILES
    assert sorted(path.name for path in (root / "archives").iterdir()) == ["birds.tgz", "birds.tgz.receipt.json"]


def test_google_drive_that_cannot_go_on_starts_again(drive, published, root):
    drive.cut["/big.tgz"] = published.size // 2
    _refused("could not fetch it", [replace(published, origin="gdrive:big")], root)
    drive.cut.clear()
    drive.ranges = False
    obtain([replace(published, origin="gdrive:big")], root)
    assert _listed(root) == FILES


def test_google_drives_quota_page_is_an_error(drive, published, root):
    drive.files["/uc"] = QUOTA
    message = _refused(
        r"could not fetch it \(.*Too many users have viewed or downloaded this",
        [replace(published, origin="gdrive:big", size=None, sha256=None)],
        root,
    )
    assert "put it there, or name a folder or URL that has it by paths.mirror" in message
    _nothing_left(root)


def test_google_drive_gets_the_resource_key(drive, published, root):
    drive.files["/download"] = drive.files["/birds.tgz"]
    keyed = replace(published, origin="gdrive:0Bold?resourcekey=0-key")
    drive.cut["/download"] = 1000
    _refused("could not fetch it", [keyed], root)
    drive.cut.clear()
    obtain([keyed], root)
    assert {asked.path for asked in drive.asked} == {
        "/download?id=0Bold&export=download&confirm=t&resourcekey=0-key",
    }
    assert drive.asked[-1].range == "bytes=1000-"
    shutil.rmtree(root)
    drive.files["/download"], drive.types["/download"] = QUOTA, "text/html"
    _refused(r"a web page came instead of the file \(Google Drive - Quota exceeded\)", [keyed], root)
