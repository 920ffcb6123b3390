"""Published weights: archives and hashes, and the whole path from files in the authors' layout to a record."""

import hashlib
import pickle
import re
import stat
import sys
import threading
import zipfile
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import torch

from mmbench.core import catalogue, config
from mmbench.core.cards import Card, MissingAsset, find
from mmbench.core.files import sha256_file
from mmbench.core.images import read_rgb
from mmbench.core.noise import Noise
from mmbench.core.text import tokenise
from mmbench.data.cub import CUB
from mmbench.data.toy import birds as toy_birds
from mmbench.data.toy import cub as toy_cub
from mmbench.networks.damsm import IMAGE_ENCODER, TEXT_ENCODER, ImageEncoder, TextEncoder
from mmbench.networks.inception_v3 import InceptionV3Trunk
from mmbench.networks.manigan import DETAIL_CORRECTION, MAIN_MODULE, DetailCorrection, MainModule
from mmbench.networks.vgg import VGG16, vgg16_keys
from mmbench.pipeline import assembly, evaluation, generation

PARITY = Path(__file__).parent / "parity"
sys.path.insert(0, str(PARITY))

import paritykit  # noqa: E402

CONF = catalogue.shipped("conf")


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    monkeypatch.setenv("MMBENCH_DOWNLOAD", "yes")


@pytest.fixture
def archive(tmp_path):
    """Writes a zip archive below tmp_path/weights and returns its card."""

    def write(members, member="inner/net.pth", sha256=None):
        path = tmp_path / "weights" / "pack" / "net.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for name, content in members.items():
                target.writestr(name, content)
        return Card("pack/net.zip", sha256, "ask the authors", "none", member)

    return write


