"""StackGAN's fine-tuned Inception: its variables fill ours, and its own code's predictions are ours."""

import json

import numpy as np
import pytest
import torch
import write_tf_fixtures as written
from PIL import Image

from mmbench.core import catalogue, config, construction
from mmbench.core.cards import Card, MissingAsset
from mmbench.metrics import Extractor
from mmbench.networks import inception_stackgan
from mmbench.networks.inception_stackgan import InceptionStackGAN, resized_as_pillow

RECORDED = json.loads((written.FIXTURES / "inception.json").read_text())


def variables(data):
    shapes = RECORDED[data]["variables"]
    return {name: torch.from_numpy(written.inception_variable(name, shape)) for name, shape in shapes.items()}


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """Puts tensors in the place of a file of 98 MB."""

    def put(tensors):
        path = tmp_path / "weights" / "model.ckpt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a checkpoint")
        monkeypatch.setattr(inception_stackgan, "read_tf_checkpoint", lambda path: tensors)
        return Card("model.ckpt", None, "a test", "none")

    return put


@pytest.mark.parametrize("data", ["cub", "oxford102"])
def test_predictions_are_those_of_the_authors_graph(data, checkpoint, tmp_path):
    # Beside the averages lies what they are averages of, and the optimiser's: neither plays a part.
    state = variables(data)
    raw = {name.removesuffix(written.AVERAGE): torch.full_like(value, torch.nan) for name, value in state.items()}
    slots = {"conv0/weights/RMSProp": torch.zeros(1), "global_step": torch.tensor(5000)}
    expected = torch.tensor(RECORDED[data]["predictions"], dtype=torch.float64)
    network = InceptionStackGAN(expected.shape[1])
    extractor = Extractor(f"inception-{data}", network, checkpoint({**state, **raw, **slots}), tmp_path)
    images = torch.from_numpy(written.inception_images()).permute(0, 3, 1, 2)
    found = extractor.network(images)
    assert torch.allclose(found["logits"].double().softmax(dim=1), expected, rtol=1e-5, atol=0)
    assert expected.std(dim=1).min() > 0.1 / expected.shape[1], "they do not all come to the same"
    assert found["features"].shape == (2, network.num_features)


def test_a_checkpoint_of_another_number_of_classes_or_without_averages_is_refused(checkpoint, tmp_path):
    state = variables("oxford102")
    with pytest.raises(ValueError, match=r"classifier\.\w+ has shape \(21.*\) instead of \(51"):
        Extractor("inception-cub", InceptionStackGAN(50), checkpoint(state), tmp_path)
    bare = {name.removesuffix(written.AVERAGE): value for name, value in state.items()}
    with pytest.raises(ValueError, match="found 378 missing"):
        Extractor("inception-oxford102", InceptionStackGAN(20), checkpoint(bare), tmp_path)


@pytest.mark.parametrize("shape", [(256, 256), (64, 64), (299, 299), (1, 1), (700, 700), (40, 300)])
def test_images_are_resized_to_the_level_as_pillow_does_it(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    rows = Image.fromarray(image).resize((299, shape[0]), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(rows.resize((299, 299), Image.Resampling.BILINEAR))).permute(2, 0, 1)
    found = resized_as_pillow(torch.from_numpy(image).permute(2, 0, 1)[None], 299)[0]
    assert torch.equal(found, expected.int())


@pytest.mark.parametrize(("data", "count"), [("cub", 50), ("oxford102", 20)])
def test_it_is_never_replaced_by_another(data, count, monkeypatch, tmp_path):
    path = catalogue.shipped("conf") / f"network/inception/{data}.yaml"
    node = config.OmegaConf.load(path)
    assert (node["name"], node["network"]["num_classes"]) == (f"inception-{data}", count)
    assert node["card"]["origin"].startswith("gdrive:0B3y_msrWZaXLMzNMNWhWdW0zVWs")

    def refused(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("mmbench.core.cards.download", refused)
    with pytest.raises(MissingAsset, match=r"model\.ckpt of stackgan/inception_finetuned_models\.zip .*put it there"):
        construction.construct(node, assets=tmp_path)
