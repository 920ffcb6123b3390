"""Bad input of training and evaluation: captions without words, odd pictures, small batches, losses, full memory."""

import re

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mmbench.commands import evaluate, train
from mmbench.core import config
from mmbench.core.images import read_rgb
from mmbench.methods.manipulation.tagan import TAGAN
from mmbench.methods.reference import Identity
from mmbench.metrics.suite import MetricSuite
from mmbench.pipeline import assembly, generation, training

METHODS = ["manigan", "sisgan"]  # whose text encoders know the words of captions, and vectors of words
STAGES = ["damsm", "manigan_main", "sisgan_embedding"]
TRAINING = ["method.training.epochs=1", "method.training.batch_size=15"]  # of 30 images
FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB of which 1.19 GiB is free."
)


@pytest.fixture
def birds(tiny, home):
    """The folder of 40 toy birds that a test may damage, 30 of them to train on, and the words that choose them."""
    for stage in STAGES:
        tiny.change(f"method/{stage}", {"tiny": {"training": {"epochs": 1, "batch_size": 15}}})
    words = ["data.source=toy", "data.toy_images=40", f"data.root={home / 'birds'}", "trainer=cpu"]
    data = assembly.prepared_data(plain_of("method=identity", *words))
    return home / "birds", words, data


def plain_of(*words):
    protocol = ["protocol=strict_synthesis"] if "method=controlgan" in words else []
    return config.composed([*protocol, *words])


def trained(*words):
    plain = plain_of(*words)
    return training.trained(plain, assembly.prepared_data(plain))


def drawn(*words):
    """The images of a run, as files."""
    run = generation.prepared(plain_of(*words))
    generation.generate(run)
    return [run.file(sample) for sample in run.samples]


