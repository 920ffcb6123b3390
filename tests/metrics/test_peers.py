"""Our scores beside those of the libraries that people trust: the same weights, the same 8-bit images.

`pytest tests/metrics/test_peers.py -s` prints the table. The real weights cannot be shipped; these are random, with
the spread of trained ones.
"""

import json
import warnings

import lpips
import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from mmbench.core.cards import Card
from mmbench.core.files import sha256_file
from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample
from mmbench.metrics import Extractor, MetricSuite
from mmbench.metrics.clip_score import CLIPScore
from mmbench.metrics.fid import FID
from mmbench.metrics.inception_score import InceptionScore
from mmbench.metrics.kid import KID
from mmbench.metrics.lpips import LPIPS
from mmbench.metrics.precision_recall import Precision, Recall
from mmbench.metrics.psnr import PSNR
from mmbench.metrics.ssim import SSIM
from mmbench.networks.inception_fid import InceptionFID
from mmbench.networks.lpips_alexnet import LPIPSAlexNet
from mmbench.networks.open_clip import OpenCLIP

COUNT, SIZE = 16, 64
SPLITS, SUBSETS, SUBSET = 3, 10, 12
WIDTH = 12  # of Inception's 2048 features: fewer than images, else torch-fidelity's FID is off by up to 1e-6 itself
CLIP = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PROMPTS = [f"a bird with a {colour} {part}" for colour in ("red", "blue") for part in "abcdefgh"]


