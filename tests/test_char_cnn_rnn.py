"""Char-CNN-RNN: what it reads of a caption, its loss the slow way, and that it learns which caption is whose."""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmbench.core import config
from mmbench.core.frozen import Frozen
from mmbench.core.weights import load_strictly, read_state
from mmbench.losses.ranking import structured_joint_embedding_loss
from mmbench.methods.synthesis.char_cnn_rnn import CharCNNRNN as Stage
from mmbench.networks.char_cnn_rnn import ALPHABET, LENGTH, CharCNNGRU, CharCNNRNN, spelt
from mmbench.networks.googlenet import GOOGLENET, GoogLeNetTrunk

sys.path.insert(0, str(Path(__file__).parent / "data"))

from torch7 import Lua, t7

DIM = 12
CAPTIONS = ["a red bird", "this bird is blue with a yellow belly", "bird", "a bird with a long orange bill"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Trunk(nn.Module):
    """Gives an image's first pixels, as regions and as features."""

    global_channels = DIM

    def forward(self, image):
        return image, image.flatten(1)[:, :DIM]


@pytest.fixture(params=[CharCNNGRU, CharCNNRNN])
def stage(request):
    optimizer = partial(torch.optim.RMSprop, lr=0.002)
    return Stage(partial(request.param, widths=(16, 16, 16)), Frozen(Trunk()), optimizer, decay=0.5, scale=1.0)


def batch_of(captions):
    image = torch.rand(len(captions), 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return {"image": image, "caption": captions, "class_id": torch.arange(len(captions))}


def test_every_letter_has_its_place_and_what_is_none_is_a_space():
    places = spelt([ALPHABET[:69], "É\N{REPLACEMENT CHARACTER}?", ""])
    assert places.shape == (3, LENGTH)
    # The hyphen stands twice, and goes by the later place.
    expected = [60 if letter == "-" else place for place, letter in enumerate(ALPHABET[:69], 1)]
    assert places[0, :69].tolist() == expected
    assert places[1].tolist() == [70, 70, ALPHABET.index("?") + 1] + [0] * (LENGTH - 3)
    assert not places[2].any()


def test_letters_in_capitals_are_the_same_and_those_behind_the_201st_are_not_read(stage):
    text = "a small bird with a red crown " * 7
    assert len(text) > LENGTH
    one, capital, cut, shorter = stage.encode_text([text, text.upper(), text[:LENGTH] + "zzz", text[:100]])
    assert torch.equal(one, capital)
    assert torch.equal(one, cut)
    assert not torch.equal(one, shorter)


def test_a_caption_has_its_vector_whatever_its_batch(stage):
    together = stage.encode_text(CAPTIONS)
    assert together.shape == (4, stage.embedding_dim) == (4, DIM)
    for caption, vector in zip(CAPTIONS, together, strict=True):
        assert torch.allclose(stage.encode_text([caption])[0], vector, atol=1e-6)


def test_methods_are_given_sentences_scaled_and_training_sees_them_as_they_are(stage):
    plain, losses = stage.encode_text(CAPTIONS), stage.terms(batch_of(CAPTIONS))
    stage.scale = 2.0
    assert torch.equal(stage.encode_text(CAPTIONS), 2 * plain)
    assert stage.terms(batch_of(CAPTIONS)) == losses


def test_published_sentences_are_given_as_they_are_and_toy_ones_enlarged():
    published, toy = (config.composed(["method=char_cnn_rnn", f"scale={scale}"]) for scale in ("published", "toy"))
    assert published["method"]["module"]["scale"] == 1
    assert toy["method"]["module"]["scale"] > 1


def slow_loss(image, text, classes):
    """One hinge at a time."""
    texts = images = 0.0
    for n in range(len(image)):
        for k in range(len(image)):
            if classes[n] != classes[k]:
                texts += max(0.0, float(1 + image[n] @ text[k] - image[n] @ text[n]))
                images += max(0.0, float(1 + image[k] @ text[n] - image[n] @ text[n]))
    return texts / len(image) ** 2, images / len(image) ** 2


@pytest.mark.parametrize("classes", [[0, 1, 2, 3, 4], [0, 0, 1, 2, 1], [7, 7, 7, 7, 7]])
def test_the_loss_is_a_hinge_for_each_pair_of_two_classes(classes):
    image, text = torch.randn(2, 5, 4)
    found = structured_joint_embedding_loss(image, text, torch.tensor(classes))
    assert [float(one) for one in found] == pytest.approx(slow_loss(image, text, classes), abs=1e-6)
    if len(set(classes)) == 5:
        assert found == structured_joint_embedding_loss(image, text, class_ids=None)


def test_the_loss_is_nothing_once_own_pairs_exceed_others_by_one():
    image, text = torch.eye(3), 1.01 * torch.eye(3)
    assert sum(structured_joint_embedding_loss(image, text, class_ids=None)) == 0
    assert sum(structured_joint_embedding_loss(image, 0.9 * text, class_ids=None)) > 0


def test_a_fixed_batch_is_learnt(stage):
    batch, optimizer = batch_of(CAPTIONS), stage.configure_optimizers()
    first = float(sum(stage.terms(batch).values()).detach())
    for _ in range(80):
        optimizer.zero_grad()
        loss = sum(stage.terms(batch).values())
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1 * first
    _, features = stage.trunk(batch["image"])
    products = features @ stage.encode_text(CAPTIONS).mT
    assert products.argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_the_rate_decays_each_epoch_and_the_trunk_stays_as_it_is(stage):
    assert [stage.schedule(0.4, epoch) for epoch in range(3)] == [0.4, 0.2, 0.1]
    assert {key.split(".")[0] for key in stage.state_dict()} == {"text_encoder"}


PLACES = {  # of the layers of a recurrent network, where each comes first
    CharCNNGRU: {
        "from_input": 2,
        "update_from_input": 5,
        "update_from_state": 6,
        "reset_from_input": 10,
        "reset_from_state": 11,
        "from_state": 15,
    },
    CharCNNRNN: {"from_input": 2, "from_state": 6},
}


def as_torch_has_it(network):
    """A checkpoint of the authors' with the weights of a network: copies of layers for later steps, and more."""

    def layer(module):
        numbers = {name: value.detach().numpy() for name, value in module.named_parameters()}
        if isinstance(module, nn.Conv1d):
            numbers["weight"] = np.ascontiguousarray(numbers["weight"].transpose(0, 2, 1)).reshape(len(module.bias), -1)
        return Lua("nn.Layer", **numbers, gradWeight=np.zeros_like(numbers["weight"]))

    def parts(modules, **more):
        return Lua("nn.gModule", modules=modules, **more)

    recurrent = {n: Lua("nn.Identity") for n in range(1, 40)}
    for name, place in PLACES[type(network)].items():
        recurrent[place] = parts({1: layer(network.recurrent.get_submodule(name))})
        recurrent[place + 20] = parts({1: layer(nn.Linear(16, 16))})
    convolutions = {3 * n + 1: layer(one) for n, one in enumerate(network.convolutions)}
    read = {
        1: Lua("nn.Identity"),
        2: parts({**convolutions, 2: Lua("nn.Threshold", threshold=1e-6)}),
        4: parts(recurrent, forwardnodes={1: Lua("nngraph.Node", data={"module": recurrent[2]})}),
        6: layer(network.project),
    }
    return {"protos": {"enc_doc": parts(read), "enc_image": parts({1: layer(nn.Linear(2, 2))})}, "i": 30000}


@pytest.mark.parametrize("kind", [CharCNNGRU, CharCNNRNN])
def test_a_file_as_the_authors_wrote_it_fills_the_encoder(tmp_path, kind):
    trained, ours = kind((16, 16, 16), DIM), kind((16, 16, 16), DIM)
    (tmp_path / "net.t7").write_bytes(t7(as_torch_has_it(trained)))
    load_strictly(ours, kind.released(read_state(tmp_path / "net.t7"), ours), "net.t7")
    assert torch.equal(ours(spelt(CAPTIONS)), trained(spelt(CAPTIONS)))


def test_googlenet_is_torchvisions_behind_its_own_first_step():
    from torchvision.models.googlenet import GoogLeNet  # behind mmbench, which makes it importable

    theirs = GoogLeNet(transform_input=True, init_weights=False).eval()
    ours = GoogLeNetTrunk().eval()
    ours.load_state_dict(GOOGLENET(theirs.state_dict(), ours))
    theirs.fc = nn.Identity()
    image = torch.rand(2, 3, 224, 224) * 2 - 1
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    with torch.no_grad():
        regions, pooled = ours(image)
        expected = theirs(((image + 1) / 2 - mean) / deviation)
    assert regions.shape == (2, 1024, 7, 7)
    assert torch.allclose(pooled, expected, atol=1e-4)


def test_it_makes_no_image(stage):
    with pytest.raises(ValueError, match="expected a method that makes images, found char_cnn_rnn"):
        stage.generate(batch_of(CAPTIONS), SimpleNamespace())
