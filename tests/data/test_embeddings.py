"""Published embeddings come as a field of their images' captions, from either publication, and fit no other images."""

import pickle

import numpy as np
import pytest
import torch
from torch7 import python2_pickle, t7

from mmbench.core import config, hashing
from mmbench.core.noise import Sample, random_stream
from mmbench.core.pickles import read_arrays
from mmbench.data.oxford102 import ToyOxford102
from mmbench.methods.synthesis.published_embeddings import PublishedEmbeddings

DIM = 6
PICKLE = "char-CNN-RNN-embeddings.pickle"


def vectors_of(name, count=10, dim=DIM, kind="float32"):
    return random_stream(name).standard_normal((count, dim), dtype=kind)


def write_pickles(root, splits, make=vectors_of):
    """StackGAN's layout: split to names of images."""
    for split, names in splits.items():
        (root / split).mkdir(parents=True)
        (root / split / "filenames.pickle").write_bytes(pickle.dumps(list(names), 0))
        (root / split / PICKLE).write_bytes(python2_pickle([make(name) for name in names]))
    return root


def write_files(root, names, make=vectors_of):
    """Layout of ICML 2016: a file for each image."""
    for name in names:
        path = root / f"{name}.t7"
        path.parent.mkdir(parents=True, exist_ok=True)
        char = np.zeros((201, 10))
        path.write_bytes(t7({"img": f"{name}.jpg", "char": char, "txt": make(name)}))
    return root


def ids(data, split=None):
    return [record.id for name, records in data.records.items() for record in records if split in (None, name)]


@pytest.fixture
def pickles(toy, tmp_path):
    data = toy()
    # As published, the order is none, and images of the other split are where the official split has them.
    return write_pickles(tmp_path / "birds", {split: ids(data, split)[::-1] for split in ("train", "test")})


@pytest.fixture
def files(toy, tmp_path):
    return write_files(tmp_path / "cub_icml", ids(toy()))


def refused(make, pattern):
    with pytest.raises(ValueError, match=pattern) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pickles", "files"])
def test_each_caption_comes_with_its_own_vector(toy, kind, request):
    data = toy(embeddings=request.getfixturevalue(kind), split_scheme="official")
    samples = [Sample(name, caption, 0) for name in ids(data, "test")[:2] for caption in (0, 9)]
    items = data.evaluation("test", samples, seed=0, fields={"text_embedding", "caption"})
    for item, sample in zip((items[place] for place in range(4)), samples, strict=True):
        assert torch.equal(item["text_embedding"], torch.from_numpy(vectors_of(sample.id)[sample.caption]))
    data.training_fields = frozenset({"text_embedding"})
    batch = next(iter(data.train_dataloader()))
    expected = np.stack([vectors_of(sample.id)[sample.caption] for sample in batch["sample"]])
    assert torch.equal(batch["text_embedding"], torch.from_numpy(expected))


def test_flowers_go_by_the_names_of_either_publication(tmp_path):
    plain = {"split_scheme": "zero_shot", "image_size": 32, "batch_size": 4, "num_workers": 0, "seed": 0}
    common = {"root": tmp_path / "flowers", "assets": tmp_path, "num_images": 102, "toy_seed": 0, **plain}
    data = ToyOxford102(**common)
    data.make()
    records = [record for found in data.records.values() for record in found]
    in_pickles = [f"jpg/{one.id}" for one in records]
    in_files = [f"class_{one.class_id:05d}/{one.id}" for one in records]
    pickles = write_pickles(tmp_path / "pickled", {"": in_pickles})
    for root, names in ((pickles, in_pickles), (write_files(tmp_path / "flowers_icml", in_files), in_files)):
        embedded = ToyOxford102(**common, embeddings=root)
        wanted = {record.id: name for record, name in zip(records, names, strict=True)}
        samples = [Sample(record.id, 3, 0) for record in embedded.split("test")]
        items = embedded.evaluation("test", samples, seed=0, fields={"text_embedding"})
        for item, sample in zip((items[place] for place in range(len(samples))), samples, strict=True):
            assert torch.equal(item["text_embedding"], torch.from_numpy(vectors_of(wanted[sample.id])[3]))


def test_there_is_no_field_without_them_and_they_are_part_of_what_the_data_are(toy, pickles):
    without, given = toy(), toy(embeddings=pickles)
    assert "text_embedding" not in without.fields
    assert "text_embedding" in given.fields
    assert without.fingerprint() != given.fingerprint()
    words = ["method=ganintcls", "protocol=strict_synthesis", "data.source=toy"]
    plain, elsewhere = config.composed(words), config.composed([*words, f"data.module.embeddings={pickles}"])
    assert hashing.config_hash(plain["data"]) == hashing.config_hash(elsewhere["data"]), (
        "where they lie is no part of it"
    )


def test_a_text_encoder_of_them_gives_captions_their_vectors_and_knows_no_other_text(toy, files):
    data = toy(embeddings=files)
    stage = PublishedEmbeddings(data.caption_embeddings())
    assert stage.embedding_dim == DIM
    record = data.split("train")[0]
    seen = {}
    for split in data.records.values():
        for one in split:
            for number, text in enumerate(one.captions):
                seen.setdefault(text, []).append(vectors_of(one.id)[number])
    for text, vector in zip(record.captions, stage.encode_text(list(record.captions)), strict=True):
        assert any(np.array_equal(vector.numpy(), known) for known in seen[text])
    refused(lambda: stage.encode_text(["no such caption"]), "expected captions of the data set, .* 'no such caption'")


