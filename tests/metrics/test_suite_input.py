"""What a user of `MetricSuite`, or of one metric, may show it: other ranges, types, shapes and numbers are refused."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch

from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample
from mmbench.metrics import Metric, MetricSuite, Score
from mmbench.metrics.base import SampleMean
from mmbench.metrics.batch import RangeWarning
from mmbench.metrics.by_frame import FramePSNR
from mmbench.metrics.clip_score import CLIPScore
from mmbench.metrics.diff import Diff
from mmbench.metrics.edit_accuracy import EditAccuracy
from mmbench.metrics.fid import FID
from mmbench.metrics.inception_score import InceptionScore
from mmbench.metrics.kid import KID
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.outside_mask import L1OutsideMask
from mmbench.metrics.psnr import PSNR
from mmbench.metrics.rouge_l import ROUGEL

COUNT = 5
SAMPLES = [Sample(str(row), 0, 0) for row in range(COUNT)]
RANGES = {
    "0 to 255": (lambda levels: levels.float(), r"expected `image` in \[-1, 1\], found values from 0 to 255: scale"),
    "beyond 1": (lambda levels: from_uint8(levels) * 1.01, r"expected `image` in \[-1, 1\], found values from -1.01"),
    "beyond -1 alone": (lambda levels: from_uint8(levels).clamp(max=0) - 0.01, "found values from -1.01 to -0.01"),
    "int64": (lambda levels: levels.long(), r"found torch\.int64: convert levels"),
    "int8": (lambda levels: (levels.int() - 128).to(torch.int8), r"found torch\.int8: convert levels"),
    "bool": (lambda levels: levels > 127, r"found torch\.bool: convert levels"),
    "complex": (lambda levels: from_uint8(levels).cfloat(), r"found torch\.complex64: convert levels"),
    "grey": (lambda levels: from_uint8(levels)[:, :1], r"expected `image` of shape \(N, 3, H, W\), found \(5, 1, 16"),
    "alpha": (lambda levels: from_uint8(torch.cat((levels, levels[:, :1]), 1)), r"found \(5, 4, 16, 16\)"),
    "channels last": (lambda levels: from_uint8(levels).permute(0, 2, 3, 1), r"found \(5, 16, 16, 3\)"),
    "one image": (lambda levels: from_uint8(levels)[0], r"found \(3, 16, 16\)"),
    "no image": (lambda levels: from_uint8(levels)[:0], r"expected `image` of shape \(N, 3, H, W\), found \(0, 3, 16"),
    "no pixel": (lambda levels: from_uint8(levels)[..., :0], r"found \(5, 3, 16, 0\)"),
    "array": (lambda levels: from_uint8(levels).numpy(), "expected `image` as a tensor"),
    "NaN": (lambda levels: from_uint8(levels).log(), "expected finite pixel values, found NaN or infinity in 0, "),
}


def described(images, **fields):
    ids = [sample.id for sample in SAMPLES[: len(images)]]
    return {"id": ids, "sample": SAMPLES[: len(images)], "image": from_uint8(images), **fields}


def one_line(error):
    assert "\n" not in str(error.value)
    assert ": " in str(error.value)


@pytest.mark.parametrize(("made_of", "message"), RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("alone", [True, False], ids=["metric", "suite"])
def test_real_images_of_another_range_type_or_shape_are_refused(make_extractor, pixels, made_of, message, alone):
    fid, psnr = FID(make_extractor()), PSNR(against="image")
    suite = MetricSuite({"fid": fid, "psnr": psnr})
    batch = described(pixels(COUNT, 1)) | {"image": made_of(pixels(COUNT, 1))}
    with pytest.raises(ValueError, match=message) as error:
        (psnr if alone else suite).update(pixels(COUNT), batch)
    one_line(error)
    with pytest.raises(ValueError, match=message) as error:
        (fid if alone else suite).update_reference(batch)
    one_line(error)
    with pytest.raises(ValueError, match="found none"):
        psnr.compute()  # nothing was taken in


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda levels: levels.long(), r"expected generated images as uint8 levels, found torch\.int64: give levels"),
        (lambda levels: levels > 127, r"expected generated images as uint8 levels, found torch\.bool: give levels"),
        (lambda levels: levels / 255, r"expected generated images as uint8 levels, found torch\.float32: round"),
        (lambda levels: levels[:, :1], r"expected generated images of shape \(N, 3, H, W\), found \(5, 1, 16, 16\)"),
        (lambda levels: levels[0], r"expected generated images of shape .* found \(3, 16, 16\)"),
        (lambda levels: levels[:0], r"expected generated images of shape .* found \(0, 3, 16, 16\)"),
        (lambda levels: levels[None], r"expected generated images of shape .* found \(1, 5, 3, 16, 16\)"),
        (lambda levels: levels.numpy(), "expected generated images as a tensor"),
        (lambda levels: ["a bird"] * len(levels), "expected generated images as a tensor .* found list"),
        (lambda levels: levels[..., :8], r"expected generated images of shape \(5, 3, 16, 16\), found \(5, 3, 16, 8\)"),
        (lambda levels: levels[:3], "expected `id` of 3 items, found 5"),
    ],
)
@pytest.mark.parametrize("alone", [True, False], ids=["metric", "suite"])
def test_generated_images_of_another_type_or_shape_are_refused(make_extractor, pixels, made, message, alone):
    metric = LPIPS(make_extractor(), against="image")  # compares embeddings, which may have one shape all the same
    with pytest.raises(ValueError, match=message) as error:
        (metric if alone else MetricSuite({"lpips": metric})).update(made(pixels(COUNT)), described(pixels(COUNT, 1)))
    one_line(error)


@pytest.mark.parametrize("field", ["sample", "id", "prompt", "caption", "captions", "class_id", "attributes"])
@pytest.mark.parametrize("count", [0, COUNT - 1, COUNT + 1])
def test_lists_of_another_length_are_refused(make_extractor, pixels, field, count):
    one = {"sample": SAMPLES[0], "captions": ["a"], "class_id": 3, "attributes": {}}.get(field, "abc")
    batch = described(pixels(COUNT, 1), prompt=["abc"] * COUNT) | {field: [one] * count}
    for scorer in (MetricSuite({"diff": Diff()}), Diff(), CLIPScore(make_extractor(), factor=100)):
        with pytest.raises(ValueError, match=f"expected `{field}` of {COUNT} items, found {count}: give") as error:
            scorer.update(pixels(COUNT), batch)
        one_line(error)
    suite = MetricSuite({"kid": KID(make_extractor(), subsets=2, subset_size=2)})
    for scorer in (suite, suite.metrics["kid"]):
        with pytest.raises(ValueError, match=f"expected `{field}` of {COUNT} items, found {count}: give"):
            scorer.update_reference(batch)


def test_as_many_samples_as_images_are_wanted_by_the_inception_score(make_extractor, pixels):
    for scorer in (metric := InceptionScore(make_extractor(), splits=2), MetricSuite({"is": metric})):
        with pytest.raises(ValueError, match="expected `sample` of 12 items, found 5"):
            scorer.update(pixels(12), {"sample": SAMPLES})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "abcde"}, "expected `prompt` of 5 items, found a single text"),
        ({"prompt": [b"abc"] * COUNT}, "expected `prompt` as a list of texts, found bytes in it"),
        ({"prompt": [None] * COUNT}, "expected `prompt` as a list of texts, found NoneType in it"),
        (
            {"sample": ["0", "1", "2", "3", "4"]},
            r"expected `sample` of mmbench\.core\.noise\.Sample.* found a single text",
        ),
        ({"sample": torch.tensor(5)}, "expected `sample` of 5 items, found Tensor"),
        (
            {"mask": torch.full((COUNT, 1, 16, 16), 255.0)},
            r"expected `mask` of 0 \(known\) and 1 \(hole\), found 255: ",
        ),
        ({"mask": torch.rand(COUNT, 1, 16, 16)}, r"expected `mask` of .* found .*, \.\.\.: threshold"),
        ({"mask": torch.full((COUNT, 1, 16, 16), math.nan)}, "expected `mask` of .* found nan"),
        ({"mask": torch.zeros(COUNT, 16, 16)}, r"expected `mask` of shape \(N, 1, H, W\), found \(5, 16, 16\)"),
        ({"mask": torch.zeros(COUNT, 3, 16, 16)}, r"expected `mask` of shape \(N, 1, H, W\), found \(5, 3, 16, 16\)"),
        ({"mask": torch.zeros(COUNT, 1, 8, 8)}, "expected `mask` of 16 x 16 pixels, .* found 8 x 8"),
        ({"parts": torch.full((COUNT, 2, 16, 16), 255.0)}, r"expected `parts` in \[0, 1\], found values from 255"),
        ({"parts": torch.zeros(COUNT, 2, 8, 8)}, "expected `parts` of 16 x 16 pixels, .* found 8 x 8"),
        (
            {"prompt_attributes": ["crown"] * COUNT},
            "expected `prompt_attributes` as a list of dicts, found a single text",
        ),
    ],
)
def test_other_fields_are_looked_at_too(make_extractor, pixels, fields, message):
    metrics = {
        "clip_score": CLIPScore(make_extractor(), factor=100),
        "l1_outside_mask": L1OutsideMask(),
        "edit_accuracy": EditAccuracy(["crown", "bill"], {"red": (200, 0, 0), "blue": (0, 0, 200)}),
    }
    sound = {
        "prompt": ["abc"] * COUNT,
        "mask": torch.zeros(COUNT, 1, 16, 16),
        "parts": torch.zeros(COUNT, 2, 16, 16),
        "prompt_attributes": [{"crown": "red"}] * COUNT,
    }
    MetricSuite(metrics).update(pixels(COUNT), described(pixels(COUNT, 1), **sound))
    with pytest.raises(ValueError, match=message) as error:
        MetricSuite(metrics).update(pixels(COUNT), described(pixels(COUNT, 1), **(sound | fields)))
    one_line(error)


def test_a_field_that_is_not_there_is_named(make_extractor, pixels):
    for metric, field in (
        (PSNR(against="image"), "image"),
        (CLIPScore(make_extractor(), factor=100), "prompt"),
        (InceptionScore(make_extractor(), splits=1), "sample"),
    ):
        for scorer in (metric, MetricSuite({"metric": metric})):
            with pytest.raises(ValueError, match=f"expected `{field}` in the batch, found id: add it"):
                scorer.update(pixels(COUNT), {"id": ["a"] * COUNT})
    with pytest.raises(ValueError, match="expected `image` in the batch, found no field"):
        FID(make_extractor()).update_reference({})
    with pytest.raises(ValueError, match="expected a batch as a dict of fields, found Tensor"):
        PSNR(against="image").update(pixels(COUNT), from_uint8(pixels(COUNT)))


def test_videos_and_texts_have_ranges_of_their_own(pixels):
    films, samples = pixels(2 * 4).unflatten(0, (2, 4)), SAMPLES[:2]
    for given, message in (
        (films.float(), r"expected `video` in \[-1, 1\], found values from 0 to 255"),
        (films.int(), r"expected `video` as floats in .* found torch\.int32"),
        (from_uint8(films)[:, 0], r"expected `video` of shape \(N, F, 3, H, W\), found \(2, 3, 16, 16\)"),
        (from_uint8(films)[:, :3], "expected generated videos of 3 frames, .* found 4"),
        (from_uint8(films)[..., :8], r"expected generated videos of shape \(2, 4, 3, 16, 8\)"),
    ):
        for scorer in (FramePSNR(), MetricSuite({"frame_psnr": FramePSNR()})):
            with pytest.raises(ValueError, match=message):
                scorer.update(films, {"sample": samples, "video": given})
    with pytest.raises(
        ValueError, match=r"expected generated videos of shape \(N, F, 3, H, W\), found \(8, 3, 16, 16\)"
    ):
        FramePSNR().update(films.flatten(0, 1), {"video": from_uint8(films)})
    for texts, captions, message in (
        ("a bird", [["a bird"]] * 2, "expected generated texts as a list of texts, found a single text"),
        (["a bird", 3], [["a bird"]] * 2, "expected generated texts as a list of texts, found int in it"),
        (["a bird"], [["a bird"]], "expected `sample` of 1 items, found 2"),
        (
            ["a bird", "a cup"],
            ["a bird", "a cup"],
            "expected each item of `captions` as a list of texts, found a single",
        ),
    ):
        for scorer in (ROUGEL(), MetricSuite({"rouge_l": ROUGEL()})):
            with pytest.raises(ValueError, match=message):
                scorer.update(texts, {"sample": samples, "captions": captions})


def test_what_is_right_gives_the_same_score_in_every_form(pixels):
    made, real = pixels(COUNT), pixels(COUNT, 1)
    scores = set()
    for given in (
        real,
        from_uint8(real),
        from_uint8(real).double(),
        from_uint8(real).to(memory_format=torch.channels_last),
        from_uint8(real) * (1 + 5e-4),  # rounding passes the bounds by little
    ):
        for scorer in (PSNR(against="image"), MetricSuite({"psnr": PSNR(against="image")})):
            scorer.update(made, described(real) | {"image": given})
            found = scorer.compute()
            scores.add(found.value if isinstance(found, Score) else found["psnr"].value)
    assert len(scores) == 1
    squared = (made.double() - real.double()).square().mean(dim=(1, 2, 3))
    assert scores.pop() == pytest.approx(float((10 * (255**2 / squared).log10()).mean()), rel=1e-12)
    half = PSNR(against="image")
    half.update(made, {"image": from_uint8(real).half()})
    assert math.isfinite(half.compute().value)


def shown(scorer, made, real, times=3):
    """The warnings of a scorer that is shown the same batch several times."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(times):
            scorer.update(made, {"image": real})
        if not isinstance(scorer, PSNR):
            scorer.update_reference({"image": real})
    return caught


