"""CSA: Coherent Semantic Attention for Image Inpainting.

Hongyu Liu, Bin Jiang, Yi Xiao, Chao Yang. ICCV 2019. https://arxiv.org/abs/1905.12384
Code: https://github.com/KumapowerLIU/CSA-inpainting/tree/f0b07129adc6a231b7d68f9815d1adfe0c01eeff. No weights were
published.

A coarse network paints the hole, a second one refines it and looks for what it paints among the known features. What
is returned is the whole image that the second one paints, as in the code: known pixels are put back by protocols.

Training follows the code where it says other than the paper; `CSAPaper` is what the paper describes. In the code
- no gradient flows from the refinement into the coarse network, whose image it gets by value;
- the features that the feature patch discriminator judges are detached, so that it teaches the generators nothing;
- the consistency loss is a number without a gradient, and is left out here;
- the colour of the hole is overwritten with zeros before gradients are computed, so that the first convolution learns
  from an image that it was not given (`taught_by`);
- attention hands rounded gradients back (`layers.coherent_attention`; in both classes, as the paper tells of none).

Deviations:
- Images of a batch have masks of their own, and each gets what it gets alone; the code takes batches of one, and with
  its default keeps the first hole it sees. A hole of which no feature is known is left as it is; theirs stops there.
- In a step, what judges say of real images for the discriminators is computed without gradients for the generators.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.frozen import Frozen
from mmbench.core.holes import require_known, require_mask, require_sides
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.processes import batch_mean
from mmbench.core.schedules import Schedule, set_learning_rates
from mmbench.core.task import TEXT_GUIDED_INPAINTING
from mmbench.core.weights import KeyMap
from mmbench.layers.coherent_attention import coherent_attention, feature_mask
from mmbench.layers.initialisation import initialise_normally
from mmbench.losses.precision import in_float32

# What a hole is filled with before the coarse network sees it: red, green and blue of 255.
FILL = (123.0, 104.0, 117.0)
ATTENTION_LEVEL = 3  # halvings of the features that are attended to


def filled(image: Tensor, mask: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] with one colour in the hole of masks (N, 1, H, W), 1 = hole."""
    colour = 2 * image.new_tensor(FILL)[:, None, None] / 255 - 1
    return torch.where(mask > 0, colour, image)


def widths(width: int, count: int) -> list[int]:
    """Channels of so many levels: doubled with each halving up to eightfold."""
    return [width * 2 ** min(level, 3) for level in range(count)]


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


def norm(channels: int) -> nn.Module:
    """Normalises each image by itself, in evaluation too."""
    return nn.InstanceNorm2d(channels, affine=True)


def upwards(channels_in: int, channels_out: int) -> list[nn.Module]:
    """Doubles the size."""
    return [nn.ReLU(), nn.ConvTranspose2d(channels_in, channels_out, 4, 2, 1)]