def pictures(seed, contrast):
    """Smooth pictures, (N, 3, 64, 64) uint8."""
    coarse = torch.rand(COUNT, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return (255 * (0.5 + contrast * (F.interpolate(coarse, (SIZE, SIZE), mode="bicubic") - 0.5)).clamp(0, 1)).byte()


class NarrowInception(InceptionFID):
    num_features = WIDTH

    def forward(self, images):
        found = super().forward(images)
        return {**found, "features": found["features"][:, :WIDTH]}


class Peers:
    """Extractors on random weights, and the same networks as their own libraries build them."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "weights").mkdir()
        torch.manual_seed(0)
        self.inception, self.fidelity = self._inception()
        self.lpips, self.lpips_package = self._lpips()
        self.clip, self.open_clip = self._clip()

    def _extractor(self, network, path):
        return Extractor("standard", network, Card(path.name, sha256_file(path), "a test", "none"), self.folder)

    def _inception(self):
        path = self.folder / "weights" / "inception.pth"
        state = InceptionFID().network.state_dict()
        for name, value in state.items():
            if name.endswith(("running_mean", "bn.bias")):
                value.normal_(0, 0.1)
            elif name.endswith(("running_var", "bn.weight")):
                value.uniform_(0.5, 1.5)
            elif name.endswith("conv.weight"):
                torch.nn.init.kaiming_normal_(value)
        torch.save(state, path)
        theirs = FeatureExtractorInceptionV3("test", ["2048", "logits_unbiased"], str(path))
        return self._extractor(NarrowInception(), path), theirs

    def _lpips(self):
        path = self.folder / "weights" / "alexnet.pth"
        backbone = torchvision.models.AlexNet()
        torch.save(backbone.features.state_dict(prefix="features."), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        for layer, part in ((0, 1), (3, 2), (6, 3), (8, 4), (10, 5)):
            dict(getattr(theirs.net, f"slice{part}").named_children())[str(layer)].load_state_dict(
                backbone.features[layer].state_dict()
            )
        return self._extractor(LPIPSAlexNet(), path), theirs

    def _clip(self):
        config = self.folder / "mmbench-peer.json"
        config.write_text(json.dumps(CLIP))
        open_clip.add_model_config(config)
        theirs = open_clip.CLIP(**open_clip.get_model_config("mmbench-peer")).eval()
        traced = open_clip.CLIP(**open_clip.get_model_config("mmbench-peer"))
        traced.load_state_dict(theirs.state_dict())
        del traced.context_length, traced.vocab_size
        for name, value in (("input_resolution", SIZE), ("context_length", 77), ("vocab_size", 49408)):
            traced.register_buffer(name, torch.tensor(value))
        path = self.folder / "weights" / "clip.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            example = (torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, 77, dtype=torch.long))
            torch.jit.save(torch.jit.trace(traced, example, check_trace=False), path)
        return self._extractor(OpenCLIP("mmbench-peer"), path), theirs


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Metric to (peer, its value, our value, what both started from)."""
    peers = Peers(tmp_path_factory.mktemp("peers"))
    fake, real = pictures(0, 1.0), pictures(1, 0.95)
    ids = [f"{row:03d}" for row in range(COUNT)]
    batch = {"id": ids, "sample": [Sample(key, 0, 0) for key in ids], "image": from_uint8(real), "prompt": PROMPTS}
    suite = MetricSuite(
        {
            "is": InceptionScore(peers.inception, SPLITS),
            "fid": FID(peers.inception),
            "kid": KID(peers.inception, subsets=SUBSETS, subset_size=SUBSET),
            "precision": Precision(peers.inception, 3),
            "recall": Recall(peers.inception, 3),
            "lpips": LPIPS(peers.lpips, against="image"),
            "ssim": SSIM(against="image"),
            "psnr": PSNR(against="image"),
            "clip_score": CLIPScore(peers.clip, factor=100),
        }
    )
    for rows in torch.arange(COUNT).split(7):
        part = {
            key: value[rows] if torch.is_tensor(value) else [value[row] for row in rows] for key, value in batch.items()
        }
        suite.update(fake[rows], part)
        suite.update_reference(part)
    ours = {name: suite.metrics[name].compute() for name in suite.metrics}
    own = [peers.inception(images) for images in (fake, real)]
    with torch.no_grad():
        whole = [dict(zip(("features", "logits"), peers.fidelity(images), strict=True)) for images in (fake, real)]
    rows = {}
    for start, (first, second) in {"equal features": own, "images": whole}.items():
        for name, value in fidelity(first, second).items():
            rows[f"{name}, {start}"] = (
                "torch-fidelity",
                value,
                getattr(ours[name.split()[0]], "std" if "std" in name else "value"),
            )
    rows["lpips, images"] = ("lpips", lpips_value(peers, fake, real), ours["lpips"].value)
    rows |= {f"{name}, images": ("scikit-image", value, ours[name].value) for name, value in scikit(fake, real).items()}
    rows["clip_score, images"] = ("open_clip", clip_value(peers, fake), ours["clip_score"].value)
    print(f"\n{'metric':28s}{'peer':16s}{'peer value':>20s}{'mmbench':>20s}{'difference':>12s}")
    for name, (peer, expected, found) in rows.items():
        print(f"{name:28s}{peer:16s}{expected:20.12g}{found:20.12g}{found - expected:12.1e}")
    return rows


def fidelity(first, second):
    """torch-fidelity's values on features in float64: in float32 its KID and covariances are rounded more coarsely."""
    features, real = (one["features"][:, :WIDTH].double() for one in (first, second))
    isc = isc_features_to_metric(first["logits"], splits=SPLITS)
    statistics = [fid_features_to_statistics(values) for values in (features, real)]
    kid = kid_features_to_metric(features, real, kid_subsets=SUBSETS, kid_subset_size=SUBSET, verbose=False)
    prc = prc_features_to_metric(features, real, verbose=False)
    return {
        "is": isc["inception_score_mean"],
        "is std": isc["inception_score_std"],
        "fid": fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"],
        "kid": kid["kernel_inception_distance_mean"],
        "kid std": kid["kernel_inception_distance_std"],
        "precision": prc["precision"],
        "recall": prc["recall"],
    }


def lpips_value(peers, fake, real):
    with torch.no_grad():
        return float(peers.lpips_package(from_uint8(fake), from_uint8(real)).double().mean())


def scikit(fake, real):
    pairs = list(zip(*(images.permute(0, 2, 3, 1).numpy() for images in (real, fake)), strict=True))
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    return {
        "ssim": np.mean([structural_similarity(*pair, data_range=255, **window) for pair in pairs]),
        "psnr": np.mean([peak_signal_noise_ratio(*pair, data_range=255) for pair in pairs]),
    }


def clip_value(peers, fake):
    transform = open_clip.image_transform(SIZE, is_train=False)
    images = torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in fake])
    with torch.no_grad():
        image = peers.open_clip.encode_image(images, normalize=True).double()
        text = peers.open_clip.encode_text(open_clip.get_tokenizer("mmbench-peer")(PROMPTS), normalize=True).double()
    return float((100 * (image * text).sum(dim=1).clamp(min=0)).mean())


@pytest.mark.parametrize("name", ["is", "is std", "fid", "kid", "kid std", "precision", "recall"])
def test_equal_features_give_torch_fidelitys_value(scores, name):
    _, expected, found = scores[f"{name}, equal features"]
    assert expected != 0
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["is", "fid", "kid", "precision", "recall", "lpips", "ssim", "psnr", "clip_score"])
def test_the_same_images_give_the_peers_value(scores, name):
    _, expected, found = scores[f"{name}, images"]
    loose = name.startswith(("fid", "kid"))
    assert expected != 0
    assert found == (pytest.approx(expected, rel=1e-4, abs=1e-3) if loose else pytest.approx(expected, rel=1e-5))
