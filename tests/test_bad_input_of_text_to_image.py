"""Bad input of text to image: data that a method, or a stage before it, cannot be trained on, before any is trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmbench.commands import train
from mmbench.core import config
from mmbench.core.images import read_rgb
from mmbench.data.cub import ToyCUB
from mmbench.losses.matching import sentence_loss, words_loss
from mmbench.losses.ranking import structured_joint_embedding_loss
from mmbench.pipeline import assembly, generation, training

COMPARING = [  # whose losses compare images or captions of a batch, by classes where they have them
    *("damsm", "char_cnn_rnn", "textstylegan", "attngan", "attndcgan", "controlgan", "segan", "tvbigan", "mirrorgan"),
    *("dfgan", "dfgan_two_way", "stackgan", "stackgan_stage1", "stackganpp", "ganintcls", "mirrorgan_stream"),
    "sisgan_embedding",
]
CLASSES = ["damsm", "char_cnn_rnn", "textstylegan"]


def words_of(method, data="cub", *words):
    return [f"method={method}", f"data={data}", "data.source=toy", "data.toy_images=40", "trainer=cpu", *words]


def plain_of(*words):
    return config.composed(["protocol=strict_synthesis", *words])


def refused(home, pattern, plain, data=None):
    """Training says so in one line, and leaves none of a stage behind."""
    with pytest.raises(ValueError, match=pattern) as caught:
        training.trained(plain, data or assembly.prepared_data(plain))
    assert "\n" not in str(caught.value)
    assert not list(home.glob("runs/train/**/log")), "a stage was begun"


@pytest.mark.parametrize(
    ("method", "lacking", "stage"),
    [
        ("char_cnn_rnn", "class_id", None),
        ("textstylegan", "class_id", "damsm"),
        ("ganintcls", "image_mismatched", None),
        ("stackganpp", "image_mismatched", None),
        ("mirrorgan", "captions", "mirrorgan_stream"),
    ],
)
def test_data_without_a_field_are_refused_before_a_stage_is_trained(tiny, home, monkeypatch, method, lacking, stage):
    monkeypatch.setattr(ToyCUB, "fields", ToyCUB.fields - {lacking})
    wanted = f"^expected the fields {lacking} to train {stage or method}, found cub without them: choose another data"
    refused(home, wanted, plain_of(*words_of(method)))


@pytest.mark.parametrize(
    ("method", "data"), [("textstylegan", "coco"), ("textstylegan", "celeba_hq"), ("char_cnn_rnn", "coco")]
)
def test_where_images_have_no_classes_each_is_one(tiny, home, method, data):
    plain = plain_of(*words_of(method, data))
    found = assembly.prepared_data(plain)
    training.require_data(plain, found)
    classes = found.class_ids(splits=["train"])
    assert len(classes) == len(found.split("train"))
    if method == "textstylegan":
        built, _ = assembly.built({**plain, "weights": "none"}, found)
        given = torch.tensor([record.class_id for record in found.split("train")])
        assert built.classes.rows(given).sort().values.tolist() == list(range(len(classes))), "a row for each image"


@pytest.mark.parametrize("method", CLASSES)
def test_images_of_one_class_are_refused_where_classes_are_compared(tiny, home, method):
    plain = plain_of(*words_of(method))
    data = assembly.prepared_data(plain)
    vars(data)["records"] = {
        split: [replace(record, class_id=7) for record in records] for split, records in data.records.items()
    }
    refused(home, r"^expected training images of two classes or more .*, found one class of 30 images", plain, data)


def test_a_batch_of_one_class_teaches_nothing_and_is_no_nan():
    class_id = torch.tensor([7, 7, 7])
    regions, words, code, sentence = (
        torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
        for shape in ((3, 6, 2, 2), (3, 4, 6), (3, 6), (3, 6))
    )
    terms = [
        *words_loss(regions, words, torch.ones(3, 4, dtype=torch.bool), class_id, 4.0, 5.0, 10.0),
        *sentence_loss(code, sentence, class_id, 10.0),
        *structured_joint_embedding_loss(code, sentence, class_id),
    ]
    assert [float(term.detach()) for term in terms] == [0.0] * 6
    sum(terms).backward()
    assert all(not leaf.grad.any() for leaf in (regions, words, code, sentence))  # NaN would be something


@pytest.mark.parametrize(
    ("method", "data", "num_captions", "found"),
    [("efficient_t2i", "coco", 10, 5), ("efficient_t2i", "celeba_hq", 11, 10), ("ganintcls", "cub", 11, 10)],
)
def test_more_captions_than_images_have_are_refused_before_a_stage_is_trained(
    tiny, home, method, data, num_captions, found
):
    wanted = rf"^expected {num_captions} captions of each image to train {method}, found {found} of \S+: lower method\."
    refused(home, wanted, plain_of(*words_of(method, data, f"method.module.num_captions={num_captions}")))


@pytest.mark.parametrize("method", ["efficient_t2i", "ganintcls"])
def test_one_image_of_fewer_captions_than_the_others_is_named(tiny, home, method):
    plain = plain_of(*words_of(method))
    data = assembly.prepared_data(plain)
    last = data.split("train")[-1]
    data.records["train"][-1] = replace(last, captions=last.captions[:3])
    refused(home, f"captions of each image to train {method}, found 3 of {last.id}: lower", plain, data)


@pytest.mark.parametrize(
    ("method", "word", "said"),
    [
        ("efficient_t2i", "method.module.num_captions=1", "num_captions from 2 to interpolate between, found 1: raise"),
        ("ganintcls", "method.module.num_captions=0", "method.module.num_captions as a whole number from 1, found 0: "),
        ("attngan", "method.module.num_sizes=1", "num_sizes from 2, so that a stage looks at words, found 1: raise it"),
        ("attngan", "method.training.batch_size=31", "at least 31 training images, found 30: lower batch_size"),
        ("mirrorgan", "stages.stream.training.batch_size=31", "at least 31 training images, found 30: lower batch"),
    ],
)
def test_a_number_that_does_not_fit_is_refused_before_a_stage_is_trained(tiny, home, method, word, said):
    refused(home, f"^expected {said}", plain_of(*words_of(method, "cub", word)))


@pytest.mark.parametrize("method", COMPARING)
def test_a_batch_of_one_is_refused_where_a_batch_is_compared(method):
    wanted = f"^expected batches of 2 images or more to train {method}, found 1: raise method.training.batch_size$"
    with pytest.raises(ValueError, match=wanted):
        training.require_training(plain_of(f"method={method}", "data.source=toy", "method.training.batch_size=1"))


def test_the_command_says_it_in_one_line_before_any_data_are_made(home):
    words = words_of("mirrorgan", "cub", "stages.stream.training.batch_size=1", "paths.assets=untouched")
    with pytest.raises(SystemExit) as caught:
        train.main(words)
    message = str(caught.value.code)  # a text, which the interpreter prints, ending with code 1
    assert message.startswith("mmbench: error: expected batches of 2 images or more to train mirrorgan_stream, found 1")
    assert "\n" not in message
    assert not (home / "untouched").exists()


@pytest.mark.parametrize("method", ["stackgan_stage1", "attngan"])
def test_a_last_batch_of_one_at_evaluation_gives_the_image_of_a_larger_one(tiny, home, method):
    images = {}
    for size in (3, 10):  # of 10 images: three batches of three and one of one
        words = words_of(method, "cub", f"data.module.batch_size={size}", "weights=none", f"paths.runs=runs{size}")
        run = generation.prepared(plain_of(*words))
        generation.generate(run)
        images[size] = [np.asarray(read_rgb(run.file(sample)), int) for sample in run.samples]
    assert len(images[3]) == 10
    for small, large in zip(images[3], images[10], strict=True):
        assert abs(small - large).max() <= 1  # a level, where it lies at the rounding's edge
