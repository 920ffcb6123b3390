"""Metrics of captions: facts of BLEU, ROUGE-L and CIDEr, and that a score depends on its samples alone."""

import math

import pytest
import torch
import torch.multiprocessing

from mmbench.core.noise import Sample
from mmbench.core.ptb import ptb_words
from mmbench.metrics import MetricSuite

NAMES = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "cider_d"]
REFERENCES = [
    ["A red car parked on the grass.", "there is a red car", "A car, red, on grass"],
    ["a blue boat next to a white kite", "A boat and a kite on the sand."],
    ["An orange vase stands behind a green cup.", "a vase behind a cup", "We can see a cup and a vase"],
    ["nobody is standing on a wooden deck"],
    ["a purple umbrella to the left of a brown suitcase in the snow", "a suitcase and an umbrella"],
    ["A grey ball lying on the pavement", "this is a grey ball", "a ball", "An image of a grey ball."],
    ["a yellow mug", "a yellow cup in front of a black automobile"],
]
CAPTIONS = [
    "a red car on the grass",
    "a blue boat and a kite",
    "a vase",
    "there is a kite on a wooden deck",
    "a purple umbrella next to a purple suitcase in the snow",
    "a grey ball lying on the pavement",
    "zzz",
]


def batch_of(rows):
    return {
        "sample": [Sample(f"scene/{row:03d}", 0, 0) for row in rows],
        "captions": [REFERENCES[row] for row in rows],
    }


def scores(rows, size=3, captions=CAPTIONS):
    suite = MetricSuite.named(*NAMES)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        suite.update([captions[row] for row in part], batch_of(part))
    return suite


def test_a_caption_that_is_a_reference_is_as_good_as_can_be():
    found = scores(range(7), captions=[references[0] for references in REFERENCES]).compute()
    for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4"):
        assert found[name].value == pytest.approx(1, abs=1e-6)
    assert found["rouge_l"].value == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["cider", "cider_d"])
def test_cider_is_ten_for_the_only_reference_and_nothing_for_other_words(name):
    suite = MetricSuite.named(name)
    captions = ["a red car on the grass", "two boats near a white beach", "green cups and vases of glass"]
    samples = [Sample(f"{row}", 0, 0) for row in range(3)]
    suite.update([*captions[:2], "zzz"], {"sample": samples, "captions": [[caption] for caption in captions]})
    assert list(suite.by_sample()[name].values()) == pytest.approx([10, 10, 0])


def test_cider_d_counts_a_repeated_word_once_and_another_length_for_less():
    """Of two words that one image of two has, the candidate says one three times: cosines of the paper's equations."""
    suite = MetricSuite.named("cider", "cider_d")
    samples, captions = [Sample("a", 0, 0), Sample("b", 0, 0)], [["red car"], ["blue boat"]]
    suite.update(["red red red red", "blue boat"], {"sample": samples, "captions": captions})
    values = {name: next(iter(by_sample.values())) for name, by_sample in suite.by_sample().items()}
    assert values["cider"] == pytest.approx(10 / 4 * 1 / math.sqrt(2))
    assert values["cider_d"] == pytest.approx(10 / 4 * 1 / (4 * math.sqrt(2)) * math.exp(-4 / 72))


def test_bleu_is_of_the_set_and_is_no_mean():
    suite = MetricSuite.named("bleu_1", "rouge_l")
    batch = {"sample": [Sample("a", 0, 0), Sample("b", 0, 0)], "captions": [["a b c d e f"], ["x"]]}
    suite.update(["a b c d e f", "y"], batch)
    found = suite.compute()
    assert found["bleu_1"].value == pytest.approx(6 / 7)
    assert found["bleu_1"].std is None
    assert "bleu_1" not in suite.by_sample()
    assert list(suite.by_sample()["rouge_l"].values()) == [1, 0]


def test_the_length_of_the_nearest_reference_counts_the_shorter_one_in_a_tie():
    short, long = "a b", "a b c d e f"
    assert bleu_1("a b c d", [long, short]) == pytest.approx(1, abs=1e-6)  # of two, not of six: no penalty
    assert bleu_1("a b c", [long]) == pytest.approx(math.exp(1 - 2), abs=1e-6)


def bleu_1(caption, references):
    suite = MetricSuite.named("bleu_1")
    suite.update([caption], {"sample": [Sample("a", 0, 0)], "captions": [references]})
    return suite.compute()["bleu_1"].value


def test_punctuation_and_capitals_do_not_count():
    assert ptb_words('"A man\'s dog," he said...') == ("a", "man", "'s", "dog", "he", "said")
    assert ptb_words(" . ") == ()
    assert bleu_1("A RED CAR!", ["a red car."]) == pytest.approx(1, abs=1e-6)


def test_a_score_depends_on_no_batch_and_no_order():
    expected, by_sample = scores(range(7)).compute(), scores(range(7)).by_sample()
    for order, size in (([6, 2, 0, 5, 1, 4, 3], 2), (range(7), 7), (range(6, -1, -1), 1)):
        suite = scores(list(order), size)
        assert suite.compute() == expected
        assert suite.by_sample() == by_sample


def one_process(rank, ranks, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store-{ranks}", rank=rank, world_size=ranks
    )
    suite = scores(range(7)[rank::ranks])
    torch.save([{name: tuple(score) for name, score in suite.compute().items()}], folder / f"{ranks}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("ranks", [2, 3, 8])  # of eight, one has no caption
@pytest.mark.filterwarnings("ignore:The ``compute`` method", "ignore:.*fork")
def test_any_number_of_processes_gives_the_same_scores(tmp_path, ranks):
    expected = {name: tuple(score) for name, score in scores(range(7)).compute().items()}
    torch.multiprocessing.start_processes(one_process, (ranks, tmp_path), ranks, start_method="fork")
    for rank in range(ranks):
        assert torch.load(tmp_path / f"{ranks}-{rank}.pt", weights_only=True) == [expected]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_what_cannot_be_scored_is_said_in_one_line(name):
    suite = MetricSuite.named(name)
    with pytest.raises(ValueError, match=r"^expected captions to score by .*, found none: generate samples first$"):
        suite.compute()
    sample = Sample("scene/1", 0, 0)
    with pytest.raises(ValueError, match=r"^expected references for scene/1\.c0\.k0, found none: [^\n]*$"):
        suite.update(["a car"], {"sample": [sample], "captions": [[]]})
    for _ in range(2):
        suite.update(["a car"], {"sample": [sample], "captions": [["a car"]]})
    with pytest.raises(ValueError, match=r"^expected each sample once for .*, found 1 again: reset the metric$"):
        suite.compute()
    suite.reset()
    suite.update(["a car"], {"sample": [sample], "captions": [["a car"]]})
    assert suite.compute()[name].count == 1