class Coarse(nn.Module):
    """A U-Net down to a 2^num_halvings-th of the image.

    Args:
        width: channels after the first convolution, 64.
        num_halvings: 8.
    """

    def __init__(self, width: int, num_halvings: int) -> None:
        super().__init__()
        channels = widths(width, num_halvings)
        self.down = nn.ModuleList([nn.Sequential(nn.Conv2d(3, width, 4, 2, 1))])
        self.up = nn.ModuleList([nn.Sequential(*upwards(2 * width, 3))])
        for level in range(1, num_halvings):
            outer, inner, last = channels[level - 1], channels[level], level == num_halvings - 1
            down = [leaky(), nn.Conv2d(outer, inner, 4, 2, 1)]
            # One place is left at the bottom, of which nothing would be left if it were normalised.
            self.down.append(nn.Sequential(*down, *([] if last else [norm(inner)])))
            self.up.append(nn.Sequential(*upwards(inner if last else 2 * inner, outer), norm(outer)))

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1], their holes `filled`, to images of that range and size."""
        return self.behind(self.down[0](image))

    def behind(self, first: Tensor) -> Tensor:
        """From what the first convolution makes of images, (N, width, H/2, W/2)."""
        features = [first]
        for down in self.down[1:]:
            features.append(down(features[-1]))
        upward = self.up[-1](features[-1])
        for level in reversed(range(len(self.up) - 1)):
            upward = self.up[level](torch.cat((upward, features[level]), dim=1))
        return upward.tanh()


class Refined(NamedTuple):
    """What the refinement network gives.

    Attributes:
        image: (N, 3, H, W), nominally in [-1, 1].
        attended: (N, 8 * width, H/8, W/8), what attention made of the features.
        decoded: (N, 8 * width, H/8, W/8), what stands beside them on the way up.
    """

    image: Tensor
    attended: Tensor
    decoded: Tensor


class Refinement(nn.Module):
    """A U-Net of dilated halvings and convolutions between them, with coherent semantic attention at an eighth.

    Args:
        width: channels after the first convolution, 64.
        num_halvings: 8; more than `ATTENTION_LEVEL`.
    """

    def __init__(self, width: int, num_halvings: int) -> None:
        super().__init__()
        if num_halvings <= ATTENTION_LEVEL:
            raise ValueError(
                f"expected more than {ATTENTION_LEVEL} halvings, the depth of attention, found {num_halvings}: raise "
                "num_halvings"
            )
        channels = widths(width, num_halvings)
        self.down = nn.ModuleList([nn.Sequential(nn.Conv2d(6, width, 3, 1, 1))])
        self.up = nn.ModuleList([nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, 3, 3, 1, 1))])
        for outer, inner in pairwise(channels):
            halving = [*self._halving(outer), norm(outer), leaky(), nn.Conv2d(outer, inner, 3, 1, 1)]
            self.down.append(nn.Sequential(*halving, norm(inner)))
            narrowing = [nn.ReLU(), nn.ConvTranspose2d(2 * inner, outer, 3, 1, 1), norm(outer)]
            self.up.append(nn.Sequential(*narrowing, *upwards(outer, outer), norm(outer)))
        self.down.append(nn.Sequential(*self._halving(channels[-1])))
        self.up.append(nn.Sequential(*upwards(channels[-1], channels[-1]), norm(channels[-1])))

    @staticmethod
    def _halving(channels: int) -> list[nn.Module]:
        return [leaky(), nn.Conv2d(channels, channels, 4, 2, padding=3, dilation=2)]

    def forward(self, image: Tensor, hole: Tensor) -> Refined:
        """From images (N, 6, H, W), see `refinement_input`, and holes (N, 1, H/8, W/8) bool of their features."""
        features = [image]
        for level, down in enumerate(self.down):
            if level == ATTENTION_LEVEL:  # before the normalisation
                attended = coherent_attention(down[:-1](features[-1]), hole)
                features.append(down[-1](attended))
            else:
                features.append(down(features[-1]))
        upward = self.up[-1](features[-1])
        for level in reversed(range(len(self.up) - 1)):
            if level == ATTENTION_LEVEL:
                decoded = upward
            upward = self.up[level](torch.cat((upward, features[level + 1]), dim=1))
        return Refined(upward, attended, decoded)


class PatchDiscriminator(nn.Sequential):
    """Images (N, 3, H, W) in [-1, 1] to logits (N, 1, H/8 - 2, W/8 - 2), each of 70 x 70 pixels.

    Args:
        width: channels after the first convolution, 64.
    """

    def __init__(self, width: int) -> None:
        layers = [nn.Conv2d(3, width, 4, 2, 1), leaky()]
        for level, stride in ((1, 2), (2, 2), (3, 1)):
            channels = width * 2**level
            layers += [nn.Conv2d(channels // 2, channels, 4, stride, 1), norm(channels), leaky()]
        super().__init__(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


class FeatureDiscriminator(nn.Sequential):
    """Features (N, C, h, w) of VGG-16 to logits (N, width, h/8, w/8): as many judgements of a place as channels.

    Args:
        channels: of the features, 256.
        width: of all its layers, 512.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 4, 2, 1),
            leaky(),
            nn.Conv2d(width, width, 4, 2, 1),
            nn.InstanceNorm2d(width),
            leaky(),
            nn.Conv2d(width, width, 4, 2, 1),
        )


OUTERMOST = {r"model\.model\.0\.(\w+)": r"down.0.0.\1", r"model\.model\.3\.(\w+)": r"up.0.1.\1"}
INNERMOST = {1: ("down", 1), 3: ("up", 1), 4: ("up", 2)}


def coarse_keys(num_halvings: int) -> KeyMap:
    """From the code's names of so deep a coarse network, where a level stands inside the one above it."""
    rename, levels = dict(OUTERMOST), r"model\.model\.1\.model\."
    for level in range(1, num_halvings - 1):
        rename |= _level(levels, level, {1: ("down", 1), 2: ("down", 2), 5: ("up", 1), 6: ("up", 2)})
        levels += r"3\.model\."
    return KeyMap(rename | _level(levels, num_halvings - 1, INNERMOST))


