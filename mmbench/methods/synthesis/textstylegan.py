"""textStyleGAN: Conditional Image Generation and Manipulation for User-Specified Content.

David Stap, Maurits Bleeker, Sarah Ibrahimi, Maartje ter Hoeve. CVPR 2020 workshop on AI for content creation.
https://arxiv.org/abs/2005.04909

No reference to compare with: no code is known. Of the paper, its abstract and a summary could be read, but none of its
equations; what stands here follows them and what the survey of Frolov et al. (https://arxiv.org/abs/2101.09983) says of
it, at second hand:
- The sentence's embedding, from a trained network that matches images with texts, is concatenated with the noise, and
  a linear layer maps both to what StyleGAN's mapping network takes.
- Attention to the words, as AttnGAN's, guides the synthesis network.
- The discriminator has an unconditional and a conditional loss.
- The generator has two losses of cross-modal similarity beside: CMPM and CMPC (Zhang and Lu, ECCV 2018).

Ours, since it is not told:
- The matching network is DAMSM, which the survey likens it to. CMPC's class vectors are learned on real images by an
  optimiser of their own; classes are those of the data set, where it has any, and images where it has none.
- The backbone is StyleGAN2's configuration F (which StyleGAN it was is not told), with its penalties, lazy, the R1
  penalty on the sum of both logits. Noise and sentence are both scaled to a mean square of 1 first.
- Attention works on the features of a quarter and of half the image's size, as AttnGAN's does, and its context is
  joined to them by a 1x1 convolution.
- The conditional logit comes of the features that the unconditional one comes of, and of the sentence, through a hidden
  layer; both losses weigh the same, as in AttnGAN's equations 4 and 5, which have no mismatched pairs.
- The weights of CMPM and CMPC.

The second part of the paper, directions in latent space by which faces are changed, is no synthesis and is not here.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_TO_IMAGE
from mmbench.layers.equalised import EqualisedLinear, biased_leaky_relu
from mmbench.layers.upfirdn2d import doubled
from mmbench.layers.word_attention import SpatialAttention
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.attngan import Reader
from mmbench.losses.penalties import r1_penalty
from mmbench.losses.projection import projection_classification, projection_matching
from mmbench.losses.stylegan2 import StyledGAN
from mmbench.networks import stylegan2
from mmbench.networks.damsm import EncodedText
from mmbench.networks.stylegan2 import Discriminator, DiscriminatorConvolution, Generator, Synthesis, normalised


class TextMapping(stylegan2.Mapping):
    """Latents and sentences to styles.

    Args:
        style_dim, num_layers: as StyleGAN2's mapping.
        embedding_dim: size of a sentence.
    """

    def __init__(self, style_dim: int, num_layers: int, embedding_dim: int) -> None:
        super().__init__(style_dim, num_layers)
        self.join = EqualisedLinear(style_dim + embedding_dim, style_dim)

    def forward(self, z: Tensor, sentence: Tensor) -> Tensor:
        """(N, style_dim) and (N, embedding_dim) to (N, style_dim)."""
        return super().forward(self.join(torch.cat((normalised(z), normalised(sentence)), dim=1)))


class AttentiveSynthesis(Synthesis):
    """StyleGAN2's synthesis, whose features of a quarter and of half the image's size look at the words.

    Args:
        image_size: height and width of the image, a power of two from 32 on.
        style_dim, channel_base, channel_max: as `Synthesis`.
        embedding_dim: size of words.
    """

    def __init__(
        self, image_size: int, style_dim: int, channel_base: int, channel_max: int, embedding_dim: int
    ) -> None:
        super().__init__(image_size, style_dim, channel_base, channel_max)
        if image_size < 32:
            raise ValueError(f"expected an image_size of at least 32 for textStyleGAN, found {image_size}: raise it")
        channels = [min(channel_max, channel_base // size) for size in (image_size // 4, image_size // 2)]
        self.attention = nn.ModuleList(SpatialAttention(width, embedding_dim) for width in channels)
        self.join = nn.ModuleList(DiscriminatorConvolution(2 * width, width, 1) for width in channels)

    def forward(
        self, styles: Tensor, noise: Sequence[Tensor], words: Tensor, word_mask: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Images that are not confined to [-1, 1], and where they looked.

        Args:
            styles, noise: as `Synthesis`.
            words: (N, L, embedding_dim).
            word_mask: (N, L) bool, True at words.

        Returns:
            (N, 3, image_size, image_size), and attention (N, L, s, s) of both sizes, which sums to 1 over L.
        """
        x = self.begun(styles, noise)
        image, looked = self.first_rgb(x, styles[:, 1]), []
        first = len(self.to_rgb) - 1 - len(self.attention)
        for level, to_rgb in enumerate(self.to_rgb):
            x = self.refined(x, level, styles, noise)
            if first <= level < first + len(self.attention):
                context, attention = self.attention[level - first](x, words, word_mask[:, None])
                x = self.join[level - first](torch.cat((x, context), dim=1))
                looked.append(attention)
            image = doubled(image, self.filter) + to_rgb(x, styles[:, 2 * level + 3])
        return image, looked


