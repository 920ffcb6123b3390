"""Trains the small networks of `mmbench/networks/toy.py`: `make toy-networks`.

Birds come from random streams whose keys begin with words, where those of a data set begin with its seed: no bird of
any toy data set is among them, and judges and backbones share none. One core, a few minutes, the same weights each
time.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from mmbench.core.config import shipped
from mmbench.core.files import sha256_file, write_text, written_atomically
from mmbench.core.images import from_uint8
from mmbench.core.noise import random_stream
from mmbench.core.progress import track
from mmbench.data.toy_birds import BILL_SHAPES, COLOURS, PARTS, WING_PATTERNS, Bird, describe, render, sample_bird
from mmbench.networks import toy

FOLDER = Path(toy.__file__).parent / "toy"
BATCH = 128
VALUES = dict.fromkeys(PARTS, COLOURS) | {"bill_shape": BILL_SHAPES, "wing_pattern": WING_PATTERNS}
GROUPS = list(toy.ATTRIBUTES.values())
NUM_VALUES = sum(GROUPS)
DISTORTIONS = ("noise", "blur", "shift", "light", "recolouring", "grain before recolouring")


class Aviary(NamedTuple):
    """Pictures of birds, and what is true of them.

    Attributes:
        images: (N, 3, 64, 64) uint8.
        attributes: (N, 7) int64, the value of each of `toy.ATTRIBUTES`.
        birds: the N birds.
        recoloured: (N, 2, 3, 64, 64) uint8, the pictures with one and with three parts recoloured; empty if unasked.
    """

    images: Tensor
    attributes: Tensor
    birds: list[Bird]
    recoloured: Tensor


def aviary(name: str, count: int, recolour: bool = False) -> Aviary:
    """`count` birds with all attributes independent of each other, cropped around the bird as CUB's boxes are."""
    birds, images, recoloured = [], [], []
    for number in track(range(count), f"drawing {name}"):
        rng = random_stream("toy networks", name, number)
        values = {key: options[int(rng.integers(len(options)))] for key, options in VALUES.items()}
        bird = replace(sample_bird(rng), **values)
        birds.append(bird)
        reach = float(rng.uniform(0.62, 0.85))
        images.append(picture(bird, name, number, reach))
        if recolour:
            for parts in (1, 3):
                chosen = [PARTS[index] for index in rng.permutation(len(PARTS))[:parts]]
                others = {part: [colour for colour in COLOURS if colour != values[part]] for part in chosen}
                other = {part: colours[int(rng.integers(len(colours)))] for part, colours in others.items()}
                recoloured.append(picture(replace(bird, **other), name, number, reach))
    attributes = torch.tensor([[VALUES[key].index(getattr(bird, key)) for key in toy.ATTRIBUTES] for bird in birds])
    pairs = torch.stack(recoloured).unflatten(0, (count, 2)) if recolour else torch.empty(0)
    return Aviary(torch.stack(images), attributes, birds, pairs)


def picture(bird: Bird, name: str, number: int, reach: float) -> Tensor:
    """A square that goes `reach` times the longer side of the bird's box to each side of it: (3, 64, 64) uint8."""
    image, _, (x, y, width, height) = render(bird, random_stream("toy networks", name, number, "picture"))
    half = int(reach * max(width, height))
    column, row = x + width // 2, y + height // 2
    crop = Image.fromarray(image[max(0, row - half) : row + half, max(0, column - half) : column + half])
    side = min(crop.size)
    left, top = (crop.width - side) // 2, (crop.height - side) // 2
    crop = crop.resize((toy.SIZE, toy.SIZE), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1)