def refinement_keys(num_halvings: int) -> KeyMap:
    """From the code's names of so deep a refinement network."""
    rename, levels = dict(OUTERMOST), r"model\.model\.1\.model\."
    for level in range(1, num_halvings):
        # Attention and the consistency loss are layers of theirs: two on the way down, one more on the way up.
        down, up = (2, 3) if level == ATTENTION_LEVEL else (0, 0)
        places = {1: ("down", 1), 2: ("down", 2), 4: ("down", 4), 5 + down: ("down", 5)}
        rename |= _level(levels, level, places | {n + up: ("up", n - 7) for n in (8, 9, 11, 12)})
        levels += rf"{6 + down}\.model\."
    return KeyMap(rename | _level(levels, num_halvings, INNERMOST))


def _level(levels: str, level: int, places: Mapping[int, tuple[str, int]]) -> dict[str, str]:
    """Numbers of their layers of a level to the way and the place in it that ours have."""
    return {rf"{levels}{n}\.(\w+)": rf"{way}.{level}.{place}.\1" for n, (way, place) in places.items()}


DISCRIMINATOR = KeyMap(rename={r"model\.(.*)": r"\1"})


@in_float32
def relativistic_least_squares(above: Tensor, below: Tensor) -> Tensor:
    """Logits of one kind are to lie one above the mean of the other's, and those one below the mean of these.

    Of real above generated images for a discriminator, of generated above real ones for a generator. Means are over all
    of the batch, whatever processes share it.
    """
    above_mean, below_mean = (batch_mean(logits.flatten()) for logits in (above, below))
    return ((above - below_mean - 1).square().mean() + (below - above_mean + 1).square().mean()) / 2


@in_float32
def consistency(features: Tensor, target: Tensor, hole: Tensor) -> Tensor:
    """Mean square of what features in a hole lack of a target, the paper's L_c up to a constant of its known places.

    There the features count as zeros, as in the code.

    Args:
        features, target: (N, C, h, w).
        hole: (N, 1, h, w) bool.
    """
    return (features * hole - target).square().mean()


def decayed(constant: int, decay: int) -> Schedule:
    """The first learning rate for so many epochs less one, then down to none in equal steps within `decay` + 1.

    https://github.com/KumapowerLIU/CSA-inpainting/blob/f0b07129adc6a231b7d68f9815d1adfe0c01eeff/models/networks.py
    """
    return lambda first, epoch: first * (1 - max(0, epoch + 2 - constant) / (decay + 1))


def taught_by(layer: nn.Module, image: Tensor, other: Tensor) -> Tensor:
    """What a layer makes of an image, with the gradient that its parameters would have had of another one."""
    made = layer(other)
    return made + (layer(image) - made).detach()


class Painted(NamedTuple):
    """What the two networks make of an image.

    Attributes:
        coarse: (N, 3, H, W) in [-1, 1].
        refinement_input: (N, 6, H, W), the coarse image in the hole of the input, and the input with zeros there.
        hole: (N, 1, H/8, W/8) bool.
        refined: of the second network.
    """

    coarse: Tensor
    refinement_input: Tensor
    hole: Tensor
    refined: Refined


