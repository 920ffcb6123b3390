"""Trains the small networks of `mmbench/networks/toy.py`: `make toy-networks`, of one kind with `ARGS=scenes`.

On pictures of `toy_pictures`, of which judges and backbones share none. What guides methods is scaled to what its
docstring says. One core, some ten minutes for each kind at most, the same weights each time. `parts` and
`flower_parts` are kinds of their own: what finds parts in generated pictures.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from mmbench.core.catalogue import shipped
from mmbench.core.files import sha256_file, write_text, written_atomically
from mmbench.core.images import from_uint8
from mmbench.core.noise import random_stream
from mmbench.core.progress import track
from mmbench.data.toy.birds import COLOURS, PALETTE, PARTS, sample_bird
from mmbench.data.toy.scenery import background
from mmbench.maintenance.toy_pictures import (
    Claims,
    Pictures,
    aviary,
    gallery,
    garden,
    small,
    varied_flower,
    view_of_bird,
    view_of_flower,
)
from mmbench.metrics.caption_accuracy import FOUND, MIN_PIXELS
from mmbench.networks import toy

PACKAGE = Path(toy.__file__).parents[1]
BATCH = 128
UNSURE = -1  # a label that no loss looks at
DISTORTIONS = ("noise", "blur", "shift", "light", "recolouring", "grain before recolouring")


def fit(name: str, modules: list[nn.Module], count: int, epochs: int, loss: Callable[[Tensor], Tensor]) -> None:
    """Minimises `loss`, a function of the indices of a batch, by Adam with a one-cycle learning rate."""
    parameters = [parameter for module in modules for parameter in module.train().parameters()]
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


def attribute_loss(logits: Tensor, attributes: Tensor, sizes: dict[str, int]) -> Tensor:
    """Mean cross-entropy over the attributes: logits (N, all values), attributes (N, A)."""
    parts = logits.split(list(sizes.values()), dim=1)
    return torch.stack([F.cross_entropy(part, attributes[:, i]) for i, part in enumerate(parts)]).mean()


def train_classifier(
    network: nn.Module,
    logits: Callable[[Tensor], Tensor],
    extra: list[nn.Module],
    train: Pictures,
    test: Pictures,
    epochs: int,
) -> None:
    """Teaches a network the attributes through `logits`, uint8 images to (N, all values); prints what it tells then."""
    name = type(network).__name__

    def loss(indices: Tensor) -> Tensor:
        return attribute_loss(logits(train.images[indices]), train.attributes[indices], train.sizes)

    fit(name, [network, *extra], len(train.images), epochs, loss)
    with torch.no_grad():
        found = torch.cat([logits(images) for images in test.images.split(250)])
    parts = found.split(list(test.sizes.values()), dim=1)
    right = [float((part.argmax(1) == test.attributes[:, i]).double().mean()) for i, part in enumerate(parts)]
    shares = ", ".join(f"{key} {value:.3f}" for key, value in zip(test.sizes, right, strict=True))
    print(f"{name}: attributes told of {len(test.images)} unseen pictures: {shares}")


def true_shares(claims: list[Claims], pictures: Pictures, indices: Tensor) -> Tensor:
    """What share of the claims of text j is true of picture i: (pictures, texts)."""
    values = zip(pictures.attributes[indices].T, pictures.sizes.values(), strict=True)
    truth = torch.cat([F.one_hot(value, size) for value, size in values], dim=1).float()
    starts = dict(zip(pictures.sizes, np.cumsum([0, *pictures.sizes.values()]).tolist(), strict=False))
    wanted = torch.zeros(len(claims), truth.shape[1])
    for row, of_text in enumerate(claims):
        for key, options in of_text:
            wanted[row, [starts[key] + value for value in options]] += 1
    return truth @ wanted.T / torch.tensor([len(of_text) for of_text in claims])


def train_clip(network: toy.ToyCLIP, train: Pictures, test: Pictures, epochs: int) -> None:
    """Matches pictures with captions: how well they match is the share of a caption's claims that are true."""
    name = type(network).__name__
    affine = nn.ParameterList([torch.tensor(8.0), torch.tensor(-2.0)])
    teacher = nn.Linear(64, sum(train.sizes.values()))  # helps the pictures' half to its features; not kept
    words = random_stream("toy networks", "captions")

    def matched(pictures: Pictures, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        texts, claims = zip(*(pictures.captioned(int(i), words) for i in indices), strict=True)
        image, text = network(pictures.images[indices])["embedding"], network(list(texts))["embedding"]
        return image @ text.T, true_shares(list(claims), pictures, indices), image

    def loss(indices: Tensor) -> Tensor:
        cosine, share, image = matched(train, indices)
        logits, target = affine[0] * cosine, 8 * share
        match = F.binary_cross_entropy_with_logits(logits + affine[1], share)
        contrast = [
            F.kl_div(logits.log_softmax(dim), target.log_softmax(dim), log_target=True, reduction="sum")
            for dim in (0, 1)  # which picture belongs to a text, and which text to a picture
        ]
        told = attribute_loss(teacher(8 * image), train.attributes[indices], train.sizes)
        return match + told + sum(contrast) / (2 * len(indices))

    fit(name, [network, affine, teacher], len(train.images), epochs, loss)
    with torch.no_grad():
        cosines, shares, _ = zip(*(matched(test, i) for i in torch.arange(len(test.images)).split(100)), strict=True)
    pairs = list(zip(cosines, shares, strict=True))
    columns = torch.arange(100)
    found = {
        "picture of a text": [share[cosine.argmax(0), columns] == 1 for cosine, share in pairs],
        "text of a picture": [share[columns, cosine.argmax(1)] == 1 for cosine, share in pairs],
    }
    right = ", ".join(f"{key} {float(torch.cat(values).double().mean()):.3f}" for key, values in found.items())
    cosine, share = torch.cat(cosines), torch.cat(shares)
    means = ", ".join(f"{value:.1f} {float(cosine[share == value].mean()):.3f}" for value in (1.0, 0.5, 0.0))
    print(f"{name}: first of 100 is wholly true: {right}; mean cosine by true share: {means}")


def distorted(birds: Pictures, indices: Tensor, kind: str) -> tuple[Tensor, Tensor]:
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


def train_lpips(network: toy.ToyLPIPS, train: Pictures, test: Pictures, epochs: int) -> None:
    """Teaches the distance to put the weaker of two distortions first; then scales it."""

    def distances(birds: Pictures, indices: Tensor, kind: str) -> list[Tensor]:
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


def degraded(images: Tensor) -> Tensor:
    """Images (N, 3, 64, 64) in [-1, 1] as a generator might make them: in other light, a half blurred, a half noisy."""
    count = len(images)
    images = images * (0.8 + 0.4 * torch.rand(count, 3, 1, 1)) + 0.3 * (torch.rand(count, 3, 1, 1) - 0.5)
    side = 24 + 8 * int(torch.randint(5, ()))
    blurred = F.interpolate(
        F.interpolate(images, (side, side), mode="bilinear", antialias=True), images.shape[-2:], mode="bilinear"
    )
    images = torch.where(torch.rand(count, 1, 1, 1) < 0.5, blurred, images)
    strength = 0.25 * torch.rand(count, 1, 1, 1) * (torch.rand(count, 1, 1, 1) < 0.5)
    return (images + strength * torch.randn_like(images)).clamp(-1, 1)


def nothings(images: Tensor, scenery: Tensor) -> Tensor:
    """As many pictures with no object in them as there are images (N, 3, 64, 64) in [-1, 1]; a sixth of each kind.

    Noise, coarse or fine; one flat colour; patches of the palette's colours; scenery; the images in shuffled pieces,
    large or small; and noise about one colour of the palette.
    """
    palette = torch.tensor(list(PALETTE.values())) / 127.5 - 1
    kinds, made = images.tensor_split(6), []
    for kind, part in enumerate(kinds):
        count, cells = len(part), 2 ** int(torch.randint(1, 7, ()))  # 2 to 64 a side
        colours = palette[torch.randint(len(palette), (count, cells, cells))].movedim(-1, 1)
        match kind:
            case 0:
                some = 2 * torch.rand(count, 3, cells, cells) - 1
            case 1:
                some = 2 * torch.rand(count, 3, 1, 1) - 1
            case 2:
                some = colours
            case 3:
                some = scenery[torch.randint(len(scenery), (count,))]
            case 4:
                some = shuffled(part, 2 ** int(torch.randint(1, 6, ())))
            case _:
                some = colours[:, :, :1, :1] + torch.rand(()) * torch.randn(count, 3, toy.SIZE, toy.SIZE)
        smooth = "bilinear" if kind == 0 and torch.rand(()) < 0.5 else "nearest"
        made.append(F.interpolate(some, (toy.SIZE, toy.SIZE), mode=smooth).clamp(-1, 1))
    return torch.cat(made)


def shuffled(images: Tensor, pieces: int) -> Tensor:
    """Images (N, C, H, W) in `pieces` x `pieces` pieces, which change places, in all images alike."""
    tiles = rearrange(images, "n c (a h) (b w) -> n (a b) c h w", a=pieces, b=pieces)
    tiles = tiles[:, torch.randperm(pieces**2)]
    return rearrange(tiles, "n (a b) c h w -> n c (a h) (b w)", a=pieces, b=pieces)


Views = list[tuple[Tensor, Tensor]]  # pictures (3, 64, 64) uint8, and how much of each pixel each part covers


def train_parts(network: toy.ToyParts, train: Views, test: Views, epochs: int) -> None:
    """Teaches a network where parts are, and that nothing is where no object is; prints what it finds then."""
    images, labels = from_uint8(torch.stack([view[0] for view in train])), torch.stack([_labels(c) for _, c in train])
    streams = [random_stream("toy networks", "scenery", number) for number in range(200)]
    scenery = from_uint8(torch.stack([small(background(128, 128, rng), (0, 0, 384, 384)) for rng in streams]))

    # What is small counts more, though less than in proportion: the bill of a bird is a hundredth of what is none.
    counts = torch.bincount(labels[labels != UNSURE], minlength=1 + network.num_parts)
    weights = (counts[0] / counts) ** (1 / 3)

    def loss(indices: Tensor) -> Tensor:
        nothing = nothings(images[indices[: len(indices) // 4]], scenery)
        logits = network.logits(torch.cat((degraded(images[indices]), nothing)))
        wanted = torch.cat((labels[indices], labels.new_zeros(len(nothing), *labels.shape[1:])))
        return F.cross_entropy(logits, wanted, weights, ignore_index=UNSURE)

    fit(type(network).__name__, [network], len(images), epochs, loss)
    with torch.no_grad():
        unseen, truth = torch.stack([view[0] for view in test]), torch.stack([view[1] for view in test])
        found = torch.cat([network(part)["parts"] for part in unseen.split(128)]) > FOUND
        empty = torch.cat([nothings(from_uint8(part), scenery) for part in unseen.split(128)])
        wrong = network.logits(empty).argmax(1) > 0
    told = [float((truth[:, part][found[:, part]]).mean()) for part in range(network.num_parts)]
    there = [float((found[:, part].sum((1, 2)) >= MIN_PIXELS).double().mean()) for part in range(network.num_parts)]
    shares = [", ".join(f"{value:.3f}" for value in values) for values in (told, there)]
    print(f"{type(network).__name__}, of {len(test)} unseen pictures: of what is found is of the part: {shares[0]}")
    print(f"found in: {shares[1]}; pixels found where nothing is: {float(wrong.double().mean()):.5f}")


def _labels(coverage: Tensor) -> Tensor:
    """Coverage (P, 64, 64) to labels (64, 64): 1 + p inside the p-th part, 0 where none is, `UNSURE` at a border."""
    most, part = coverage.max(0)
    return torch.where(most > 0.8, 1 + part, torch.where(most < 0.5, 0, UNSURE))


@torch.no_grad()
def scale_vgg(network: toy.ToyVGG, birds: Pictures) -> None:
    """Scales the last layer so that the features of two birds are `APART` from each other, in the mean square."""
    squares = mean_square_apart(network(from_uint8(birds.images)))
    for parameter in network.conv2_2.parameters():  # a rectifier of a multiple is the multiple of the rectifier
        parameter.mul_((network.APART / squares) ** 0.5)


def mean_square_apart(features: Tensor) -> float:
    """Mean square of the difference of two pictures' features (N, ...), over all pairs of different pictures."""
    return 2 * float(features.double().var(0).mean())


@torch.no_grad()
def pixels_told(network: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """How much of the variance of pixels a linear map of the features at each place tells: 1 - residual / variance.

    Args:
        network: from images (N, 3, H, W) in [-1, 1] to features (N, C, H / 2, W / 2).
        images: (N, 3, H, W) uint8. The map, to the 2 x 2 pixels of a place, is fitted to the first half of them by
            least squares, and judged by the second.
    """
    pixels = from_uint8(images).double()
    features = network(from_uint8(images)).double()
    known = rearrange(F.pad(features, (0, 0, 0, 0, 0, 1), value=1.0), "n c h w -> n (h w) c")  # a constant, too
    wanted = rearrange(pixels, "n c (h a) (w b) -> n (h w) (c a b)", a=2, b=2)
    half = len(images) // 2
    fitted = torch.linalg.lstsq(known[:half].flatten(0, 1), wanted[:half].flatten(0, 1), driver="gelsd").solution
    residual = (known[half:].flatten(0, 1) @ fitted - wanted[half:].flatten(0, 1)).square().mean()
    return 1 - float(residual / wanted[half:].var())


def save(network: nn.Module, name: str) -> None:
    """Writes the weights to the file of the card of `conf/network/<name>.yaml`, and their hash into the card."""
    card = shipped("conf") / "network" / f"{name}.yaml"
    text = card.read_text(encoding="utf-8")
    path = PACKAGE / yaml.safe_load(text)["card"]["file"]
    with written_atomically(path) as partial:
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, partial)
    write_text(card, re.sub(r"(?m)^  sha256:.*$", f"  sha256: {sha256_file(path)}", text))
    print(f"{path.name}: {path.stat().st_size} bytes")


def train_judges() -> None:
    """Those of birds."""
    kinds = toy.ToyInception, toy.ToyCLIP
    train_inception_and_clip("toy", aviary("judges", 16000), aviary("judges, unseen", 1000), 1, kinds, epochs=(6, 8))
    torch.manual_seed(3)
    lpips = toy.ToyLPIPS()
    train_lpips(lpips, aviary("distances", 1536, True), aviary("distances, unseen", 256, True), epochs=20)
    save(lpips, "lpips/toy")


def train_backbones() -> None:
    birds, unseen = aviary("backbones", 8000), aviary("backbones, unseen", 1000)
    torch.manual_seed(4)
    trunk = toy.ToyInceptionTrunk()
    head = nn.Linear(trunk.global_channels, sum(birds.sizes.values()))
    train_classifier(trunk, lambda images: head(trunk(from_uint8(images))[1]), [head], birds, unseen, epochs=6)
    save(trunk, "inception_trunk/toy")
    torch.manual_seed(5)
    vgg = toy.ToyVGG()
    tail = _attributes_of(vgg.channels, birds)
    train_classifier(vgg, lambda images: tail(vgg(from_uint8(images))), [tail], birds, unseen, epochs=4)
    scale_vgg(vgg, unseen)
    print(f"ToyVGG: {pixels_told(vgg, unseen.images):.3f} of the variance of the pixels of unseen birds is told")
    save(vgg, "vgg/toy")


def train_detailed_vgg() -> None:
    """`ToyVGG` whose features also hold the pixels, as those of the real relu2_2 do: a linear map of each place tells
    its 2 x 2 pixels. Of `vgg/toy`, which was taught attributes alone, it tells two fifths of their variance."""
    birds, unseen = aviary("backbones", 8000), aviary("backbones, unseen", 1000)
    torch.manual_seed(12)
    vgg, tail = toy.ToyVGG(), _attributes_of(toy.ToyVGG.channels, birds)
    pixels = nn.Conv2d(vgg.channels, 12, 1)

    def loss(indices: Tensor) -> Tensor:
        images = from_uint8(birds.images[indices])
        features = vgg(images)
        told = attribute_loss(tail(features), birds.attributes[indices], birds.sizes)
        return told + 20 * F.mse_loss(F.pixel_shuffle(pixels(features), 2), images)

    fit("ToyVGG, detailed", [vgg, tail, pixels], len(birds.images), 4, loss)
    scale_vgg(vgg, unseen)
    print(
        f"ToyVGG, detailed: {pixels_told(vgg, unseen.images):.3f} of the variance of the pixels of unseen birds is told"
    )
    save(vgg, "vgg/toy_detailed")


def _attributes_of(channels: int, birds: Pictures) -> nn.Sequential:
    """From features (N, channels, 32, 32) to the logits of all attributes."""
    return nn.Sequential(
        *(nn.MaxPool2d(2), nn.Conv2d(channels, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, sum(birds.sizes.values()))),
    )


def train_scene_judges() -> None:
    # More epochs than for birds: things that are cut off at the border come late.
    kinds = toy.ToySceneInception, toy.ToySceneCLIP
    train_inception_and_clip("toy_scenes", gallery("train", 16000), gallery("unseen", 1000), 6, kinds, epochs=(8, 4))


def train_flower_judges() -> None:
    kinds = toy.ToyFlowerInception, toy.ToyFlowerCLIP
    train_inception_and_clip(
        "toy_flowers", garden("flowers", 8000), garden("flowers, unseen", 1000), 8, kinds, epochs=(20, 10)
    )


def train_inception_and_clip(
    name: str,
    train: Pictures,
    unseen: Pictures,
    seed: int,
    kinds: tuple[type[toy.ToyInception], type[toy.ToyCLIP]],
    epochs: tuple[int, int],
) -> None:
    """The two judges of a kind of pictures, each from a seed of its own."""
    torch.manual_seed(seed)
    inception = kinds[0]()
    train_classifier(inception, lambda images: inception(images)["attributes"], [], train, unseen, epochs[0])
    save(inception, f"inception/{name}")
    torch.manual_seed(seed + 1)
    clip = kinds[1]()
    train_clip(clip, train, unseen, epochs[1])
    save(clip, f"clip/{name}")


def train_bird_parts() -> None:
    torch.manual_seed(10)
    views = {name: [_view_of_a_bird(name, number) for number in range(count)] for name, count in PARTS_SETS.items()}
    network = toy.ToyParts()
    train_parts(network, *views.values(), epochs=16)
    save(network, "parts/toy")


def _view_of_a_bird(name: str, number: int) -> tuple[Tensor, Tensor]:
    rng = random_stream("toy networks", name, number)
    colours = {part: COLOURS[int(rng.integers(len(COLOURS)))] for part in PARTS}
    return view_of_bird(replace(sample_bird(rng), **colours), name, number, float(rng.uniform(0.62, 0.85)))


def train_flower_parts() -> None:
    torch.manual_seed(11)
    views = {
        name: [view_of_flower(varied_flower(name, number), name, number) for number in range(count)]
        for name, count in PARTS_SETS.items()
    }
    network = toy.ToyFlowerParts()
    train_parts(network, *views.values(), epochs=8)
    save(network, "parts/toy_flowers")


PARTS_SETS = {"parts": 3000, "parts, unseen": 300}
KINDS = {
    "birds": (train_judges, train_backbones),
    "scenes": (train_scene_judges,),
    "flowers": (train_flower_judges,),
    "parts": (train_bird_parts,),
    "flower_parts": (train_flower_parts,),
    "detailed": (train_detailed_vgg,),
}


def main(kinds: list[str]) -> int:
    """Trains the networks of these kinds, of all if none is named."""
    if wrong := [kind for kind in kinds if kind not in KINDS]:
        sys.exit(f"error: expected one of {', '.join(KINDS)}, or nothing for all, found {wrong[0]!r}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for kind in kinds or KINDS:
        for train in KINDS[kind]:
            train()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
