"""How fast metrics are, as ratios measured in one run: the networks, the suite, the peers, FID's distance.

Networks have random weights: how fast they are does not depend on what they know. All images are PNG files, 256 pixels
a side.
"""

import contextlib
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import lpips
import numpy as np
import open_clip
import scipy.linalg
import torch
import torch_fidelity
import torchvision
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_statistics_to_metric

from mmbench.core.cards import Card
from mmbench.core.files import sha256_file
from mmbench.core.images import from_uint8, read_rgb
from mmbench.core.noise import random_stream
from mmbench.metrics.features import Extractor
from mmbench.metrics.fid import frechet_distance
from mmbench.metrics.suite import MetricSuite, build_suite, described
from mmbench.networks.inception_fid import InceptionFID
from mmbench.networks.open_clip import OpenCLIP
from mmbench.pipeline import scoring
from mmbench.pipeline.folders import Scored
from mmbench.pipeline.inspection import Folder, Table

HELP = """usage: python -m mmbench.benchmarks.metrics [COUNT]

Prints what scoring COUNT generated against COUNT real images takes (default 512), beside the peers. Minutes on a CPU.
"""
SIDE = 256
PAIRED = ("lpips", "ssim", "psnr", "l1")
OF_SETS = ("fid", "is", "kid", "precision", "recall")
METRICS = (*OF_SETS, *PAIRED, "tv", "clip_score")
CLIP = "ViT-B-32-quickgelu"


class Drawn(OpenCLIP):
    """CLIP as it is initialised: OpenAI's archive cannot be made from random weights in a line."""

    def load(self, path: Path) -> None:
        torch.manual_seed(0)


def write_images(folder: Path, count: int, seed: str) -> None:
    """PNG files that compress as photographs do: smooth pictures with grain."""
    folder.mkdir()
    for number in range(count):
        rng = random_stream("bench", seed, number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse, np.float32) + 6 * rng.standard_normal((SIDE, SIDE, 3), np.float32)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.png")


def write_weights(folder: Path) -> dict[str, Path]:
    """Files of random weights in the layouts that the extractors read."""
    torch.manual_seed(0)
    inception = InceptionFID().network.state_dict()
    for name, value in inception.items():
        if name.endswith("conv.weight"):
            nn.init.kaiming_normal_(value)
    (folder / "weights").mkdir()
    paths = {name: folder / "weights" / f"{name}.pth" for name in ("inception", "alexnet", "clip")}
    torch.save(inception, paths["inception"])
    torch.save(torchvision.models.alexnet().state_dict(), paths["alexnet"])
    torch.save({}, paths["clip"])
    return paths


def make_suite(weights: dict[str, Path], count: int, assets: Path, names: Sequence[str] = METRICS) -> MetricSuite:
    """The suite, or some of it, over those weights; KID in subsets that the images suffice for."""
    metrics, extractors = described(names, "standard")
    metrics["kid"]["subset_size"] = min(1000, count)
    for name, file in (("inception", "inception"), ("lpips", "alexnet"), ("clip", "clip")):
        if name in extractors:
            extractors[name]["card"] |= {"file": str(weights[file]), "sha256": sha256_file(weights[file])}
    if "clip" in extractors:
        extractors["clip"]["network"]["_target_"] = "mmbench.benchmarks.metrics.Drawn"
    return build_suite(metrics, extractors, assets)


def score(suite: MetricSuite, fake: Folder, real: Folder, assets: Path) -> float:
    """Seconds of a whole scoring: read, resize, look, sum up, compare."""
    captions = Table("caption", dict.fromkeys(fake.files, "a photograph of something"))
    names = sorted(fake.files)
    start = time.perf_counter()
    scored = Scored(names, {"generated": fake, "image": real, "prompt": captions}, None)
    scoring.show(suite, scoring.loader(scored, 1), "scoring")
    references = Scored(sorted(real.files), {"image": real}, None)
    scoring.add_reference(suite, references, [real.sha256()], assets, 1)
    suite.compute()
    return time.perf_counter() - start


def forward_alone(suite: MetricSuite, fake: Tensor, real: Tensor) -> float:
    """Seconds of the networks' own passes over images that are in memory: each network once for each image it needs."""
    judges = {
        key: suite.metrics[name].extractor
        for key, name in (("inception", "fid"), ("lpips", "lpips"), ("clip", "clip_score"))
    }
    start = time.perf_counter()
    for name, images in (
        ("inception", fake), ("inception", real), ("lpips", fake), ("lpips", real), ("clip", fake),
    ):  # fmt: skip
        for part in images.split(scoring.BATCH):
            judges[name](part)
            judges[name].forget()
    for _ in range(0, len(fake), scoring.BATCH):
        judges["clip"](["a photograph of something"] * scoring.BATCH)
        judges["clip"].forget()
    return time.perf_counter() - start


