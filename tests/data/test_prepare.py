"""`mmbench prepare` from a server to a loaded batch, with toy birds that are served as the real archives are."""

import re
import shutil
import sys
from dataclasses import replace
from types import ModuleType

import pytest
from server import serving

from mmbench.commands import prepare
from mmbench.core import download as downloading
from mmbench.core.cards import MissingAsset
from mmbench.data.archives import checked, receipts
from mmbench.data.cub import CUB
from mmbench.data.toy import birds as toy_birds


@pytest.fixture
def server(toy_root, monkeypatch):
    """Serves the archives of toy birds as those of CUB."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(downloading, "PAUSES", (0, 0))
    with serving() as server:
        server.publish(toy_root / "archives")
        sealed = []
        for archive in CUB.archives:
            known = receipts(toy_root)[archive.file]
            origin = f"{server.address}/{archive.file}"
            sealed.append(replace(archive, origin=origin, size=known["size"], md5=None, sha256=known["sha256"]))
        monkeypatch.setattr(CUB, "archives", tuple(sealed))
        monkeypatch.setattr(CUB, "test_classes", frozenset(toy_birds.TEST_CLASSES))
        yield server


@pytest.fixture
def assets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMBENCH_HOME", str(tmp_path / "assets"))
    return tmp_path / "assets"


WORDS = ["data=cub", "data.module.complete=false", "data.module.num_workers=0"]


def _said(capsys, *words):
    assert prepare.main([*WORDS, *words]) == 0
    return capsys.readouterr().out.splitlines()


def _stamps(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


def _unpacked(toy_root, folder):
    for name in ("CUB_200_2011", "text_c10", "segmentations"):
        shutil.copytree(toy_root / name, folder / name)
    return folder


def _pictures(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_from_the_server_to_a_batch(server, assets, toy_root, capsys):
    lines = _said(capsys)
    root = assets / "data" / "cub"
    size = receipts(toy_root)["segmentations.tgz"]["size"]
    assert lines[0] == f"to fetch, into {root}:"
    assert len([line for line in lines if line.startswith("  ")]) == 3
    assert lines[3].startswith(f"  segmentations.tgz ({size:,} bytes; optional) from {server.address}/segm")
    assert lines[3].endswith("terms: " + CUB.archives[2].terms)
    assert {"train images: 60", "test images: 20"} <= set(lines)
    assert lines[-1] == (
        "next: mmbench evaluate method=identity data=cub data.source=real data.module.complete=false "
        "data.module.num_workers=0"
    )
    assert _pictures(root) == _pictures(toy_root)
    data = CUB(
        root=root, assets=assets, split_scheme="zero_shot", image_size=32, batch_size=4, num_workers=0, seed=0,
        complete=False,
    )  # fmt: skip
    assert data.checked()["archives"].keys() == {archive.file for archive in CUB.archives}
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 32, 32)

    count, stamps = len(server.asked), _stamps(root)
    assert _said(capsys) == [f"cub is here and checked: 60 train, 20 test images in {root}"]
    assert len(server.asked) == count == 3
    assert _stamps(root) == stamps


def test_interrupted_it_goes_on(server, assets, capsys):
    server.cut["/CUB_200_2011.tgz"] = 100_000
    with pytest.raises(MissingAsset, match="could not fetch it"):
        prepare.main(WORDS)
    server.cut.clear()
    assert "train images: 60" in _said(capsys)
    assert [asked.range for asked in server.asked if asked.path == "/CUB_200_2011.tgz"][-1] == "bytes=100000-"
    assert server.sent("/CUB_200_2011.tgz") == CUB.archives[0].size


def test_without_an_optional_archive(server, assets, capsys):
    del server.files["/segmentations.tgz"]
    lines = _said(capsys)
    assert any(re.match(r"without it: expected segmentations.tgz .*404", line) for line in lines)
    assert "train images: 60" in lines


def test_archives_from_a_mirror(server, assets, toy_root, capsys):
    mirror = toy_root / "archives"
    stamps = _stamps(mirror)
    lines = _said(capsys, f"paths.mirror={mirror}")
    assert f"from {mirror}/CUB_200_2011.tgz; terms:" in lines[1]
    assert "train images: 60" in lines
    assert server.asked == []
    assert _stamps(mirror) == stamps


def test_a_folder_of_ones_own_is_checked_and_never_changed(server, assets, toy_root, tmp_path, capsys):
    own = _unpacked(toy_root, tmp_path / "mine" / "birds")
    stamps = _stamps(own.parent)
    for path in [own, *own.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    lines = _said(capsys, f"data.root={own}", "verify=full")
    assert lines[0] == f"folder: {own}"
    assert lines[-1].endswith(f"data.root={own}")
    assert _said(capsys, f"data.root={own}") == [f"cub is here and checked: 60 train, 20 test images in {own}"]
    assert _stamps(own.parent) == stamps
    for path in [own, *own.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(own / "text_c10")
    stamps = _stamps(own.parent)
    with pytest.raises(MissingAsset, match=f"expected text_c10 in {own}, found none"):
        prepare.main([*WORDS, f"data.root={own}"])
    assert _stamps(own.parent) == stamps
    assert server.asked == []


def test_all_images_are_decoded_where_that_is_asked_for(server, assets, toy_root, capsys):
    _said(capsys)
    root = assets / "data" / "cub"
    damaged = sorted(root.rglob("*.jpg"))[7]
    damaged.write_bytes(bytes(damaged.stat().st_size))
    assert len(_said(capsys)) == 1  # nothing has changed that can be seen without reading
    with pytest.raises(ValueError, match=f"{re.escape(str(damaged))}: expected a whole image") as error:
        prepare.main([*WORDS, "verify=full"])
    assert "\n" not in str(error.value)


def test_a_wrong_archive_ends_in_one_line(server, assets, monkeypatch, capsys):
    monkeypatch.setattr(CUB, "archives", (replace(CUB.archives[0], sha256="00" * 32), *CUB.archives[1:]))
    from mmbench.__main__ import main

    monkeypatch.setattr(sys, "argv", ["mmbench", "prepare", *WORDS])
    with pytest.raises(SystemExit, match="1"):
        main()
    lines = capsys.readouterr().err.splitlines()
    assert re.match(r"mmbench: error: http.*/CUB_200_2011.tgz: expected sha256 0000.*, found ", lines[-1])
    assert [path for path in (assets / "data").rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_statistics_are_printed_where_they_are_asked_for(server, assets, monkeypatch, capsys):
    module = ModuleType("mmbench.data.statistics")
    module.report = lambda data: f"table of {len(data.split('train'))} images"
    monkeypatch.setitem(sys.modules, "mmbench.data.statistics", module)
    assert _said(capsys, "stats=true")[-2] == "table of 60 images", "before the next step"
    lines = _said(capsys, "stats=true")
    assert len(lines) == 2
    assert lines[-1] == "table of 60 images"


def test_toy_data_are_packed_and_unpacked_as_the_real_ones(assets, capsys):
    words = ["data=cub", "data.source=toy", "data.toy_images=40"]
    assert prepare.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    root = assets / "data" / "cub-toy-40-s0"
    assert "train images: 30" in lines
    assert {path.name for path in (root / "archives").iterdir()} == {
        name for archive in CUB.archives for name in (archive.file, f"{archive.file}.receipt.json")
    }
    for archive in CUB.archives:
        known = receipts(root)[archive.file]
        assert checked(replace(archive, size=known["size"], md5=None, sha256=known["sha256"]),
                       root / "archives" / archive.file, root).sha256 == known["sha256"]  # fmt: skip
    stamps = _stamps(root)
    assert prepare.main(words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert _stamps(root) == stamps


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"expected data=NAME, found none: choose from .*cub"):
        prepare.main([])
    with pytest.raises(ValueError, match="expected verify=quick or full, found 'half'"):
        prepare.main([*WORDS, "verify=half"])
    with pytest.raises(ValueError, match="expected stats=false or true, found 'yes'"):
        prepare.main([*WORDS, "stats=yes"])
    for option in ("data.root=", "paths.mirror=", "verify=", "stats=true", "data.source="):
        assert option in prepare.HELP
