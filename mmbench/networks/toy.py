"""Small networks for toy data: judges of the same kinds as the standard ones, and backbones for methods.

All take images of 64 x 64 pixels; others are resized to that first (bilinear, anti-aliased) unless it is said
otherwise. The judges (`ToyInception`, `ToyCLIP`, `ToyLPIPS`) and the backbones (`ToyInceptionTrunk`, `ToyVGG`) were
trained on different birds from different random weights, so that no method is guided by its judge. Scenes and flowers
have judges of their own, `ToySceneInception` and `ToySceneCLIP`, `ToyFlowerInception` and `ToyFlowerCLIP`; captioners,
whom none of them judges, see scenes through the first one (`ToySceneTrunk`). Where the parts of a generated bird or
flower are is found by `ToyParts` and `ToyFlowerParts`. `mmbench/maintenance/toy_networks.py` trains them all.
"""

import re
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.images import from_uint8
from mmbench.core.weights import load_strictly, read_state
from mmbench.networks.dists import paired, similarities

SIZE = 64
NUM_COLOURS = 10
# Number of values of what a bird's captions may name; crown and belly first.
ATTRIBUTES = {
    "crown": NUM_COLOURS,
    "belly": NUM_COLOURS,
    "wing": NUM_COLOURS,
    "back": NUM_COLOURS,
    "bill": NUM_COLOURS,
    "bill_shape": 3,
    "wing_pattern": 3,
}
CATEGORIES = ("car", "boat", "umbrella", "suitcase", "sports ball", "kite", "cup", "vase")
# Of a scene: the colour of the thing of each category, the last value where there is none; and the ground.
SCENE_ATTRIBUTES = dict.fromkeys(CATEGORIES, NUM_COLOURS + 1) | {"ground": 5}
# Of a flower; colour and shape of the petals first.
FLOWER_ATTRIBUTES = {
    "petals": NUM_COLOURS,
    "petal_shape": 4,
    "petal_pattern": 3,
    "centre": NUM_COLOURS,
    "stem": NUM_COLOURS,
    "leaves": NUM_COLOURS,
}
# Words of toy captions; the index of a word is its place + 1, and 0 is any other word.
VOCABULARY = tuple(
    re.findall(
        r"\w+",
        "a an and are back beak belly bill bird black blue breast brown cap chest crown green grey has head hooked "
        "is long orange plain purple red s short spotted striped tail that the this white wing wings with yellow",
    )
)
SCENE_VOCABULARY = tuple(
    re.findall(
        r"\w+",
        "a above air an and are automobile ball beach behind below beside black blue boat brown can car close cup day "
        "deck empty field flower flying front grass grassy green grey hazy image in is it kite left lying mug next "
        "nobody nothing of on open orange parasol parked paved pavement picture purple red resting right sailboat sand "
        "sandy scene see sitting sky snow snowy square standing suitcase the there this to umbrella under up vase view "
        "we white with wooden yellow",
    )
)
FLOWER_VOCABULARY = tuple(
    re.findall(
        r"\w+",
        "a an and are black blue brown centre flower green grey has is leaves middle on orange petals plain pointed "
        "purple red round ruffled shown slender spotted stalk stem striped that the this white with yellow",
    )
)


class _Toy(nn.Module):
    def load(self, path: Path) -> None:
        """Fills the network from its safetensors file.

        Raises:
            ValueError: the file holds something else.
        """
        load_strictly(self, read_state(path), str(path))


class ToyInception(_Toy):
    """Images (N, 3, H, W) uint8 to `features` (N, 64), for FID, and `logits` (N, 100), for the Inception score.

    It was trained to tell the seven attributes of a bird. The 100 classes of the logits are the pairs of a crown
    colour and a belly colour, which are what tells toy classes apart: p(pair) = p(crown) p(belly).
    """

    num_features = 64
    sizes: ClassVar = ATTRIBUTES

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _encoder(self.num_features)
        self.attributes = nn.Linear(self.num_features, sum(self.sizes.values()))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.trunk(_sized(from_uint8(images))).relu()  # (N, 64)
        attributes = self.attributes(features)
        return {"features": features, "logits": self.classes(attributes), "attributes": attributes}

    def classes(self, attributes: Tensor) -> Tensor:
        """Logits of the attributes (N, 56) to those of the classes (N, 100)."""
        crown, belly = attributes[:, :NUM_COLOURS], attributes[:, NUM_COLOURS : 2 * NUM_COLOURS]
        pairs = crown.log_softmax(1)[:, :, None] + belly.log_softmax(1)[:, None, :]  # (N, crown, belly)
        return pairs.flatten(1)