@torch.no_grad()
def peers(weights: dict[str, Path], fake: Folder, real: Folder, count: int) -> float:
    """Seconds of the same numbers from the peers, one after another, each reading the files for itself."""
    start = time.perf_counter()
    with _quiet():
        torch_fidelity.calculate_metrics(
            input1=str(_root(fake)), input2=str(_root(real)), cuda=False, isc=True, fid=True, kid=True,
            kid_subset_size=min(1000, count), feature_extractor_weights_path=str(weights["inception"]), cache=False,
            verbose=False, batch_size=32,
        )  # fmt: skip
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for name in fake.files:
        network(*(from_uint8(read_rgb(folder.files[name]))[None] for folder in (fake, real)))
    for name in fake.files:
        first, second = (np.asarray(Image.open(folder.files[name])) for folder in (fake, real))
        structural_similarity(
            first, second, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        peak_signal_noise_ratio(first, second)
    model, _, preprocess = open_clip.create_model_and_transforms(CLIP)
    tokenizer = open_clip.get_tokenizer(CLIP)
    for name in fake.files:
        image = model.encode_image(preprocess(Image.open(fake.files[name]))[None], normalize=True)
        (image * model.encode_text(tokenizer(["a photograph of something"]), normalize=True)).sum()
    return time.perf_counter() - start


def _root(folder: Folder) -> Path:
    return next(iter(folder.files.values())).parent


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _timed(run: Callable[[], Any], rounds: int = 3) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


@torch.no_grad()
def bench_inception(weights: dict[str, Path], images: Tensor, assets: Path) -> tuple[float, float, float]:
    """Seconds of torch-fidelity's forward and of ours on the same images, and their largest relative difference."""
    theirs = FeatureExtractorInceptionV3("bench", ["2048", "logits_unbiased"], str(weights["inception"]))
    card = Card(str(weights["inception"]), sha256_file(weights["inception"]), "made here", "none")
    ours = Extractor("standard", InceptionFID(), card, assets)
    expected, found = theirs(images)[0], ours(images)["features"]
    difference = float((expected - found).abs().max() / expected.abs().max())

    def look() -> None:
        ours.forget()
        ours(images)

    return _timed(lambda: theirs(images)), _timed(look), difference


def bench_distance() -> tuple[float, float, float, float]:
    """Seconds of FID's distance from 2048 x 2048 statistics: ours, torch-fidelity's, scipy's; largest difference."""
    rng = np.random.default_rng(0)
    scale = np.exp(-np.arange(2048) / 300)
    sets = [np.maximum(rng.standard_normal((5000, 2048)) * scale + shift, 0) for shift in (0.1, 0.15)]
    (mean_1, cov_1), (mean_2, cov_2) = ((one.mean(axis=0), np.cov(one, rowvar=False)) for one in sets)
    tensors = [torch.from_numpy(array) for array in (mean_1, cov_1, mean_2, cov_2)]

    def peer() -> float:
        first, second = ({"mu": mean, "sigma": cov} for mean, cov in ((mean_1, cov_1), (mean_2, cov_2)))
        return fid_statistics_to_metric(first, second, False)["frechet_inception_distance"]

    def root() -> float:
        trace = np.trace(scipy.linalg.sqrtm(cov_1 @ cov_2).real)
        return float(((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1) + np.trace(cov_2) - 2 * trace)

    values = frechet_distance(*tensors), peer(), root()
    return (
        _timed(lambda: frechet_distance(*tensors)), _timed(peer), _timed(root, 1),
        max(abs(values[0] - value) / value for value in values[1:]),
    )  # fmt: skip


def line(what: str, ratio: float, goal: str, details: str) -> None:
    print(f"{what:<62} {ratio:6.2f} x   {f'goal {goal}' if goal else '':<14} {details}", flush=True)


def print_distance() -> None:
    ours, theirs, root, difference = bench_distance()
    details = f"{theirs:.2f} s / {ours:.2f} s, relative difference {difference:.1e}"
    line("FID's distance, 2048 features: torch-fidelity's / ours", theirs / ours, ">= 1.0", details)
    line("FID's distance, 2048 features: scipy's sqrtm / ours", root / ours, ">= 3.0", f"{root:.2f} s / {ours:.2f} s")


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    count = int(arguments[0]) if arguments else 512
    with tempfile.TemporaryDirectory(prefix="mmbench-bench-") as name:
        folder = Path(name)
        for what in ("fake", "other", "real"):
            write_images(folder / what, count, what)
        weights = write_weights(folder)
        fake, other, real = (Folder.read(what, folder / what) for what in ("fake", "other", "real"))
        images = {what.what: torch.stack([read_rgb(path) for path in what.files.values()]) for what in (fake, real)}
        theirs, ours, difference = bench_inception(weights, images["fake"][:32], folder)
        line(
            "Inception: torch-fidelity's forward / ours",
            theirs / ours,
            ">= 2.0",
            f"relative difference {difference:.1e}",
        )
        suite = make_suite(weights, count, folder)
        alone = forward_alone(suite, images["fake"], images["real"])
        first = score(suite, fake, real, folder)
        line("whole suite / its networks' passes alone", first / alone, "<= 1.10", f"{first:.1f} s / {alone:.1f} s")
        suite.reset()
        second = score(suite, other, real, folder)
        line(
            "first / second method against the same real set, whole suite",
            first / second,
            "",  # the passes for CLIP score and LPIPS, of which a second method needs as many, leave less than 1.8
            f"{first:.1f} s / {second:.1f} s",
        )
        of_sets = make_suite(weights, count, folder / "sets", OF_SETS)
        seconds = []
        for generated in (fake, other):
            seconds.append(score(of_sets, generated, real, folder / "sets"))
            of_sets.reset()
        line(
            "first / second method, metrics of sets alone",
            seconds[0] / seconds[1],
            ">= 1.8",
            f"{seconds[0]:.1f} s / {seconds[1]:.1f} s",
        )
        others = peers(weights, fake, real, count)
        line("peers one after another / whole suite", others / first, ">= 2.0", f"{others:.1f} s / {first:.1f} s")
        print_distance()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
