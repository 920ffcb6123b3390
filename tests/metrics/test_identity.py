"""Identity: the crop of an aligned face, the file of weights, and cosines. The network has a parity test."""

import pytest
import torch

from mmbench.core.cards import Card
from mmbench.metrics import Extractor, features
from mmbench.metrics.identity import Identity
from mmbench.networks.facenet import FaceNet, face


def score(metric, images, batch):
    metric.update(images, batch)
    return metric.compute()


@pytest.mark.parametrize("size", [128, 256, 512, 1024])
def test_the_crop_is_that_of_psp_at_any_size(size):
    """Rows 35 to 223 and columns 32 to 220 of 256: white there, black elsewhere."""
    top, bottom, left, right = (round(place * size / 256) for place in (35, 223, 32, 220))
    pictures = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    pictures[..., top:bottom, left:right] = 255
    assert torch.allclose(face(pictures), torch.tensor(255.0))
    assert float(face(255 - pictures).max()) == 0
    pictures[..., top, :] = 0  # the first row belongs to it
    assert float(face(pictures)[..., 0, :].max()) < 255


def test_pictures_that_are_not_square_are_refused(make_extractor):
    class Faces(torch.nn.Module):
        def load(self, path):
            pass

        def forward(self, images):
            return {"embedding": face(images).flatten(1)[:, :3]}

    images = torch.zeros(2, 3, 32, 48, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"expected square pictures of faces, .* found 48 x 32: align them"):
        score(Identity(make_extractor(Faces()), against="image"), images, {"image": images})


def test_identity_is_the_mean_cosine(make_extractor, pixels, batch_of):
    images, real = pixels(4), pixels(4, 1)
    found = score(Identity(make_extractor(), against="image"), images, batch_of(real))
    vectors = [pictures.flatten(1)[:, :3].double() for pictures in (images, real)]
    assert found.value == pytest.approx(float(torch.cosine_similarity(*vectors).mean()), rel=1e-12)
    assert found == score(Identity(make_extractor(), against="image"), real, batch_of(images))
    unchanged = score(Identity(make_extractor(), against="image"), real, batch_of(real))
    assert unchanged.value == pytest.approx(1, abs=1e-15)


def test_an_embedding_of_no_length_is_refused(make_extractor, batch_of):
    black = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="expected finite Identity values, found NaN"):
        score(Identity(make_extractor(), against="image"), black, batch_of(black))


def test_the_file_may_have_classes_and_a_face_depends_on_no_other(tmp_path, pixels, monkeypatch):
    monkeypatch.setitem(features.PART, False, 2)  # images at once, which takes seconds less
    torch.manual_seed(0)
    network = FaceNet()
    names = {
        "stem.0.conv.weight": "conv2d_1a.conv.weight",
        "blocks_c.5.branches.1.2.bn.bias": "block8.branch1.2.bn.bias",
    }
    theirs = authors_keys(network)
    assert {theirs[ours] for ours in names} == set(names.values())
    state = {theirs[key]: value for key, value in network.state_dict().items()}
    path = tmp_path / "weights" / "faces.pt"
    path.parent.mkdir()
    torch.save(state | {"logits.weight": torch.zeros(2, 512), "logits.bias": torch.zeros(2)}, path)
    extractor = Extractor("faces", FaceNet(), Card(path.name, None, "a test", "none"), tmp_path)
    images = pixels(2, 0, 64)
    found = extractor(images)["embedding"]
    assert torch.allclose(found.norm(dim=1), torch.ones(2))
    assert torch.equal(extractor(images[1:].clone())["embedding"], found[1:])


def authors_keys(network):
    """Our keys to facenet-pytorch's, by hand and not by the key map."""
    stem = {0: "1a", 1: "2a", 2: "2b", 4: "3b", 5: "4a", 6: "4b"}
    outer = {"blocks_a": "repeat_1", "blocks_b": "repeat_2", "blocks_c": "repeat_3"}
    outer |= {"reduction_a": "mixed_6a", "reduction_b": "mixed_7a", "projection": "last_linear", "norm": "last_bn"}
    found = {}
    for key in network.state_dict():
        first, *rest = key.split(".")
        if first == "stem":
            found[key] = ".".join([f"conv2d_{stem[int(rest[0])]}", *rest[1:]])
            continue
        name = f"{outer[first]}.{'.'.join(rest)}".replace("repeat_3.5.", "block8.").replace("merge.", "conv2d.")
        single = ["repeat_1", "repeat_2", "repeat_3", "block8", "mixed_6a"]
        if any(name.startswith(block) for block in single):
            name = name.replace("branches.0.0.", "branch0.")
        found[key] = name.replace("branches.", "branch")
    return found