def fit(name: str, modules: list[nn.Module], count: int, epochs: int, loss: Callable[[Tensor], Tensor]) -> None:
    """Minimises `loss`, a function of the indices of a batch, by Adam with a one-cycle learning rate."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    steps = list(_batches(count, epochs))
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=6e-3, total_steps=len(steps))
    for indices in track(steps, f"training {name}"):
        optimiser.zero_grad()
        loss(indices).backward()
        optimiser.step()
        schedule.step()
    for module in modules:
        module.eval()


def _batches(count: int, epochs: int) -> Iterator[Tensor]:
    for _ in range(epochs):
        yield from torch.randperm(count)[: count - count % BATCH].split(BATCH)


def attribute_loss(logits: Tensor, attributes: Tensor) -> Tensor:
    """Mean cross-entropy over the attributes: logits (N, 56), attributes (N, 7)."""
    parts = logits.split(GROUPS, dim=1)
    return torch.stack([F.cross_entropy(part, attributes[:, i]) for i, part in enumerate(parts)]).mean()


def train_classifier(
    network: nn.Module,
    logits: Callable[[Tensor], Tensor],
    extra: list[nn.Module],
    train: Aviary,
    test: Aviary,
    epochs: int,
) -> None:
    """Teaches a network the attributes through `logits`, uint8 images to (N, 56); prints what it tells of new birds."""
    name = type(network).__name__

    def loss(indices: Tensor) -> Tensor:
        return attribute_loss(logits(train.images[indices]), train.attributes[indices])

    fit(name, [network, *extra], len(train.images), epochs, loss)
    with torch.no_grad():
        found = torch.cat([logits(images) for images in test.images.split(250)]).split(GROUPS, dim=1)
    right = [float((part.argmax(1) == test.attributes[:, i]).double().mean()) for i, part in enumerate(found)]
    shares = ", ".join(f"{key} {value:.3f}" for key, value in zip(toy.ATTRIBUTES, right, strict=True))
    print(f"{name}: attributes told of {len(test.images)} unseen birds: {shares}")


def true_shares(named: list[dict[str, str]], attributes: Tensor) -> Tensor:
    """What share of the attributes that text j names is true of bird i; attributes (N, 7): (birds, texts)."""
    truth = torch.cat([F.one_hot(attributes[:, i], size) for i, size in enumerate(GROUPS)], dim=1).float()
    wanted = torch.zeros(len(named), NUM_VALUES)
    starts = dict(zip(toy.ATTRIBUTES, np.cumsum([0, *GROUPS]).tolist(), strict=False))
    for row, names in enumerate(named):
        for key, value in names.items():
            wanted[row, starts[key] + VALUES[key].index(value)] = 1
    return truth @ wanted.T / wanted.sum(1)


def train_clip(network: toy.ToyCLIP, train: Aviary, test: Aviary, epochs: int) -> None:
    """Matches pictures with captions: how well they match is the share of named attributes that are true."""
    affine = nn.ParameterList([torch.tensor(8.0), torch.tensor(-2.0)])
    teacher = nn.Linear(64, NUM_VALUES)  # helps the pictures' half to its features; not kept
    words = random_stream("toy networks", "captions")

    def matched(birds: Aviary, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        texts, named = zip(*(describe(birds.birds[i], words) for i in indices), strict=True)
        image, text = network(birds.images[indices])["embedding"], network(list(texts))["embedding"]
        return image @ text.T, true_shares(list(named), birds.attributes[indices]), image

    def loss(indices: Tensor) -> Tensor:
        cosine, share, image = matched(train, indices)
        logits, target = affine[0] * cosine, 8 * share
        match = F.binary_cross_entropy_with_logits(logits + affine[1], share)
        contrast = [
            F.kl_div(logits.log_softmax(dim), target.log_softmax(dim), log_target=True, reduction="sum")
            for dim in (0, 1)  # which picture belongs to a text, and which text to a picture
        ]
        told = attribute_loss(teacher(8 * image), train.attributes[indices])
        return match + told + sum(contrast) / (2 * len(indices))

    fit("ToyCLIP", [network, affine, teacher], len(train.images), epochs, loss)
    with torch.no_grad():
        cosines, shares, _ = zip(*(matched(test, i) for i in torch.arange(len(test.birds)).split(100)), strict=True)
    pairs = list(zip(cosines, shares, strict=True))
    columns = torch.arange(100)
    found = {
        "picture of a text": [share[cosine.argmax(0), columns] == 1 for cosine, share in pairs],
        "text of a picture": [share[columns, cosine.argmax(1)] == 1 for cosine, share in pairs],
    }
    right = ", ".join(f"{key} {float(torch.cat(values).double().mean()):.3f}" for key, values in found.items())
    cosine, share = torch.cat(cosines), torch.cat(shares)
    means = ", ".join(f"{value:.1f} {float(cosine[share == value].mean()):.3f}" for value in (1.0, 0.5, 0.0))
    print(f"ToyCLIP: first of 100 is wholly true: {right}; mean cosine by true share: {means}")


def distorted(birds: Aviary, indices: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The pictures with a weaker and a stronger distortion of a kind: two of (N, 3, 64, 64) uint8."""
    images = birds.images[indices].float()
    weak = 0.1 + 0.5 * float(torch.rand(()))
    strengths = (weak, weak + 0.2 + 0.3 * float(torch.rand(())))
    if kind == "recolouring":
        return birds.recoloured[indices, 0], birds.recoloured[indices, 1]
    noise = torch.randn_like(images)
    if kind == "grain before recolouring":
        return (images + 5 * noise).round().clamp(0, 255).byte(), birds.recoloured[indices, 0]
    pair = [_distorted(images, kind, strength, noise) for strength in strengths]
    return pair[0].round().clamp(0, 255).byte(), pair[1].round().clamp(0, 255).byte()