def last_line(main, words):
    """What a command that fails says, which is one line."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    message = str(caught.value.code)  # a text, which the interpreter prints, ending with code 1
    assert message.startswith("mmbench: error: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("method", "caption"), zip(METHODS, ["?!", "красная птица"], strict=True), ids=METHODS)
def test_a_caption_without_known_words_is_refused_before_anything_is_trained_or_drawn(birds, home, method, caption):
    folder, words, data = birds
    bird = data.split("test")[3].id
    path = folder / "text_c10" / f"{bird}.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], caption, *lines[5:]]))
    words = [f"method={method}", *words]
    expected = re.escape(f"expected captions of known words, found none in caption 4 of {bird}, {caption!r}: reword it")
    with pytest.raises(ValueError, match=expected):
        trained(*words, *TRAINING)
    assert not list(home.glob("runs/train/**/log")), "no stage was begun"
    with pytest.raises(ValueError, match=expected):
        generation.prepared(plain_of(*words, "weights=none"))


def test_an_empty_caption_is_refused_by_the_data_set(birds):
    folder, words, data = birds
    path = folder / "text_c10" / f"{data.split('train')[0].id}.txt"
    path.write_text("\n".join(["", *path.read_text().splitlines()[1:]]))
    assert f"{path}: expected 10 captions, one on each line, found 9" in last_line(train.main, ["method=damsm", *words])


def test_small_and_grey_pictures_and_a_last_batch_of_one(birds):
    folder, words, data = birds
    for split in ("train", "test"):
        small, grey = (record.image for record in data.split(split)[:2])
        shrunk(folder, small)
        Image.open(grey).convert("L").save(grey)
    words = ["method=tagan", *words]
    weights = load_file(trained(*words, *TRAINING).weights)
    assert all(value.isfinite().all() for value in weights.values())
    images = drawn(*words, *TRAINING, "weights=trained", "data.module.batch_size=3")
    assert len(images) == 10
    assert all(read_rgb(image).shape == (3, 64, 64) for image in images)


def shrunk(folder, image):
    """Makes a picture, and what is known of places in it, 9 pixels wide and 7 high."""
    for path in (image, folder / "CUB_200_2011/toy/parts" / f"{image.parent.name}/{image.stem}.png"):
        Image.open(path).resize((9, 7), Image.Resampling.NEAREST).save(path)
    tables = folder / "CUB_200_2011"
    key = f"{image.parent.name}/{image.name}"
    number = next(line.split()[0] for line in (tables / "images.txt").read_text().splitlines() if line.endswith(key))
    boxes = (tables / "bounding_boxes.txt").read_text().splitlines()
    boxes = [f"{number} 1.0 1.0 7.0 5.0" if line.split()[0] == number else line for line in boxes]
    (tables / "bounding_boxes.txt").write_text("\n".join(boxes))


def test_training_drops_a_last_batch_of_one(birds):
    _, words, _ = birds
    plain = plain_of("method=damsm", *words, "method.training.batch_size=29")
    data = assembly.prepared_data(plain)
    data.batch_size = 29
    assert [len(batch["id"]) for batch in data.train_dataloader()] == [29]


@pytest.mark.parametrize("method", ["manigan", "manigan_main", "manigan_direct", "controlgan", "tagan"])
def test_batches_of_one_are_refused_where_images_are_compared(home, method):
    words = [f"method={method}", "data.source=toy", "paths.assets=untouched", "method.training.batch_size=1"]
    message = last_line(train.main, words)
    assert f"expected batches of 2 images or more to train {method}, found 1: raise method.training" in message
    assert not (home / "untouched").exists(), "no data are made for it"


def test_a_loss_that_is_no_number_names_step_term_and_checkpoint_with_two_optimisers(birds, home, monkeypatch):
    _, words, _ = birds
    terms = TAGAN.generator_terms

    def diverging(self, *given):
        found = terms(self, *given)
        last = self.current_epoch == 1 and self.trainer.fit_loop.epoch_loop.batch_idx == 1
        return found | ({"L_rec": found["L_rec"] * float("nan")} if last else {})

    monkeypatch.setattr(TAGAN, "generator_terms", diverging)
    words = ["method=tagan", *words, "method.training.epochs=2", "method.training.batch_size=15"]
    message = last_line(train.main, words)
    assert "found L_rec of generator to be nan in epoch 1, step 1: lower the learning rate" in message
    checkpoint = torch.load(message.split("last good checkpoint: ")[1], weights_only=True)
    assert checkpoint["epoch"] == 0
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert not list(home.glob("runs/train/**/weights.safetensors"))


def full(*_, **__):
    raise torch.OutOfMemoryError(FULL)


def test_a_full_memory_in_training_says_the_batch_size_and_how_to_lower_it(birds, monkeypatch):
    _, words, _ = birds
    monkeypatch.setattr(TAGAN, "training_step", full)
    message = last_line(train.main, ["method=tagan", *words, *TRAINING])
    assert "expected batches of 15 to fit into the device's memory" in message
    assert "(CUDA out of memory. Tried to allocate 2.00 GiB): lower method.training.batch_size" in message


def test_a_full_memory_in_evaluation_says_the_batch_size_and_how_to_lower_it(birds, monkeypatch):
    _, words, _ = birds
    monkeypatch.setattr(Identity, "generate", full)
    message = last_line(evaluate.main, ["method=identity", *words, "data.module.batch_size=7"])
    assert "expected batches of 7 to fit into the device's memory" in message
    assert "(CUDA out of memory. Tried to allocate 2.00 GiB): lower data.module.batch_size" in message


def test_a_full_memory_in_scoring_says_where_there_is_more(birds, monkeypatch):
    _, words, _ = birds
    monkeypatch.setattr(MetricSuite, "update", full)
    message = last_line(evaluate.main, ["method=identity", *words])
    assert "expected batches of 32 to fit into the device's memory" in message
    assert "(CUDA out of memory. Tried to allocate 2.00 GiB): score on the processor (trainer=cpu)" in message
