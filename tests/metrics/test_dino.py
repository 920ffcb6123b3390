"""DINO's networks: their authors' files fill them, and a pass by hand and torchvision's resizing give the same."""

import json
import math

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms as T
import yaml
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from mmbench.core import catalogue, composition
from mmbench.core.cards import Card
from mmbench.metrics import Extractor
from mmbench.networks.dino import DINO, resized_positions
from mmbench.networks.open_clip import OpenCLIP
from mmbench.networks.resizing import AliasedSquash, ShorterSide, Squash

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3}
HEADS = SMALL["num_heads"]
V1, V2 = "vit_small_patch16_224.dino", "vit_base_patch14_dinov2.lvd142m"


def weights(grid, scales, seed=0):
    """A file as the authors publish them, of a small network: M x M patches, with the factors of DINOv2's layers."""
    stream = torch.Generator().manual_seed(seed)
    dim, patch = SMALL["embed_dim"], 14 if scales else 16
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + grid**2, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    } | ({"mask_token": (1, dim)} if scales else {})
    for block in range(SMALL["depth"]):
        shapes |= {
            f"blocks.{block}.{name}": shape
            for name, shape in {
                "norm1.weight": (dim,),
                "norm1.bias": (dim,),
                "attn.qkv.weight": (3 * dim, dim),
                "attn.qkv.bias": (3 * dim,),
                "attn.proj.weight": (dim, dim),
                "attn.proj.bias": (dim,),
                "norm2.weight": (dim,),
                "norm2.bias": (dim,),
                "mlp.fc1.weight": (4 * dim, dim),
                "mlp.fc1.bias": (4 * dim,),
                "mlp.fc2.weight": (dim, 4 * dim),
                "mlp.fc2.bias": (dim,),
            }.items()
        }
        if scales:
            shapes |= {f"blocks.{block}.ls{branch}.gamma": (dim,) for branch in (1, 2)}
    return {name: 0.3 * torch.randn(shape, generator=stream) for name, shape in shapes.items()}


def by_hand(state, pictures, positions):
    """The class token, written out of the paper: (N, 3, S, S) normalised pictures and (1, 1 + n^2, D)."""
    patch = state["patch_embed.proj.weight"].shape[-1]
    x = F.conv2d(pictures, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    x = torch.cat((state["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)), dim=1) + positions
    dim = x.shape[-1]

    def norm(x, name):
        return F.layer_norm(x, (dim,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    for block in (f"blocks.{number}" for number in range(SMALL["depth"])):
        q, k, v = (
            one.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for one in linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=-1)
        )
        attention = (q @ k.transpose(2, 3) / math.sqrt(dim / HEADS)).softmax(dim=-1)
        heads = linear((attention @ v).transpose(1, 2).flatten(2), f"{block}.attn.proj")
        x = x + state.get(f"{block}.ls1.gamma", 1) * heads
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + state.get(f"{block}.ls2.gamma", 1) * linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")[:, 0]


def authors_positions(positions, side, patch):
    """As DINOv2's repository has it for pictures of `side` pixels."""
    old, new = math.isqrt(positions.shape[1] - 1), side // patch
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=((new + 0.1) / old,) * 2, mode="bicubic")
    return torch.cat((positions[:, :1], grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)), dim=1)


def extractor(network, state, folder):
    (folder / "weights").mkdir(exist_ok=True)
    torch.save(state, folder / "weights" / "net.pth")
    return Extractor("tiny", network, Card("net.pth", None, "a test", "none"), folder)


def picture(shape):
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return coarse.resize(shape[::-1], Image.Resampling.BICUBIC)


def tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]


def test_dino_on_its_authors_file_is_a_pass_by_hand(tmp_path):
    state = weights(grid=3, scales=False)
    ours = extractor(DINO(V1, ShorterSide(56, 48), **SMALL), state, tmp_path)
    image = picture((60, 90))
    transform = T.Compose(
        [
            T.Resize(56, interpolation=T.InterpolationMode.BICUBIC),
            T.CenterCrop(48),
            T.ToTensor(),
            T.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ]
    )
    expected = by_hand(state, transform(image)[None], state["pos_embed"])
    found = ours(tensor(image))["features"]
    assert found.shape == (1, SMALL["embed_dim"])
    assert ours.network.num_features == SMALL["embed_dim"]
    assert (found - expected).abs().max() < 0.02 * expected.abs().max(), "Pillow resizes in fixed point"
    levels = ours.network.resize(tensor(image)) / 255
    normalised = T.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)(levels)
    assert torch.allclose(found, by_hand(state, normalised, state["pos_embed"]), atol=1e-5)


def test_dinov2_resizes_positions_as_its_authors_do(tmp_path):
    state = weights(grid=5, scales=True)
    ours = extractor(DINO(V2, Squash(42), **SMALL), state, tmp_path)
    image = picture((60, 90))
    levels = ours.network.resize(tensor(image)) / 255
    normalised = T.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)(levels)
    expected = by_hand(state, normalised, authors_positions(state["pos_embed"], 42, 14))
    assert torch.allclose(ours(tensor(image))["features"], expected, atol=1e-5)
    plain = F.interpolate(state["pos_embed"][:, 1:].unflatten(1, (5, 5)).permute(0, 3, 1, 2), (3, 3), mode="bicubic")
    found = resized_positions(state["pos_embed"], 9)[:, 1:].unflatten(1, (3, 3)).permute(0, 3, 1, 2)
    assert (found - plain).abs().max() > 0.01, "the tenth of a patch is no matter of taste"
    assert torch.equal(resized_positions(state["pos_embed"], 25), state["pos_embed"])