def test_floats_that_are_never_below_0_are_scored_with_one_warning(make_extractor, pixels):
    made, real = pixels(COUNT), pixels(COUNT, 1)
    for make in (
        lambda: PSNR(against="image"),
        lambda: FID(make_extractor()),
        lambda: MetricSuite({"psnr": PSNR(against="image"), "fid": FID(make_extractor())}),
    ):
        (warning,) = shown(make(), made, real / 255)
        assert issubclass(warning.category, RangeWarning)
        assert str(warning.message).endswith("if they are in [0, 1], show 2 * x - 1")
        assert warning.filename == __file__, "where it was shown"
        assert not shown(make(), made, from_uint8(real))
        assert not shown(make(), made, real), "levels have no sign"
    assert len(shown(MetricSuite({"psnr": PSNR(against="image")}), made, from_uint8(real).clamp(min=-0.1))) == 0


def test_a_checked_metric_is_still_called_copied_and_kept_as_torchmetrics_does(pixels):
    made, real = pixels(COUNT), from_uint8(pixels(COUNT, 1))
    metric = PSNR(against="image")
    metric.update(images=made, batch={"image": real})
    expected = metric.compute()
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert other.compute() == expected
        with pytest.raises(ValueError, match="found values from"):
            other.update(made, {"image": real * 2})
    assert PSNR(against="image")(made, {"image": real}) == expected


