"""The standard extractors load their files strictly and give their originals' numbers.

On random weights, since the real files cannot be shipped.
"""

import json
import pickle
import warnings
import zipfile

import lpips
import numpy as np
import open_clip
import pytest
import torch
import torchvision
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from mmbench.core.cards import Card
from mmbench.core.files import sha256_file
from mmbench.core.images import from_uint8
from mmbench.metrics import Extractor
from mmbench.networks.inception_fid import InceptionFID
from mmbench.networks.lpips_alexnet import LPIPSAlexNet
from mmbench.networks.open_clip import OpenCLIP
from mmbench.networks.torchscript import read_torchscript_state

TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def extractor(network, path, assets):
    return Extractor("standard", network, Card(path.name, sha256_file(path)[:8], "a test", "none"), assets)


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "mmbench-tiny.json"
    path.write_text(json.dumps(TINY))
    open_clip.add_model_config(path)
    torch.manual_seed(0)
    return open_clip.CLIP(**open_clip.get_model_config("mmbench-tiny"))


def archive(model, path):
    """The archive that OpenAI's way of publishing makes: traced, half precision, with numbers among the buffers."""
    del model.context_length, model.vocab_size
    for name, value in (("input_resolution", 64), ("context_length", 77), ("vocab_size", 49408)):
        model.register_buffer(name, torch.tensor(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 3, 64, 64).half(), torch.zeros(1, 77, dtype=torch.long))
        torch.jit.save(torch.jit.trace(model.half(), example, check_trace=False), path)
    return path


def test_inception_equals_torch_fidelity(weights, tmp_path, pixels):
    torch.manual_seed(0)
    path = weights / "inception.pth"
    state = InceptionFID().network.state_dict()
    for name, value in state.items():  # batch norms that change something, and keep the signal's size
        if name.endswith("running_mean") or name.endswith("bn.bias"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var") or name.endswith("bn.weight"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(value)
    torch.save(state, path)
    ours = extractor(InceptionFID(), path, tmp_path)
    theirs = FeatureExtractorInceptionV3("test", ["2048", "logits_unbiased"], str(path))
    images = pixels(2, size=64)
    features, logits = theirs(images)
    found = ours(images)
    for name, value in (("features", features), ("logits", logits)):
        assert value.std() > 0.01
        assert (found[name] - value).abs().max() <= 1e-5 * value.abs().max()
    assert (ours.name, ours.weights_sha256) == ("standard", sha256_file(path))
    alone = ours(images[:1].clone())
    assert torch.equal(alone["features"], found["features"][:1]), "whatever the batch, to the last bit"
    torch.save({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"missing .*unexpected"):
        extractor(InceptionFID(), path, tmp_path)


def test_lpips_equals_the_package(weights, tmp_path, pixels):
    torch.manual_seed(0)
    backbone = torchvision.models.AlexNet()
    path = weights / "alexnet.pth"
    torch.save(backbone.features.state_dict(prefix="features.") | {"classifier.1.weight": torch.zeros(2)}, path)
    ours = extractor(LPIPSAlexNet(), path, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for layer, part in ((0, 1), (3, 2), (6, 3), (8, 4), (10, 5)):
        convolution = getattr(theirs.net, f"slice{part}")[[0, 1, 1, 0, 0][part - 1]]
        convolution.load_state_dict(backbone.features[layer].state_dict())
    first, second = pixels(3, 0, 64), pixels(3, 1, 64)
    expected = theirs(from_uint8(first), from_uint8(second)).flatten()
    found = (ours(first)["embedding"] - ours(second)["embedding"]).square().sum(1)
    assert torch.allclose(found, expected, rtol=1e-4)
    assert float(found.min()) > 0


def test_clip_equals_open_clip_on_openai_archives(weights, tmp_path, tiny_clip, pixels):
    path = archive(open_clip.CLIP(**open_clip.get_model_config("mmbench-tiny")), weights / "clip.pt")
    ours = extractor(OpenCLIP("mmbench-tiny"), path, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = torch.jit.load(path).state_dict()
    tiny_clip.load_state_dict({key: state[key].float() for key in tiny_clip.state_dict()})
    tiny_clip.eval()
    images, texts = (
        pixels(3, size=64),
        ["this bird has a red crown.", "", "word " * 200, "a bird", "", "red " * 7, "red " * 14],
    )
    mean, deviation = (
        torch.tensor(x)[:, None, None] for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    with torch.no_grad():
        image = tiny_clip.encode_image((images / 255 - mean) / deviation, normalize=True)
        text = tiny_clip.encode_text(open_clip.get_tokenizer("mmbench-tiny")(texts), normalize=True)
    assert torch.allclose(ours(images)["embedding"], image, atol=1e-5)
    assert torch.allclose(ours(texts)["embedding"], text, atol=1e-5)
    alone = torch.cat([ours([one])["embedding"] for one in texts])
    assert torch.equal(ours(texts)["embedding"], alone), "to the last bit, whatever texts are beside it"
    assert torch.allclose(ours(images)["embedding"].norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("shape", [(64, 64), (90, 150), (201, 77)])
def test_clip_preprocessing_equals_open_clip_on_files(tiny_clip, shape):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    picture = coarse.resize(shape[::-1], Image.Resampling.BICUBIC)
    network = OpenCLIP("mmbench-tiny")
    found = network.preprocess(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])[0]
    expected = open_clip.image_transform(64, is_train=False)(picture)
    # Pillow resizes in fixed point: one level at the most.
    assert float((found - expected).abs().max()) < 1.01 / 255 / min(open_clip.OPENAI_DATASET_STD)


def test_a_torchscript_archive_is_read_as_torch_reads_it(weights):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Conv1d(1, 2, 3).double())
    module.register_buffer("flag", torch.tensor([True, False]))
    module[0].weight = torch.nn.Parameter(torch.arange(24.0).reshape(4, 6)[:, ::2])  # strided
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), weights / "module.pt")
    found = read_torchscript_state(weights / "module.pt")
    assert found.keys() == module.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in module.state_dict().items())


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_torchscript_archive_that_runs_something_is_refused(weights, capsys):
    path = weights / "evil.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("evil/data.pkl", pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"expected a TorchScript archive of tensors, found builtins\.print"):
        read_torchscript_state(path)
    assert capsys.readouterr().out == ""
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="expected a TorchScript archive"):
        read_torchscript_state(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("other", b"")
    with pytest.raises(ValueError, match=r"found no data\.pkl"):
        read_torchscript_state(path)