def test_another_file_is_refused(tmp_path):
    state = weights(grid=3, scales=False)
    del state["blocks.1.mlp.fc1.bias"]
    with pytest.raises(ValueError, match=r"1 missing \(first blocks\.1\.mlp\.fc1\.bias\)"):
        extractor(DINO(V1, Squash(48), **SMALL), state, tmp_path)
    with pytest.raises(ValueError, match="crop of at most the resized side, 48, found 64"):
        ShorterSide(48, 64)


@pytest.mark.parametrize("shape", [(64, 64), (90, 150), (201, 77), (30, 20)])
def test_resizing_is_torchvisions_of_files(shape):
    image = picture(shape)
    for ours, theirs in (
        (ShorterSide(64, 56), [T.Resize(64, T.InterpolationMode.BICUBIC), T.CenterCrop(56)]),
        (Squash(56), [T.Resize((56, 56), T.InterpolationMode.BICUBIC)]),
    ):
        found, expected = ours(tensor(image)), tensor(T.Compose(theirs)(image)).float()
        assert found.shape == expected.shape == (1, 3, ours.size, ours.size)
        # Pillow rounds between its two passes, too, which enlarging makes more of.
        assert (found - expected).abs().max() <= (3 if min(shape) < 56 else 1)
    aliased = AliasedSquash(24)(tensor(image))
    assert aliased.shape == (1, 3, 24, 24)
    assert not torch.equal(aliased, aliased.round())


@pytest.mark.parametrize("side", [224, 256, 336])
def test_sides_are_torchvisions_for_every_shape(side):
    for height in range(17, 400, 13):
        for width in (height, 2 * height, 3 * height, 391):
            expected = T.functional._compute_resized_output_size((height, width), [side], allow_size_none=True)
            found = [side * one // min(height, width) for one in (height, width)]
            assert found == list(expected)


@pytest.mark.parametrize(
    "name", ["dino/standard", "dino/dinov2_vitb14", "dinov2/standard", "clip/vitl14", "clip_336/standard"]
)
def test_a_card_names_all_that_a_score_depends_on(name):
    node = composition.node(f"network/{name}")
    resize = node["network"]["resize"]
    kind = resize["_target_"].rpartition(".")[2]
    words = {
        "ShorterSide": f"side{resize.get('side')}-crop{resize['size']}-bicubic",
        "Squash": f"squash{resize['size']}-bicubic",
        "AliasedSquash": f"squash{resize['size']}-aliased-bicubic",
    }[kind]
    family, backbone, rest = node["name"].split("-", 2)
    assert rest == f"{words}-{'openai' if family == 'clip' else 'imagenet'}"
    plain = node["network"]["architecture"].lower().replace("-", "").replace("_", "")
    kinds = {"s": "small", "b": "base", "l": "large"}
    letter, patch = backbone[3], backbone[4:]
    assert plain.startswith((f"vit{letter}{patch}", f"vit{kinds[letter]}patch{patch}"))
    assert (family == "clip") == node["network"]["_target_"].endswith("OpenCLIP")
    assert ("dinov2" in plain) == (family == "dinov2")
    card = Card(**{key: value for key, value in node["card"].items() if key != "_target_"})
    assert card.licence in ("Apache-2.0", "MIT")


def test_names_of_extractors_are_of_one_network_each():
    """But for the toy ones, whose records say which by their hash, and "standard", which each folder has once."""
    seen, networks = {}, catalogue.shipped("conf") / "network"
    for folder in sorted(path.name for path in networks.iterdir()):
        for name in catalogue.names(f"network/{folder}"):
            node = yaml.safe_load((networks / folder / f"{name}.yaml").read_text(encoding="utf-8"))
            if "-" in node.get("name", ""):
                assert seen.setdefault(node["name"], node) is node
    assert len(seen) > 4


def test_clip_is_resized_as_it_is_told(tmp_path):
    tiny = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    (tmp_path / "mmbench-squash.json").write_text(json.dumps(tiny))
    open_clip.add_model_config(tmp_path / "mmbench-squash.json")
    torch.manual_seed(0)
    network = OpenCLIP("mmbench-squash", AliasedSquash(32)).eval()
    levels = tensor(picture((40, 70)))
    mean, deviation = (
        torch.tensor(values)[:, None, None] for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    # As the port of CMMD does: floats in [0, 1], bicubic without anti-aliasing, nothing cut.
    pixels = (F.interpolate(levels / 255, (32, 32), mode="bicubic") - mean) / deviation
    with torch.no_grad():
        expected = F.normalize(network.network.encode_image(pixels), dim=-1)
        found = network(levels)
    assert torch.allclose(found["features"], expected, atol=1e-5)
    assert torch.equal(found["features"], found["embedding"])
    assert found["features"].shape == (1, network.num_features)