class TextGenerator(Generator):
    """Mapping and synthesis, both told of a caption.

    Args:
        image_size, style_dim, mapping_layers, channel_base, channel_max: as StyleGAN2's.
        embedding_dim: size of words and sentences.
    """

    def __init__(
        self,
        image_size: int,
        style_dim: int,
        mapping_layers: int,
        channel_base: int,
        channel_max: int,
        embedding_dim: int,
    ) -> None:
        super().__init__(image_size, style_dim, mapping_layers, channel_base, channel_max)
        self.mapping = TextMapping(style_dim, mapping_layers, embedding_dim)
        self.synthesis = AttentiveSynthesis(image_size, style_dim, channel_base, channel_max, embedding_dim)

    def forward(self, z: Tensor, noise: Sequence[Tensor], text: EncodedText) -> Tensor:
        """Latents (N, style_dim), noise, as `Synthesis` takes it, and captions to images (N, 3, H, W)."""
        styles = self.styles(self.mapping(z, text.sentence))
        image, _ = self.synthesis(styles, noise, text.words, text.word_mask)
        return image


class TextDiscriminator(Discriminator):
    """Judges images alone, and together with a sentence.

    Args:
        image_size, channel_base, channel_max: as StyleGAN2's.
        embedding_dim: size of a sentence.
    """

    def __init__(self, image_size: int, channel_base: int, channel_max: int, embedding_dim: int) -> None:
        super().__init__(image_size, channel_base, channel_max)
        width = self.last.weight.shape[1]
        self.joint = EqualisedLinear(width + embedding_dim, width)
        self.paired = EqualisedLinear(width, 1)

    def forward(self, image: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [-1, 1] and (N, embedding_dim) to logits (N,) of the image, and of both."""
        x = self.features(image)
        joint = biased_leaky_relu(self.joint(torch.cat((x, normalised(sentence)), dim=1)))
        return self.last(x).squeeze(1), self.paired(joint).squeeze(1)


class ClassVectors(nn.Module):
    """A direction for each class of a data set.

    Args:
        class_ids: the data set's numbers of K classes, in order.
        embedding_dim: size of a vector.

    Attributes:
        vectors: (K, embedding_dim).
    """

    class_ids: Tensor

    def __init__(self, class_ids: Sequence[int], embedding_dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(len(class_ids), embedding_dim))
        self.register_buffer("class_ids", torch.tensor(class_ids))

    def rows(self, class_id: Tensor) -> Tensor:
        """Where the vectors of classes (N,) are: (N,)."""
        return torch.searchsorted(self.class_ids, class_id)


class TextStyleGAN(StyledGAN):
    """The generator and its training.

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        class_ids: the classes of the images that it is trained on.
        optimizers: partials for `generator`, `discriminator` and `classes`, the class vectors.
        image_size: height and width of the images, a power of two from 32 on.
        style_dim, mapping_layers, channel_base, channel_max: as `TextGenerator`.
        gamma, r1_every, path_weight, path_every, mixing, decay, truncation: as `StyledGAN`.
        lambda_cmpm, lambda_cmpc: weights of the losses of cross-modal similarity.
        max_words: captions longer than this keep so many of their words in training.
        max_prompt_words: the same where images are generated.
    """

    task = TEXT_TO_IMAGE
    trains_on = frozenset({"image", "caption", "class_id"})
    smallest_batch = 2  # another pair is what a pair is told from

    def __init__(
        self,
        damsm: nn.Module,
        class_ids: Sequence[int],
        optimizers: Mapping[str, OptimizerPartial],
        image_size: int,
        style_dim: int,
        mapping_layers: int,
        channel_base: int,
        channel_max: int,
        gamma: float,
        r1_every: int,
        path_weight: float,
        path_every: int,
        mixing: float,
        decay: float,
        truncation: float,
        lambda_cmpm: float,
        lambda_cmpc: float,
        max_words: int,
        max_prompt_words: int,
    ) -> None:
        embedding_dim = damsm.embedding_dim
        super().__init__(
            optimizers,
            TextGenerator(image_size, style_dim, mapping_layers, channel_base, channel_max, embedding_dim),
            TextDiscriminator(image_size, channel_base, channel_max, embedding_dim),
            gamma,
            r1_every,
            path_weight,
            path_every,
            mixing,
            decay,
            truncation,
        )
        self.reader = Reader(damsm, max_words, max_prompt_words)
        self.classes = ClassVectors(class_ids, embedding_dim)
        self.lambda_cmpm, self.lambda_cmpc = lambda_cmpm, lambda_cmpc

    def mapped(self, network: TextGenerator, z: Tensor, text: EncodedText) -> Tensor:
        return network.mapping(z, text.sentence)

    def synthesised(self, network: TextGenerator, styles: Tensor, maps: list[Tensor], text: EncodedText) -> Tensor:
        image, _ = network.synthesis(styles, maps, text.words, text.word_mask)
        return image

    def code(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in the space of sentences: (N, D)."""
        return self.reader.network.image_encoder(image).code

    def classified(self, code: Tensor, text: EncodedText, class_id: Tensor) -> Tensor:
        """CMPC of encoded images (N, D) and their captions."""
        return projection_classification(code, text.sentence, self.classes.vectors, self.classes.rows(class_id))

    def class_terms(self, real: Tensor, text: EncodedText, class_id: Tensor) -> dict[str, Tensor]:
        """What the class vectors learn, of real images."""
        with torch.no_grad():
            code = self.code(real)
        return {"L_CMPC": self.classified(code, text, class_id)}

    def generator_terms(self, noise: Noise, text: EncodedText, class_id: Tensor) -> dict[str, Tensor]:
        """To be judged real, alone and with the caption, and to match it."""
        fake, _ = self.fake(noise, "generator", text)
        alone, paired = self.discriminator(fake, text.sentence)
        code = self.code(fake)
        return {
            "L_G": cross_entropy_real(alone) / 2,
            "L_G_text": cross_entropy_real(paired) / 2,
            "L_CMPM": self.lambda_cmpm * projection_matching(code, text.sentence, class_id),
            "L_CMPC": self.lambda_cmpc * self.classified(code, text, class_id),
        }

    def discriminator_terms(self, real: Tensor, noise: Noise, text: EncodedText) -> dict[str, Tensor]:
        with torch.no_grad():
            fake, _ = self.fake(noise, "discriminator", text)
        real_alone, real_paired = self.discriminator(real, text.sentence)
        fake_alone, fake_paired = self.discriminator(fake, text.sentence)
        return {
            "L_D": (cross_entropy_real(real_alone) + cross_entropy_fake(fake_alone)) / 2,
            "L_D_text": (cross_entropy_real(real_paired) + cross_entropy_fake(fake_paired)) / 2,
        }

    def r1_terms(self, real: Tensor, text: EncodedText) -> dict[str, Tensor]:
        real = real.detach().requires_grad_()
        logits = sum(self.discriminator(real, text.sentence))
        return {"R1": self.r1_every * self.gamma / 2 * r1_penalty(real, logits)}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        # StyleGAN2's order. Second derivatives are computed in full precision whatever the rest is.
        real, noise, class_id, steps = batch["image"], batch["noise"], batch["class_id"], int(self.steps)
        text = self.reader.captions(batch)
        exactly = torch.autocast(self.device.type, enabled=False)
        self.minimise("classes", self.class_terms(real, text, class_id))
        with self.held(self.discriminator, self.classes):
            self.minimise("generator", self.generator_terms(noise, text, class_id))
        if steps % self.path_every == 0:
            with exactly:
                self.minimise("generator", self.path_terms(noise, text))
        self.minimise("discriminator", self.discriminator_terms(real, noise, text))
        self.follow(self.ema, self.generator)
        if steps % self.r1_every == 0:
            with exactly:
                self.minimise("discriminator", self.r1_terms(real, text))
        self.steps += 1

    def drawn(self, text: EncodedText, noise: Noise) -> tuple[Tensor, list[Tensor]]:
        """What the average draws for encoded captions, and where it looked."""
        styles = self.sampled_styles(noise, text)
        return self.ema.average.synthesis(styles, self.maps(noise, "sample"), text.words, text.word_mask)

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        image, _ = self.drawn(self.reader.prompts(batch[self.task.prompt]), noise)
        return image.clamp(-1, 1)

    def interpolated(self, batch: Batch, others: list[str], share: Tensor, noise: Noise) -> Tensor:
        """As `generate`, after texts that lie `share` (N,), in [0, 1], of the way from the batch's to N `others`."""
        text = self.reader.prompts([*batch[self.task.prompt], *others])
        image, _ = self.drawn(text.interpolated(share), noise)
        return image.clamp(-1, 1)

    def words(self, captions: list[str]) -> list[list[str]]:
        """The known words of N captions, in the order in which `word_attention` counts them."""
        return self.reader.words(captions)

    @torch.no_grad()
    def word_attention(self, batch: Batch) -> Tensor:
        """Where features of half the image's size look for each word: (N, L, s, s), as `StagedGAN` has it."""
        _, attention = self.drawn(self.reader.prompts(batch[self.task.prompt]), batch["noise"])
        return attention[-1]