class _Given(SampleMean):
    """A score that is whatever the test says."""

    higher_is_better = True

    def __init__(self, score):
        super().__init__()
        self.score = score

    def update(self, images, batch):
        pass

    def compute(self):
        return self.score


class _Inherited(_Given):
    """Inherits what is checked."""


@pytest.mark.parametrize("kind", [_Given, _Inherited])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_score_is_no_number(kind, number):
    for score in (Score(number, None, 3), Score(1.0, number, 3)):
        for scorer in (kind(score), MetricSuite({"given": kind(score)})):
            with pytest.raises(ValueError, match=f"expected a finite score of {kind.__name__}, found .*: ") as error:
                scorer.compute()
            one_line(error)
    assert kind(Score(1.0, None, 3)).compute() == (1.0, None, 3)
    assert issubclass(kind, Metric)


def test_equal_images_have_the_psnr_of_what_rounding_hides(pixels):
    metric = PSNR(against="image")
    metric.update(pixels(COUNT), {"image": from_uint8(pixels(COUNT))})
    assert metric.compute().value == pytest.approx(10 * np.log10(255**2 * 12))


def test_pixels_are_looked_at_once_for_all_metrics(make_extractor, pixels, monkeypatch):
    looks = []
    aminmax = torch.aminmax
    monkeypatch.setattr(torch, "aminmax", lambda values: looks.append(values) or aminmax(values))
    suite = MetricSuite(
        {"psnr": PSNR(against="image"), "diff": Diff(), "lpips": LPIPS(make_extractor(), against="image")}
    )
    suite.update(pixels(COUNT), described(pixels(COUNT, 1)))
    assert len(looks) == 1
