"""DAMSM as a judge: files in the authors' layout give the encoders' own embeddings, and `sim` their cosine."""

import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from mmbench.core import composition, config, construction
from mmbench.core.cards import MissingAsset
from mmbench.core.files import sha256_file, sha256_json
from mmbench.core.images import from_uint8
from mmbench.metrics.sim import Sim
from mmbench.metrics.suite import build_suite
from mmbench.networks.damsm import ImageEncoder, TextEncoder
from mmbench.networks.toy import ToyInceptionTrunk
from mmbench.pipeline.experiment_files import load

WORDS = ["<end>", "red", "a", "bird", "with", "wings", "blue", "belly", "yellow", "and"]
TEXTS = ["A bird with red wings.", "a BLUE bird, with a yellow belly and red wings", "unknown yellow"]
NODE = {
    "_target_": "mmbench.metrics.features.Extractor",
    "name": "damsm",
    "network": {
        "_target_": "mmbench.networks.damsm_space.DAMSMSpace",
        "trunk": {"_target_": "mmbench.networks.toy.ToyInceptionTrunk"},
        "embedding_dim": 6,
        "token_dim": 5,
        "max_words": 7,
    },
    "card": {
        part: {"file": f"{part}.bin", "sha256": None, "origin": "a test", "licence": "none"}
        for part in ("vocabulary", "text_encoder", "image_encoder")
    },
}


NAMES = {"embedding": "encoder", "lstm": "rnn", "project_regions": "emb_features", "project_image": "emb_cnn_code"}


def captions_pickle(words):
    """AttnGAN's file: captions of both splits, and the words by number and the numbers by word."""
    index = dict(enumerate(words))
    return pickle.dumps([[[1]], [[2]], index, {word: number for number, word in index.items()}], protocol=2)


class Encoders:
    """DAMSM's two networks with random weights, and the files that its authors would have published."""

    def __init__(self, folder):
        torch.manual_seed(0)
        self.texts = TextEncoder(len(WORDS), 6, 5).eval()
        self.images = ImageEncoder(ToyInceptionTrunk(), 6).eval()
        folder.mkdir(parents=True)
        (folder / "vocabulary.bin").write_bytes(captions_pickle(WORDS))
        for part, network in (("text_encoder", self.texts), ("image_encoder", self.images)):
            state = {
                ".".join(NAMES.get(name, name) for name in key.split(".")): value
                for key, value in network.state_dict().items()
            }
            torch.save(state, folder / f"{part}.bin")

    @torch.no_grad()
    def sentence(self, text):
        """One text alone, its words looked up by hand."""
        words = [WORDS.index(word) for word in text.lower().replace(",", "").replace(".", "").split() if word in WORDS]
        return self.texts(torch.tensor([words]), torch.tensor([len(words)])).sentence[0]


@pytest.fixture
def encoders(tmp_path):
    return Encoders(tmp_path / "weights")


@pytest.fixture
def damsm(encoders, tmp_path):
    return construction.construct(NODE, assets=tmp_path)


def test_texts_and_images_get_the_encoders_global_vectors(damsm, encoders, pixels):
    short = [TEXTS[0], TEXTS[2]]
    expected = torch.stack([encoders.sentence(text) for text in short])
    torch.testing.assert_close(damsm(short)["embedding"], expected)
    images = pixels(3, size=64)
    with torch.no_grad():
        expected = encoders.images(from_uint8(images)).code
    torch.testing.assert_close(damsm(images)["embedding"], expected)
    assert not torch.allclose(expected[0], expected[1])


def test_a_long_text_keeps_the_same_words_in_any_batch(damsm):
    together = damsm(TEXTS)["embedding"]
    assert torch.equal(together[1], damsm([TEXTS[1]])["embedding"][0])
    assert damsm.network.vocabulary.encode(TEXTS[1], 7) != damsm.network.vocabulary.encode(TEXTS[1], 99)


def test_sim_is_the_cosine_of_sentence_and_image(damsm, encoders, pixels, batch_of):
    images = pixels(2, size=64)
    metric = Sim(damsm)
    prompts = [TEXTS[0], TEXTS[2]]
    metric.update(images, batch_of(images, prompt=prompts))
    with torch.no_grad():
        codes = encoders.images(from_uint8(images)).code.double()
    cosines = [float(F.cosine_similarity(codes[n], encoders.sentence(prompts[n]).double(), dim=0)) for n in range(2)]
    score = metric.compute()
    assert math.isclose(score.value, sum(cosines) / 2, rel_tol=1e-5)
    assert score.count == 2


def test_the_record_carries_the_hash_of_all_its_files(damsm, tmp_path):
    parts = {part: sha256_file(tmp_path / f"weights/{part}.bin") for part in NODE["card"]}
    assert damsm.weights_sha256 == sha256_json(parts)


def test_a_vocabulary_of_another_size_is_refused(encoders, tmp_path):
    (tmp_path / "weights/vocabulary.bin").write_bytes(captions_pickle(WORDS[:-1]))
    with pytest.raises(ValueError, match=r"text_encoder\.bin: .*embedding\.weight has shape \(10, .* instead of \(9, "):
        construction.construct(NODE, assets=tmp_path)


def test_a_text_of_unknown_words_is_refused(damsm):
    with pytest.raises(ValueError, match="expected captions of known words, found none in caption 1"):
        damsm([TEXTS[0], "zebra"])


@pytest.mark.parametrize(("data", "words"), [("cub", 25), ("coco", 20)])
def test_the_published_encoders_are_those_that_manigan_stands_on(data, words, tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("mmbench.core.cards.download", refused)
    official = config.composed(["method=damsm"])["method"]["official"][data]
    node = composition.node(f"network/damsm/{data}")
    assert node["card"] == official
    assert node["network"]["max_words"] == words
    metrics = {"sim": {"_target_": "mmbench.metrics.sim.Sim", "extractor": "damsm"}}
    with pytest.raises(MissingAsset, match=r"expected \w+/captions\.pickle of manigan/data/.*put it there"):
        build_suite(metrics, {"damsm": node}, tmp_path)


def test_two_names_of_one_network_are_one(encoders, tmp_path):
    nodes = {"damsm": NODE, "again": NODE, "other": {**NODE, "name": "other"}}
    metrics = {name: {"_target_": "mmbench.metrics.sim.Sim", "extractor": name} for name in nodes}
    suite = build_suite(metrics, nodes, tmp_path).metrics
    assert suite["damsm"].extractor is suite["again"].extractor
    assert suite["damsm"].extractor is not suite["other"].extractor


@pytest.mark.parametrize(
    ("data", "source", "names"),
    [
        ("cub", "real", {"IS": "is@inception-cub", "sim": "sim@damsm", "MP": "mp@damsm"}),
        ("cub", "toy", {"IS": "is@toy", "sim": "sim@toy", "MP": "mp@toy"}),
        ("coco", "real", {"IS": "is@standard", "sim": "sim@damsm", "MP": "mp@damsm"}),
    ],
)
def test_manigans_table_is_scored_under_the_names_that_its_experiment_expects(data, source, names):
    words = ["method=identity", "protocol=manigan", f"data={data}", f"data.source={source}"]
    protocol = config.composed(words)["protocol"]
    experiment = load("manigan")
    row = next(row for row in experiment.rows if row.data == data)
    for published, name in names.items():
        assert experiment.metric(published, row, source) == name
        metric = protocol["metrics"][name.partition("@")[0]]
        assert protocol["extractors"][metric["extractor"]]["name"] == name.partition("@")[2]