class CSA(Adversarial):
    """Both networks and their training against two discriminators.

    Args:
        vgg: frozen, from images to `networks.vgg_levels.Levels`, with `pool3` and `pool3_channels`.
        optimizers: partials for `coarse`, `refinement`, `discriminator` and `feature_discriminator`.
        width, num_halvings: as `Coarse` and `Refinement`; sides of images are multiples of 2^num_halvings.
        discriminator_width: as `PatchDiscriminator`.
        feature_width: as `FeatureDiscriminator`.
        lambda_reconstruction, lambda_adversarial: the paper's lambda_r and lambda_d; the code has 100 times both.
        constant_epochs, decay_epochs: as `decayed`.
    """

    task = TEXT_GUIDED_INPAINTING
    trains_on = frozenset({"image", "mask"})

    def __init__(
        self,
        vgg: Frozen,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        num_halvings: int,
        discriminator_width: int,
        feature_width: int,
        lambda_reconstruction: float,
        lambda_adversarial: float,
        constant_epochs: int,
        decay_epochs: int,
    ) -> None:
        super().__init__(optimizers)
        self.vgg = vgg
        self.num_halvings = num_halvings
        self.lambda_reconstruction, self.lambda_adversarial = lambda_reconstruction, lambda_adversarial
        self.schedule = decayed(constant_epochs, decay_epochs)
        self.coarse, self.refinement = Coarse(width, num_halvings), Refinement(width, num_halvings)
        self.discriminator = PatchDiscriminator(discriminator_width)
        self.feature_discriminator = FeatureDiscriminator(vgg.network.pool3_channels, feature_width)
        for network in (self.coarse, self.refinement, self.discriminator, self.feature_discriminator):
            initialise_normally(network)

    def painted(self, image: Tensor, mask: Tensor) -> Painted:
        """Paints the holes of images (N, 3, H, W) in [-1, 1] that masks (N, 1, H, W), 1 = hole, tell.

        Raises:
            ValueError: the sides of the images are no multiples of 2^num_halvings.
        """
        require_sides(image, 2**self.num_halvings)
        # With zeros for the colour: a side effect in theirs, in training and afterwards.
        # https://github.com/KumapowerLIU/CSA-inpainting/blob/f0b07129adc6a231b7d68f9815d1adfe0c01eeff/models/CSA.py#L148
        known = image * (1 - mask)
        coarse = self.coarse.behind(self.first_features(filled(image, mask), known))
        both = torch.cat((known + coarse.detach() * mask, known), dim=1)
        hole = feature_mask(mask, ATTENTION_LEVEL)
        return Painted(coarse, both, hole, self.refinement(both, hole))

    def first_features(self, image: Tensor, known: Tensor) -> Tensor:
        """What the coarse network's first convolution makes of images, `known` having zeros for the colour."""
        return taught_by(self.coarse.down[0], image, known)

    def discriminator_terms(
        self, real: Tensor, fake: Tensor, real_features: Tensor, fake_features: Tensor
    ) -> dict[str, Tensor]:
        """Real images are to look more real than painted ones do, and their features, too: logits of each, (N, ...)."""
        return {
            "D_R_patch": relativistic_least_squares(real, fake) / 2,
            "D_R_feature": relativistic_least_squares(real_features, fake_features) / 2,
        }

    def generator_terms(
        self, image: Tensor, painted: Painted, real: Tensor, fake: Tensor, real_features: Tensor, fake_features: Tensor
    ) -> dict[str, Tensor]:
        """Both images are to be the true one everywhere (N, 3, H, W), and to look more real than real ones do."""
        distance = in_float32(F.l1_loss)
        return {
            "L_re_refined": self.lambda_reconstruction * distance(painted.refined.image, image),
            "L_re_coarse": self.lambda_reconstruction * distance(painted.coarse, image),
            "D_R_patch": self.lambda_adversarial * relativistic_least_squares(fake, real),
            "D_R_feature": self.lambda_adversarial * relativistic_least_squares(fake_features, real_features),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        image = batch["image"]
        painted = self.painted(image, batch["mask"])
        seen, true = map(self.vgg.network.pool3, (painted.refined.image.detach(), image))
        judge, feature_judge = self.discriminator, self.feature_discriminator
        fake = judge(painted.refined.image.detach())
        terms = self.discriminator_terms(judge(image), fake, feature_judge(true), feature_judge(seen))
        self.minimise(["discriminator", "feature_discriminator"], terms)

        with self.held(judge, feature_judge):
            logits = judge(image), judge(painted.refined.image), feature_judge(true), feature_judge(seen)
            self.minimise(["coarse", "refinement"], self.generator_terms(image, painted, *logits))

    def on_train_epoch_start(self) -> None:
        set_learning_rates(self.optimizers(), self.schedule, self.current_epoch)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        require_mask(batch["image"], batch["mask"])
        require_known(batch["mask"])
        return self.painted(batch["image"], batch["mask"]).refined.image.clamp(-1, 1)


class CSAPaper(CSA):
    """As the paper has it: the consistency loss and the feature patch discriminator teach the refinement.

    Args:
        lambda_consistency: the paper's lambda_c.
        rest: as `CSA`. `vgg` at relu4_3 has as many channels as the refinement's features at an eighth, 8 * width.
    """

    def __init__(self, lambda_consistency: float, **rest: Any) -> None:
        super().__init__(**rest)
        self.lambda_consistency = lambda_consistency

    def first_features(self, image: Tensor, known: Tensor) -> Tensor:
        return self.coarse.down[0](image)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        image = batch["image"]
        painted = self.painted(image, batch["mask"])
        refined, true = painted.refined, self.vgg(image)
        seen = self.vgg.network.pool3(refined.image)
        judge, feature_judge = self.discriminator, self.feature_discriminator
        logits = judge(image), judge(refined.image.detach()), feature_judge(true.pool3), feature_judge(seen.detach())
        self.minimise(["discriminator", "feature_discriminator"], self.discriminator_terms(*logits))

        with self.held(judge, feature_judge):
            logits = judge(image), judge(refined.image), feature_judge(true.pool3), feature_judge(seen)
            terms = self.generator_terms(image, painted, *logits)
            terms["L_c"] = self.lambda_consistency * (
                consistency(refined.attended, true.relu4_3, painted.hole)
                + consistency(refined.decoded, true.relu4_3, painted.hole)
            )
            self.minimise(["coarse", "refinement"], terms)