class ToySceneInception(ToyInception):
    """`ToyInception` for scenes: images (N, 3, H, W) uint8 to `features` (N, 64) and `logits` (N, 81).

    It was trained to tell which categories are there, in which colours, and on what ground. The 81 classes are the
    pairs of a category and a colour, and "nothing". p(category, colour) is proportional to the probability that the
    category is there in that colour, p(nothing) to that of none being there: where the network is sure, each thing of
    the scene has the same share.
    """

    sizes = SCENE_ATTRIBUTES

    def classes(self, attributes: Tensor) -> Tensor:
        """Logits of the attributes (N, 93) to those of the classes (N, 81)."""
        things = attributes[:, : -self.sizes["ground"]].unflatten(1, (len(CATEGORIES), -1)).log_softmax(2)
        pairs, absent = things[..., :-1], things[..., -1]  # (N, 8, 10), (N, 8)
        return torch.cat((pairs.flatten(1), absent.sum(1, keepdim=True)), dim=1)


class ToyFlowerInception(ToyInception):
    """`ToyInception` for flowers: images (N, 3, H, W) uint8 to `features` (N, 64) and `logits` (N, 40).

    The 40 classes are the pairs of a colour and a shape of the petals, which are most of what tells toy classes apart.
    """

    sizes = FLOWER_ATTRIBUTES

    def classes(self, attributes: Tensor) -> Tensor:
        """Logits of the attributes (N, 47) to those of the classes (N, 40)."""
        colour, shape, *_ = attributes.split(list(self.sizes.values()), dim=1)
        return (colour.log_softmax(1)[:, :, None] + shape.log_softmax(1)[:, None, :]).flatten(1)


class ToyCLIP(_Toy):
    """Images (N, 3, H, W) uint8, or N texts, to `embedding` (N, 64) of unit length; of images also as `features`.

    It was trained so that the cosine grows with the share of a caption's attributes that are true of the image.

    Scale: that of cosines, without a temperature; CLIP score is 100 cosines, as CLIP's logits are. They are more spread
    than the standard network's need be: 0.43 for a bird's own caption, -0.05 +- 0.18 for any. It judges, and guides no
    method.
    """

    num_features = 64
    vocabulary: ClassVar = VOCABULARY

    def __init__(self) -> None:
        super().__init__()
        dim, hidden = self.num_features, 48
        self.image = _encoder(dim)
        self.words = nn.Embedding(len(self.vocabulary) + 1, 32)
        self.sentence = nn.GRU(32, hidden, batch_first=True, bidirectional=True)
        self.text = nn.Linear(2 * hidden, dim)

    def forward(self, source: Tensor | list[str]) -> dict[str, Tensor]:
        if isinstance(source, Tensor):
            embedding = F.normalize(self.image(_sized(from_uint8(source))), dim=1)
            return {"embedding": embedding, "features": embedding}
        # Each text by itself: a GRU's steps, and their rounding, depend on the texts beside it.
        states = [self.sentence(self.words(self._tokens(text).to(self.words.weight.device)))[0] for text in source]
        return {"embedding": torch.cat([F.normalize(self.text(one.sum(dim=0, keepdim=True)), dim=1) for one in states])}

    def _tokens(self, text: str) -> Tensor:
        words = re.findall(r"\w+", text.lower()) or [""]
        return torch.tensor([self.vocabulary.index(word) + 1 if word in self.vocabulary else 0 for word in words])


class ToySceneCLIP(ToyCLIP):
    """`ToyCLIP` for scenes: a caption's claims are the things it speaks of, the colours it gives them, and the ground.

    It was trained so that the cosine grows with the share of the claims that are true of the image. Where things lie
    to one another was no claim, so that the left and the right are the same to it.
    """

    vocabulary = SCENE_VOCABULARY


class ToyFlowerCLIP(ToyCLIP):
    """`ToyCLIP` for flowers."""

    vocabulary = FLOWER_VOCABULARY