def test_toy_captions_have_stand_ins_and_real_ones_none(toy, real_copy, read):
    stage = PublishedEmbeddings(toy().caption_embeddings())
    one, other = stage.encode_text(["a red bird", "a blue bird"])
    assert torch.equal(one, stage.encode_text(["a red bird"])[0])
    assert not torch.equal(one, other)
    refused(lambda: stage.encode_text(["!"]), "expected texts of a word or more, found '!'")
    refused(read(real_copy).caption_embeddings, "expected published embeddings of the captions, found none")


@pytest.mark.parametrize("kind", ["pickles", "files"])
def test_embeddings_of_other_images_are_one_line(toy, tmp_path, kind):
    names = [f"{name}_other" for name in ids(toy())]
    root = tmp_path / "other"
    if kind == "pickles":
        write_pickles(root, {"train": names})
    else:
        write_files(root, names)
    refused(lambda: toy(embeddings=root).records, r"other: expected embeddings of \S+, found those of 80 other images")


@pytest.mark.parametrize(
    ("odd", "found"),
    [
        ({"dim": 5}, "10 x 5 of float32"),
        ({"count": 4}, "4 x 6 of float32"),
        ({"kind": "float64"}, None),
    ],
    ids=["dimension", "captions", "double"],
)
@pytest.mark.parametrize("kind", ["pickles", "files"])
def test_vectors_of_another_dimension_or_number_are_one_line(toy, tmp_path, kind, odd, found):
    names = ids(toy())
    last = ids(toy(), "train")[-1]

    def make(name):
        return vectors_of(name, **(odd if name == last else {}))

    root = tmp_path / "odd"
    if kind == "pickles":
        write_pickles(root, {"train": names}, make)
    else:
        write_files(root, names, make)
    data = toy(embeddings=root)
    items = data.evaluation("train", [Sample(last, 2, 0)], seed=0, fields={"text_embedding"})
    if found is None:
        assert items[0]["text_embedding"].dtype == torch.float32
    else:
        refused(lambda: items[0], f"expected embeddings of {last} as 10 x 6 finite numbers, .*found {found}")


def test_lists_and_arrays_that_do_not_fit_and_empty_folders_are_one_line(toy, pickles, tmp_path):
    names = ids(toy(), "test")
    (pickles / "test" / "filenames.pickle").write_bytes(pickle.dumps(names[1:], 0))
    refused(lambda: toy(embeddings=pickles).records, "expected embeddings of the 19 images .* found those of 20")
    refused(lambda: toy(embeddings=tmp_path / "none").records, f"none: expected {PICKLE} .* found neither")
    (pickles / "test" / "filenames.pickle").unlink()
    refused(lambda: toy(embeddings=pickles).records, r"filenames\.pickle: expected .* found no file")
    broken = tmp_path / "broken" / f"{names[0]}.t7"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(t7({"img": "a.jpg"}))
    published = toy(embeddings=broken.parents[1]).published
    refused(lambda: published.dim, "expected a table with a tensor `txt`, found none")


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_pickled_arrays_of_python_2_come_back(tmp_path, kind):
    arrays = [vectors_of("a", kind=kind), vectors_of("b", count=2, kind=kind)]
    (tmp_path / "arrays").write_bytes(python2_pickle(arrays))
    found = read_arrays(tmp_path / "arrays")
    assert [one.shape for one in found] == [(10, 6), (2, 6)]
    assert all(np.allclose(one, other) for one, other in zip(found, arrays, strict=True))


class Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return open, (str(self.victim), "w")


def test_pickles_of_arrays_run_nothing_and_hold_nothing_else(tmp_path):
    path, victim = tmp_path / "file.pickle", tmp_path / "victim"
    shorter = python2_pickle([vectors_of("a")]).replace(b"J\n\x00\x00\x00", b"J\x0b\x00\x00\x00", 1)
    strangers = {
        "the name .*open": pickle.dumps([Malicious(victim)], 2),
        "a value of type str": pickle.dumps(["a"], 2),
        "an array of 'O'": python2_pickle([np.array([None])]),
        r"60 numbers for an array of \(11, 6\)": shorter,
    }
    for found, content in strangers.items():
        path.write_bytes(content)
        refused(lambda: read_arrays(path), f"expected a pickle of a list of arrays .*, found {found}")
    assert not victim.exists()


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def spoilt_last(kind, names):
    """Names of published embeddings, and what makes those of an image: the last image's are missing, or others."""
    spoilt = {"dimension": {"dim": 5}, "captions": {"count": 4}}.get(kind, {})

    def make(name):
        return vectors_of(name, **(spoilt if name == names[-1] else {}))

    return names[:-1] if kind == "image" else names, make


SPOILT = [
    ("dimension", "expected embeddings of {last} as 10 x 6 finite numbers, a row for each caption, found 10 x 5 of"),
    ("captions", "expected embeddings of {last} as 10 x 6 finite numbers, a row for each caption, found 4 x 6 of"),
    ("image", "expected embeddings of {last}, found those of 79 other images: name the folder"),
    ("truncated", "expected a {format}, found "),
]


@pytest.mark.parametrize(("kind", "said"), SPOILT, ids=[kind for kind, _ in SPOILT])
@pytest.mark.parametrize("publication", ["pickles", "files"])
def test_one_image_of_spoilt_embeddings_is_one_line_before_anything_is_made(toy, tmp_path, publication, kind, said):
    names = ids(toy())
    root = tmp_path / "published"
    given, make = spoilt_last(kind, names)
    if publication == "pickles":
        write_pickles(root, {"": given}, make)
        spoilt = root / PICKLE
    else:
        write_files(root, given, make)
        spoilt = root / f"{names[-1]}.t7"
    if kind == "truncated":
        truncated(spoilt)
    form = "pickle of a list of arrays of floating-point numbers" if publication == "pickles" else "file of Torch7"
    refused(toy(embeddings=root, assets=tmp_path).prepare_data, said.format(last=names[-1], format=form))