def test_a_member_is_unpacked_beside_its_archive_and_nothing_else(archive, tmp_path):
    card = archive({"inner/net.pth": b"weights", "inner/other.pth": b"more", "../outside": b"evil"})
    path = find(card, tmp_path)
    assert path == tmp_path / "weights/pack/inner/net.pth"
    assert path.read_bytes() == b"weights"
    files = {path.name for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")}
    assert files == {"net.zip", "net.pth", "net.pth.sha256"}
    (tmp_path / "weights/pack/net.zip").unlink()
    assert find(card, tmp_path) == path, "what is unpacked needs its archive no more"


def test_a_member_put_there_by_hand_needs_no_archive(tmp_path):
    path = tmp_path / "weights/pack/inner/net.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert find(Card("pack/net.zip", None, "http://127.0.0.1:9", "none", "inner/net.pth"), tmp_path) == path


@pytest.mark.parametrize("member", ["../net.pth", "/net.pth", "inner/../../net.pth", "..\\net.pth", ""])
def test_a_member_never_leads_out_of_its_folder(member):
    with pytest.raises(ValueError, match=r"expected a member inside pack/net\.zip, found"):
        Card("pack/net.zip", None, "none", "none", member)


def test_an_archive_without_the_member_says_what_it_holds(archive, tmp_path):
    card = archive({f"models/{n}.pth": b"" for n in range(7)})
    with pytest.raises(
        ValueError, match=r"found models/0\.pth, .*models/4\.pth and 2 more: remove it to .* put the file at"
    ):
        find(card, tmp_path)


def test_an_archive_that_is_none_or_damaged_leaves_nothing(archive, tmp_path):
    card = archive({"inner/net.pth": b"weights" * 1000})
    path = tmp_path / "weights/pack/net.zip"
    content = path.read_bytes()
    damaged = content.replace(content[60:70], b"0123456789")
    for broken in (damaged, content[: len(content) // 2], b"no archive"):
        path.write_bytes(broken)
        with pytest.raises(
            ValueError, match=r"net\.zip: expected a zip archive with inner/net\.pth, found .*: remove it"
        ):
            find(card, tmp_path)
        assert not list(tmp_path.rglob("net.pth"))


def test_a_member_that_is_a_link_is_no_file(archive, tmp_path):
    link = zipfile.ZipInfo("inner/net.pth")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    card = archive({link: b"/etc/hostname"})
    with pytest.raises(ValueError, match=r"net\.zip: expected inner/net\.pth in it, found nothing: remove it"):
        find(card, tmp_path)
    assert not list(tmp_path.rglob("net.pth"))


def test_a_member_larger_than_any_weights_is_refused(archive, tmp_path, monkeypatch):
    card = archive({"inner/net.pth": bytes(2000)})
    monkeypatch.setattr("mmbench.core.cards.MAX_MEMBER", 1999)
    with pytest.raises(ValueError, match=r"expected at most 1999 bytes in inner/net\.pth, found 2000"):
        find(card, tmp_path)
    assert not list(tmp_path.rglob("net.pth"))


def test_the_hash_of_a_card_is_that_of_the_member(archive, tmp_path):
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert find(archive({"inner/net.pth": b"weights"}, sha256=sha256), tmp_path).read_bytes() == b"weights"
    (tmp_path / "weights/pack/inner/net.pth").unlink()
    with pytest.raises(ValueError, match=f"expected sha256 {sha256}, found"):
        find(archive({"inner/net.pth": b"other"}, sha256=sha256), tmp_path)


def test_a_hash_that_nobody_published_is_the_first_one_seen(tmp_path):
    path = tmp_path / "weights/net.pth"
    path.parent.mkdir()
    path.write_bytes(b"first")
    card = Card("net.pth", None, "ask the authors", "none")
    assert find(card, tmp_path) == path
    record = tmp_path / "weights/net.pth.sha256"
    assert record.read_text() == f"{hashlib.sha256(b'first').hexdigest()}  net.pth\n"
    assert find(card, tmp_path) == path
    path.write_bytes(b"second")
    with pytest.raises(
        ValueError, match=r"recorded in net\.pth\.sha256 at its first use, found .*: put the first"
    ) as error:
        find(card, tmp_path)
    assert "\n" not in str(error.value)
    record.unlink()
    assert find(card, tmp_path) == path, "a person decides"


def method_names():
    return [
        path.stem
        for path in sorted((CONF / "method").glob("*.yaml"))
        if re.search(r"^official:$|@official\.", path.read_text(), re.MULTILINE)
    ]


@pytest.mark.parametrize("method", method_names())
def test_a_card_exists_for_every_key_map_and_a_key_map_for_every_card(method):
    content = config.composed([f"method={method}"])["method"]
    module, _, name = content["module"]["_target_"].rpartition(".")
    maps = getattr(__import__(module, fromlist=[name]), name).official
    for data, cards in content["official"].items():
        assert cards.keys() - {"vocabulary"} == maps.keys(), data
        # TAGAN takes words from the data to choose vectors by; their order is nobody's, and no card says it.
        assert ("vocabulary" in cards) == ("vocabulary" in content.get("from_data", []) and method != "tagan")
        found = [Card(**card) for card in cards.values()]
        assert len({(card.path("x"), card.prefix) for card in found}) == len(cards)


@pytest.mark.parametrize("method", ["damsm", "manigan_main", "manigan"])
def test_networks_have_the_size_that_was_published_for_coco(method, conf):
    (conf.folder / "data/coco.yaml").write_text(
        (conf.folder / "data/cub.yaml").read_text().replace("name: cub", "name: coco")
    )
    cub, coco = (config.composed([f"method={method}", f"data={data}"])["method"] for data in ("cub", "coco"))
    if method == "damsm":
        assert (cub["module"]["max_words"], coco["module"]["max_words"]) == (18, 15)
        return
    for composed, layout in ((cub, "full-layout"), (coco, "coco-full-layout")):
        part = "generator" if method == "manigan_main" else "dcm"
        published = paritykit.load(PARITY / f"fixtures/manigan/{part}-{layout}.json")["config"]
        assert composed["module"]["width"] == published["GF_DIM"]
        assert composed["module"]["num_residual"] == published["R_NUM"]
        assert composed["module"]["discriminator_width"] == published["DF_DIM"]
    assert (coco["module"]["max_words"], coco["module"]["max_prompt_words"]) == (12, 20)
    assert cub["official"]["cub"] == coco["official"]["cub"]


@cache
def layout(name):
    """The authors' state dict of a fixture, which nobody may change."""
    return paritykit.weights(paritykit.load(PARITY / f"fixtures/{name}.json"))


def text_encoder(num_words):
    fixture = paritykit.load(PARITY / "fixtures/damsm/text-encoder.json")
    fixture["state"][0][1] = [num_words, 300]
    return paritykit.weights(fixture)


def captions_pickle(captions):
    """AttnGAN's file as Python 2 wrote it, in an order of words that is not ours: 5,450 of them."""
    words = ["<end>", *sorted({word for caption in captions for word in caption}, reverse=True)]
    words += [f"pad{n}" for n in range(5450 - len(words) - 1)] + ["caf\xe9"]
    names = dict(enumerate(words))
    content = pickle.dumps([[[1, 2]], [[3]], names, {word: index for index, word in names.items()}], protocol=2)
    # Python 3 pickles text as BINUNICODE; Python 2's str is SHORT_BINSTRING, one byte for each letter.
    for word in words:
        utf8, latin1 = word.encode(), word.encode("latin1")
        content = content.replace(
            b"X" + len(utf8).to_bytes(4, "little") + utf8, b"U" + len(latin1).to_bytes(1, "little") + latin1
        )
    assert b"X\x05\x00\x00\x00" not in content
    return content


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder of the authors' files as they would be fetched: full width, their keys, old formats, two archives."""
    folder = tmp_path_factory.mktemp("published")

    def saved(name, state, **options):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, folder / name, **options)

    toy_cub.write(folder / "birds", seed=3, num_images=40)
    lines = [line for path in (folder / "birds/text_c10").rglob("*.txt") for line in path.read_text().splitlines()]
    old = {"_use_new_zipfile_serialization": False}
    image_encoder, main = (
        {key: value for key, value in layout(name).items() if not key.endswith("num_batches_tracked")}
        for name in ("damsm/image-encoder-eval", "manigan/generator-full-layout")
    )
    saved("bird/text_encoder.pth", text_encoder(5450), **old)
    saved("bird/image_encoder.pth", image_encoder, **old)
    saved("main.pth", {f"module.{key}": value for key, value in main.items()}, **old)
    saved("dcm.pth", layout("manigan/dcm-full-layout"))
    vgg = layout("manigan/vgg-features")
    saved("vgg.pth", {key.replace("vgg.", "features."): vgg[key] for key in list(vgg)[:8]})
    with zipfile.ZipFile(folder / "encoders.zip", "w") as target:
        for name in ("text_encoder", "image_encoder"):
            target.write(folder / f"bird/{name}.pth", f"bird/{name}.pth")
    with zipfile.ZipFile(folder / "metadata.zip", "w") as target:
        target.writestr("birds/captions.pickle", captions_pickle([tokenise(line) for line in lines]))
    yield folder
    layout.cache_clear()


class Counting(SimpleHTTPRequestHandler):
    """Serves a folder and remembers what was asked for."""

    requests: list[str]

    def do_GET(self):
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


ORIGINS = {
    "damsm": {"vocabulary": "metadata.zip", "text_encoder": "encoders.zip", "image_encoder": "encoders.zip"},
    "manigan_main": {"ema.average": "main.pth"},
    "manigan": {"ema.average": "dcm.pth"},
}
PROTOCOL = """# One image, pixels only
defaults:
  - /metric@metrics.l1: l1
  - /metric@metrics.diff: diff
  - _self_
name: pixels
task: text-guided editing
split: test
captions_per_image: 1
draws: 1
count: 1
seed: 0
reference: test
extractors: {}
"""


@pytest.fixture
def served(published, conf, monkeypatch):
    """The cards as they are but for their origin, a server on this machine; gives its log of requests.

    Discriminators, which play no part in an edit, are small.
    """
    monkeypatch.setenv("NO_PROXY", "*")
    asked = []
    handler = type("Handler", (Counting,), {"requests": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(published))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for method, files in ORIGINS.items():
            cards = {part: {"origin": f"{address}/{file}"} for part, file in files.items()}
            module = {} if method == "damsm" else {"discriminator_width": 4}
            conf.change(f"method/{method}", {"official": {"cub": cards}, "module": module})
        sha256 = sha256_file(published / "vgg.pth")
        conf.change("network/vgg/standard", {"card": {"sha256": sha256, "origin": f"{address}/vgg.pth"}})
        (conf.folder / "protocol/pixels.yaml").write_text(PROTOCOL)
        yield asked
        server.shutdown()


@pytest.fixture
def words(published, home, monkeypatch):
    """A command line for toy birds that pass for photographs, with an empty folder of assets."""
    monkeypatch.setattr(CUB, "test_classes", frozenset(toy_birds.TEST_CLASSES))
    return [
        "data=cub",
        f"data.root={published / 'birds'}",
        "data.module.complete=false",
        "data.module.num_workers=0",
        "trainer=cpu",
        "protocol=pixels",
        "weights=official",
        f"paths.assets={home / 'assets'}",
    ]


def filled(network, keys, state):
    network.load_state_dict(keys(state, network), strict=True)
    return network.eval()


def edited_by_the_networks_alone(item, published):
    """One edit at the published width, without configuration, cards, files or methods: (3, 256, 256), 0 to 255."""
    with (published / "metadata.zip").open("rb") as file, zipfile.ZipFile(file) as held:
        _, _, _, index = pickle.loads(held.read("birds/captions.pickle"), encoding="latin1")
    tokens = [index[word] for word in re.findall(r"[a-z]+", item["caption_mismatched"].lower())]
    assert 0 < len(tokens) <= 18
    texts = filled(TextEncoder(5450), TEXT_ENCODER, text_encoder(5450))
    images = filled(ImageEncoder(InceptionV3Trunk()), IMAGE_ENCODER, layout("damsm/image-encoder-eval"))
    main = filled(MainModule(32, 256, 100, 100, 2), MAIN_MODULE, layout("manigan/generator-full-layout"))
    correction = filled(DetailCorrection(32, 256, 256, 128, 2), DETAIL_CORRECTION, layout("manigan/dcm-full-layout"))
    vgg = filled(VGG16(), vgg16_keys(), layout("manigan/vgg-features"))
    noise = Noise(0, [item["sample"]])
    with torch.no_grad():
        text = texts(torch.tensor([tokens]), torch.tensor([len(tokens)]))
        image = item["image"][None]
        regions, code = images(image)
        output = main(
            noise.normal("z", 100), noise.normal("eps", 100), text.sentence, text.words, text.word_mask, code, regions
        )
        edited = correction(output.hidden, text.words, text.word_mask, vgg(image))[0]
    return ((edited + 1) * 127.5).round().clamp(0, 255).int()


@pytest.mark.timeout(120)
def test_published_files_are_fetched_and_edit(served, published, words, home):
    cfg = config.composed(["method=manigan", *words])
    record, run = evaluation.evaluate(cfg)
    assert sorted(served) == ["/dcm.pth", "/encoders.zip", "/main.pth", "/metadata.zip", "/vgg.pth"], "each once"
    assert record.weights["choice"] == "official"
    assert record.weights["verified"] is False
    assert record.metrics["l1"]["count"] == 1
    held = {str(path.relative_to(home / "assets/weights")) for path in (home / "assets/weights").rglob("*.sha256")}
    assert held == {
        "manigan/data/birds/captions.pickle.sha256",
        "manigan/DAMSMencoders/bird/text_encoder.pth.sha256",
        "manigan/DAMSMencoders/bird/image_encoder.pth.sha256",
        "manigan/models/bird_Main.pth.sha256",
        "manigan/models/bird_DCM.pth.sha256",
    }, "VGG's is on its card"
    for item in run.items(run.samples, {"image", "caption_mismatched"}):
        written = read_rgb(run.file(item["sample"])).int()
        wanted = edited_by_the_networks_alone(item, published)
        assert wanted.float().std() > 10, "a picture"
        assert (written - wanted).abs().max() <= 1

    asked = len(served)
    again, _ = evaluation.evaluate(cfg)
    assert len(served) == asked, "nothing is fetched twice"
    assert again == record
    file = home / "assets/weights/manigan/data/birds/captions.pickle"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"expected sha256 .* recorded in captions\.pickle\.sha256"):
        generation.prepared(cfg)


INPAINTERS = {"tdanet": "cub", "picnet": "celeba_hq", "picnet_centre": "celeba_hq"}
NETWORKS = {
    "encoder": "encoder",
    "generator": "generator",
    "discriminator": "discriminator",
    "discriminator_rec": "discriminator",
}


def write_inpainter(folder, authors, cards):
    """The archive of a model, named as its cards say, of the recorded layouts; keys are prefixed as in the authors'."""
    path = folder / Path(cards["encoder"]["file"]).name
    with zipfile.ZipFile(path, "w") as target:
        for part, network in NETWORKS.items():
            state = layout(f"{authors}/{network}-full-layout")
            torch.save({f"module.{key}": value for key, value in state.items()}, folder / "network.pth")
            target.write(folder / "network.pth", cards[part]["member"])
    return path.name


def write_damsm(folder, cards):
    """The archive of TDANet's DAMSM."""
    contents = {
        "text_encoder": layout("tdanet/text-encoder-full-layout"),
        "image_encoder": layout("tdanet/image-encoder-full-layout"),
    }
    with zipfile.ZipFile(folder / "datasets.zip", "w") as target:
        target.writestr(cards["vocabulary"]["member"], captions_pickle([["bird"]]))
        for part, state in contents.items():
            torch.save(state, folder / "network.pth")
            target.write(folder / "network.pth", cards[part]["member"])
    return "datasets.zip"


@pytest.fixture
def loopback(tmp_path):
    """A server of a folder on this machine: the folder, its address and its log of requests."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()
    handler = type("Handler", (Counting,), {"requests": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize("name", INPAINTERS)
def test_archives_of_the_recorded_layouts_fill_inpainters(name, conf, home, loopback, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    (folder, address, asked), data = loopback, INPAINTERS[name]
    methods, archives = [name, *({"damsm_tdanet"} if name == "tdanet" else ())], []
    for one in methods:
        cards = config.composed([f"method={one}", f"data={data}"])["method"]["official"][data]
        archives.append(
            write_damsm(folder, cards) if one == "damsm_tdanet" else write_inpainter(folder, name.split("_")[0], cards)
        )
        origins = {part: {"origin": f"{address}/{archives[-1]}"} for part in cards}
        conf.change(f"method/{one}", {"official": {data: origins}})
    plain = config.composed(
        [f"method={name}", f"data={data}", "data.source=real", "weights=official", f"paths.assets={home / 'assets'}"]
    )
    without_captions = SimpleNamespace(records={}, split=lambda name: [], vocabulary=lambda **told: None)
    method, weights = assembly.built(plain, without_captions)
    assert sorted(asked) == sorted(f"/{archive}" for archive in archives), "each once"
    assert weights["choice"] == "official"
    for part, network in NETWORKS.items():
        state = layout(f"{name.split('_')[0]}/{network}-full-layout")
        given = sum(value.double().sum() for key, value in state.items() if key in names_of_weights(state))
        filled = sum(value.double().sum() for value in method.get_submodule(part).state_dict().values())
        assert float(filled) == pytest.approx(float(given)), part


def names_of_weights(state):
    """The names that count of what is listed under several, and not what follows from others or goes unused."""
    unused = re.compile(r"(.*\.)?(model|shortcut)\.\d+\.module\..*|.*weight_v|attn2\.(alpha|model\..*)")
    return {key for key in state if not unused.fullmatch(key)}


def test_without_a_connection_one_line_says_what_is_missing(words, monkeypatch, conf):
    def refused(**kwargs):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr("gdown.download", refused)
    (conf.folder / "protocol/pixels.yaml").write_text(PROTOCOL)
    with pytest.raises(MissingAsset) as caught:
        generation.prepared(config.composed(["method=manigan", *words]))
    message = str(caught.value)
    for part in (
        "expected birds/captions.pickle of manigan/data/birds.zip",
        "from gdrive:1R01J63Vqzg5463ycIyK_MHI4jXMFCihx",
        "assets/weights/manigan/data/birds/captions.pickle",
        "no route to host",
        "put it there",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("data", ["toy birds", "another data set"])
def test_what_nobody_published_is_said(words, conf, data):
    (conf.folder / "protocol/pixels.yaml").write_text(PROTOCOL)
    (conf.folder / "data/owls.yaml").write_text((conf.folder / "data/cub.yaml").read_text().replace(": cub", ": owls"))
    if data == "toy birds":
        words, found = ["data=cub", "data.source=toy", "data.toy_images=40", "protocol=pixels"], r"cub \(toy\)"
    else:
        words, found = ["data=owls", *words[1:]], r"owls \(real\)"
    with pytest.raises(
        MissingAsset, match=f"expected weights of damsm .* for {found}, found none: use weights=trained"
    ):
        generation.prepared(config.composed(["method=manigan", *words]))