class ToyParts(_Toy):
    """Finds the parts of a bird in any image: images (N, 3, H, W) uint8 to `parts` and `levels`.

    `parts` (N, P, 64, 64) is the probability that a pixel is of a part, away from its border; `levels` (N, 3, 64, 64),
    float32 in [0, 255], is the image that it looked at. It was trained on birds, some of them blurred, noisy or in
    another light, and on pictures without any (noise, flat and patched colours, scenery, birds in shuffled pieces), in
    which it is to find nothing: a part is where a bird has it, and no colour by itself is one.

    Attributes:
        num_parts: P.
    """

    num_parts: ClassVar = 5

    def __init__(self) -> None:
        super().__init__()
        # Two by two pixels are one place with twelve channels.
        self.fine = _convolution(12, 20, 1)  # 32 x 32
        self.middle = nn.Sequential(_convolution(20, 32, 2), _convolution(32, 32, 1))  # 16 x 16
        self.coarse = nn.Sequential(_convolution(32, 48, 2), _convolution(48, 48, 1))  # 8 x 8
        self.whole = nn.Sequential(_convolution(48, 48, 2), _convolution(48, 48, 1))  # 4 x 4
        self.to_coarse = _convolution(48, 48, 1)
        self.to_middle = nn.Sequential(nn.Conv2d(48, 32, 1), _convolution(32, 32, 1))
        self.to_fine = nn.Sequential(nn.Conv2d(32, 20, 1), _convolution(20, 20, 1))
        self.labels = nn.Conv2d(20, 4 * (1 + self.num_parts), 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        image = _sized(from_uint8(images))
        return {"parts": self.logits(image).softmax(1)[:, 1:], "levels": 127.5 * (image + 1)}

    def logits(self, image: Tensor) -> Tensor:
        """Images (N, 3, 64, 64) in [-1, 1] to (N, 1 + P, 64, 64): the first one is of no part."""
        fine = self.fine(F.pixel_unshuffle(image, 2))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        features = self.to_coarse(coarse + _enlarged(self.whole(coarse)))
        features = self.to_middle[1](middle + _enlarged(self.to_middle[0](features)))
        features = self.to_fine[1](fine + _enlarged(self.to_fine[0](features)))
        return F.pixel_shuffle(self.labels(features), 2)


class ToyFlowerParts(ToyParts):
    """`ToyParts` for the four parts of a flower."""

    num_parts = 4


class ToyLPIPS(_Toy):
    """Images (N, 3, H, W) uint8 to `embedding` (N, D), whose squared Euclidean distance is LPIPS.

    It was trained to put weaker distortions of a picture before stronger ones: noise, blur, shifts, changes of light
    and recoloured parts. The mean distance of two different birds is 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 16, 5, 2, 2), nn.Conv2d(16, 32, 3, 2, 1), nn.Conv2d(32, 48, 3, 2, 1)])
        self.heads = nn.ParameterList([nn.Parameter(torch.full((1, dim, 1, 1), 0.1)) for dim in (16, 32, 48)])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = _sized(from_uint8(images))
        parts = []
        for layer, head in zip(self.layers, self.heads, strict=True):
            features = layer(features).relu()  # (N, C, h, w)
            parts.append((F.normalize(features, dim=1) * (head / features[0, 0].numel()).sqrt()).flatten(1))
        return {"embedding": torch.cat(parts, dim=1)}


class ToyKeys(ToyLPIPS):
    """Images (N, 3, H, W) uint8 to `keys` (N, 256, 32): features of 16 x 16 places, from the toy judge of LPIPS.

    No attention has made them, but which places are alike shows in them: of birds that it has not seen, a darker
    picture is nearer than a mirrored one, which LPIPS on the same network has the other way round.
    """

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = _sized(from_uint8(images))
        for layer in self.layers[:2]:
            features = layer(features).relu()  # (N, C, h, w)
        return {"keys": features.flatten(2).transpose(1, 2)}


class ToyDISTS(ToyLPIPS):
    """Pairs of images (N, 2, 3, H, W) uint8 to `distance` (N,) float64 in [0, 2): DISTS on the toy judge of LPIPS.

    Means and covariances over all places are compared as in `dists.DISTSVGG`, of the picture's three channels and of
    three layers; nobody has learned weights of these channels, and each counts alike.
    """

    def forward(self, pairs: Tensor) -> dict[str, Tensor]:
        images = _sized(from_uint8(paired(pairs).flatten(0, 1)))
        found = [(images + 1) / 2]
        for layer in self.layers:
            images = layer(images).relu()  # (2 N, C, h, w)
            found.append(images)
        each = zip(*(features.unflatten(0, (-1, 2)) for features in found), strict=True)
        return {"distance": torch.stack([self.distance(pair) for pair in each])}

    @staticmethod
    def distance(pair: tuple[Tensor, ...]) -> Tensor:
        """Of the features of one pair, (2, C, h, w) of each layer: () float64, exactly 0 for equal images."""
        alike = [torch.cat(similarities(*features)) for features in pair]
        return (1 - torch.cat(alike)).mean()


class ToyInceptionTrunk(_Toy):
    """The interface of a method's Inception-v3: images (N, 3, H, W) in [-1, 1] to regions and one vector.

    Returns regions (N, 64, 8, 8), the counterpart of mixed_6e, and pooled (N, 96), that of the last pooling.

    Scale: that of its training. Regions of birds have a root mean square of 0.6. Inception's come from rectified batch
    norms as well, and a rectified standard normal has 0.7; nothing was measured on the real network. Pooled features
    have 3.5, most of it from the maxima, which Inception's mean has not. Neither weighs in a loss: methods put a linear
    map of their own, which they train, right behind both.

    Attributes:
        region_channels: 64.
        global_channels: 96.
    """

    region_channels = 64
    global_channels = 96

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, 20, 2), _convolution(20, 40, 2), _convolution(40, 64, 2))
        self.last = nn.Sequential(_convolution(64, 48, 1), _MeanAndMaximum())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        regions = self.stem(_sized(image))
        return regions, self.last(regions)


class ToySceneTrunk(ToySceneInception):
    """The interface of a captioner's image encoder that knows scenes, as a real one knows photographs.

    The network of `ToySceneInception` from images (N, 3, H, W) in [-1, 1] to regions (N, 64, 8, 8) and pooled (N, 64),
    its features. No metric of captions looks through it.

    Attributes:
        region_channels: 64.
        global_channels: 64.
    """

    region_channels = 64
    global_channels = 64

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        regions = self.trunk[:-2](_sized(image))
        return regions, self.trunk[-2:](regions).relu()


class ToyVGG(_Toy):
    """The interface of a method's VGG-16 up to relu2_2: images (N, 3, H, W) in [-1, 1] to (N, 32, H/2, W/2).

    Images are not resized.

    Scale: two birds of 64 x 64 pixels differ by 20 in the mean square, which is what a perceptual term sees, where
    their pixels differ by 0.3. The last layer is scaled for it; the root mean square is 4.3 then. The 20 is chosen
    so that weights published for VGG-16, such as ManiGAN's 1, mean something: its relu2_2 gives values of the order of
    ten by published logs, and was not measured here.

    Two files of weights fit it: `vgg/toy` was taught the attributes of birds alone, and little of the pixels is left in
    its features; those of `vgg/toy_detailed` hold them too, as the real relu2_2 does, so that what minimises their
    differences draws its input again.

    Attributes:
        channels: 32.
        APART: mean square of the difference of two birds' features.
    """

    channels = 32
    APART = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.conv1_1, self.conv1_2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.conv2_1, self.conv2_2 = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.conv1_2(self.conv1_1(image).relu()).relu()
        return self.conv2_2(self.conv2_1(F.max_pool2d(features, 2)).relu()).relu()


def _encoder(dim: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(3, 24, 2),
        _convolution(24, 48, 2),
        _convolution(48, 64, 2),
        _convolution(64, 64, 1),
        _convolution(64, 64, 1),
        _MeanAndMaximum(),
        nn.Linear(128, dim),
    )


class _MeanAndMaximum(nn.Module):
    """Both over all places, (N, C, h, w) to (N, 2 C): what is small, such as a bill, shows in the maximum alone."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))), dim=1)


def _convolution(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def _enlarged(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


def _sized(images: Tensor) -> Tensor:
    if images.shape[-2:] == (SIZE, SIZE):
        return images
    return F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