def _distorted(images: Tensor, kind: str, strength: float, noise: Tensor) -> Tensor:
    match kind:
        case "noise":
            return images + 60 * strength * noise
        case "blur":
            size = round(toy.SIZE * (1 - 0.8 * strength))
            small = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
            return F.interpolate(small, images.shape[-2:], mode="bilinear")
        case "shift":
            return images.roll((round(10 * strength), round(6 * strength)), (2, 3))
        case _:
            return (images - 128) * (1 - 0.6 * strength) + 128 + 40 * strength


def train_lpips(network: toy.ToyLPIPS, train: Aviary, test: Aviary, epochs: int) -> None:
    """Teaches the distance to put the weaker of two distortions first; then scales it."""

    def distances(birds: Aviary, indices: Tensor, kind: str) -> list[Tensor]:
        source = network(birds.images[indices])["embedding"]
        pair = distorted(birds, indices, kind)
        return [(network(images)["embedding"] - source).square().sum(1) for images in pair]

    def loss(indices: Tensor) -> Tensor:
        for head in network.heads:
            head.data.clamp_(min=1e-6)  # weights of squared differences; the root has no gradient at 0
        weak, strong = distances(train, indices, DISTORTIONS[int(torch.randint(len(DISTORTIONS), ()))])
        return F.softplus(2 * ((weak + 1e-6).log() - (strong + 1e-6).log())).mean()

    fit("ToyLPIPS", [network], len(train.images), epochs, loss)
    with torch.no_grad():
        embedding = network(test.images)["embedding"]
        apart = (embedding - embedding.roll(1, 0)).square().sum(1).mean()
        for head in network.heads:
            head.clamp_(min=0).div_(apart)
        pairs = {kind: distances(test, torch.arange(len(test.images)), kind) for kind in DISTORTIONS}
    orders = ", ".join(f"{kind} {float((weak < strong).double().mean()):.3f}" for kind, (weak, strong) in pairs.items())
    print(f"ToyLPIPS: pairs put in order, of {len(test.images)} unseen birds: {orders}")


def save(network: nn.Module, name: str) -> None:
    """Writes the weights, and their hash into the card of `conf/network/<name>/toy.yaml`."""
    path = FOLDER / f"{name}.safetensors"
    with written_atomically(path) as partial:
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, partial)
    card = shipped("conf") / "network" / name / "toy.yaml"
    text = card.read_text(encoding="utf-8")
    write_text(card, re.sub(r"(?m)^  sha256:.*$", f"  sha256: {sha256_file(path)}", text))
    print(f"{path.name}: {path.stat().st_size} bytes")


def train_judges() -> None:
    birds, unseen = aviary("judges", 16000), aviary("judges, unseen", 1000)
    torch.manual_seed(1)
    inception = toy.ToyInception()
    train_classifier(inception, lambda images: inception(images)["attributes"], [], birds, unseen, epochs=6)
    save(inception, "inception")
    torch.manual_seed(2)
    clip = toy.ToyCLIP()
    train_clip(clip, birds, unseen, epochs=8)
    save(clip, "clip")
    torch.manual_seed(3)
    lpips = toy.ToyLPIPS()
    train_lpips(lpips, aviary("distances", 1536, True), aviary("distances, unseen", 256, True), epochs=20)
    save(lpips, "lpips")


def train_backbones() -> None:
    birds, unseen = aviary("backbones", 8000), aviary("backbones, unseen", 1000)
    torch.manual_seed(4)
    trunk = toy.ToyInceptionTrunk()
    head = nn.Linear(trunk.global_channels, NUM_VALUES)
    train_classifier(trunk, lambda images: head(trunk(from_uint8(images))[1]), [head], birds, unseen, epochs=6)
    save(trunk, "inception_trunk")
    torch.manual_seed(5)
    vgg = toy.ToyVGG()
    tail = nn.Sequential(
        *(nn.MaxPool2d(2), nn.Conv2d(vgg.channels, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, NUM_VALUES)),
    )
    train_classifier(vgg, lambda images: tail(vgg(from_uint8(images))), [tail], birds, unseen, epochs=4)
    save(vgg, "vgg")


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_judges()
    train_backbones()


if __name__ == "__main__":
    main()
