"""TVBi-GAN: Text to Image Synthesis with Bidirectional Generative Adversarial Network.

Zixu Wang, Zhe Quan, Zhi-Jie Wang, Xinjian Hu, Yangyang Chen. 2020. TVBi-GAN is the textual-visual bidirectional GAN.

No reference to compare with: no code is known, and no copy of the paper could be had. What stands here follows what its
abstract names, at second hand, and none of its equations is known to us:
- a semantics-enhanced attention module,
- a semantics-enhanced batch normalisation module,
- an encoder that takes semantic features from images and, in the adversarial game, guides the generator.

Ours is therefore what they are, the simplest that each name fits:
- The stages are AttnGAN's (Xu et al., CVPR 2018, equation 1), as are its discriminators, conditioning augmentation and
  DAMSM's terms; all weights of terms are AttnGAN's, and those of the bidirectional terms are 1.
- Attention is AttnGAN's equation 2, asked not by the hidden features alone, but by their sum with a linear function of
  the sentence's condition.
- Batch normalisation is scaled and shifted by linear functions of the condition (de Vries et al., 2017), which has the
  noise of the conditioning augmentation in it.
- The bidirectional game is BiGAN's (Donahue et al., ICLR 2017, equation 2), with the sentence's embedding s where BiGAN
  has the latent: min over G and E, max over D, of E log D(x, E(x)) + E log(1 - D(G(z, s), s)). A discriminator of its
  own plays it, at the largest size, since AttnGAN's takes real images with false sentences for false. Both G and E get
  the non-saturating form.
- The encoder is a stack of strided convolutions as the discriminator's. It ends in tanh, as DAMSM's sentences do.
"""

from collections.abc import Mapping
from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.images import pyramid
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.layers.conditional_batch_norm import ConditionalBatchNorm
from mmbench.layers.convolution import ConvNorm, conv3x3
from mmbench.layers.initialisation import initialise_orthogonally
from mmbench.layers.upsampling import UpsamplingConvolution
from mmbench.layers.word_attention import SpatialAttention
from mmbench.losses.adversarial import cross_entropy_fake, cross_entropy_real
from mmbench.losses.attngan import Discriminators, Guide, StagedGAN
from mmbench.losses.kl import kl_to_standard_normal
from mmbench.networks.attngan import CODE_SIZE, ConditionalDiscriminator, Generated, StagedGenerator, Told
from mmbench.networks.damsm import EncodedText


class SemanticConvolution(nn.Module):
    """A convolution to twice the channels, normalised as the sentence says, then first half * sigmoid(second half).

    Args:
        convolution: from the input to 2 * channels.
        channels: of the output.
        condition_dim: of the condition drawn from the sentence.
    """

    def __init__(self, convolution: nn.Conv2d, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = ConditionalBatchNorm(2 * channels, condition_dim, nn.Linear, bias=True)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, in_channels, H, W) and (N, condition_dim) to (N, channels, h, w)."""
        return F.glu(self.norm(self.convolution(x), condition), dim=1)


class SemanticResidual(nn.Module):
    """A gated convolution and a plain one, both normalised as the sentence says, and the input added.

    Args:
        channels: of input and output.
        condition_dim: of the condition drawn from the sentence.
    """

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.gated = SemanticConvolution(conv3x3(channels, 2 * channels), channels, condition_dim)
        self.convolution = conv3x3(channels, channels)
        self.norm = ConditionalBatchNorm(channels, condition_dim, nn.Linear, bias=True)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, channels, H, W) and (N, condition_dim) to (N, channels, H, W)."""
        return x + self.norm(self.convolution(self.gated(x, condition)), condition)


class SemanticAttention(nn.Module):
    """Every position attends to the words, as its features and the sentence together ask.

    Args:
        channels: of the hidden features.
        embedding_dim: size of words.
        condition_dim: of the condition drawn from the sentence.
    """

    def __init__(self, channels: int, embedding_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.attention = SpatialAttention(channels, embedding_dim)
        self.ask = nn.Linear(condition_dim, channels, bias=False)

    def forward(self, hidden: Tensor, told: Told) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) to the words' context (N, C, H, W), and attention (N, L, H, W), which sums to 1 over L."""
        return self.attention(hidden + self.ask(told.condition)[..., None, None], told.words, told.word_mask)


class NextStage(nn.Module):
    """Hidden features look at the words and double their size.

    Args:
        width: channels of the hidden features.
        embedding_dim: size of words.
        condition_dim: of the condition drawn from the sentence.
        num_residual: residual blocks.
    """

    def __init__(self, width: int, embedding_dim: int, condition_dim: int, num_residual: int) -> None:
        super().__init__()
        self.attention = SemanticAttention(width, embedding_dim, condition_dim)
        self.residual = nn.ModuleList(SemanticResidual(2 * width, condition_dim) for _ in range(num_residual))
        self.upsample = SemanticConvolution(UpsamplingConvolution(2 * width, 2 * width), width, condition_dim)

    def forward(self, hidden: Tensor, told: Told) -> tuple[Tensor, Tensor]:
        """(N, width, s, s) to (N, width, 2s, 2s), and the attention (N, L, s, s)."""
        context, attention = self.attention(hidden, told)
        x = torch.cat((hidden, context), dim=1)
        for block in self.residual:
            x = block(x, told.condition)
        return self.upsample(x, told.condition), attention


class ImageEncoder(nn.Module):
    """Semantic features of images, in the space of sentences.

    Args:
        image_size: height and width of the images, a power of two of at least 8.
        width: channels after the first convolution; they double at each halving, up to eightfold.
        embedding_dim: size of a sentence.
    """

    def __init__(self, image_size: int, width: int, embedding_dim: int) -> None:
        super().__init__()
        num_halvings = int(log2(image_size // CODE_SIZE))
        assert image_size == CODE_SIZE * 2**num_halvings > CODE_SIZE, f"not a power of two above 4: {image_size}"
        channels = [3, *(width * min(2**n, 8) for n in range(num_halvings))]
        self.blocks = nn.Sequential(
            *(ConvNorm(*channels[n : n + 2], 4, 2, nn.LeakyReLU(0.2, inplace=True)) for n in range(num_halvings))
        )
        self.project = nn.Conv2d(channels[-1], embedding_dim, CODE_SIZE)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, image_size, image_size) in [-1, 1] to (N, embedding_dim) in (-1, 1)."""
        return self.project(self.blocks(image)).flatten(1).tanh()


class TVBiGAN(StagedGAN):
    """The generator, the encoder and their training.

    Args:
        damsm: the trained stage before, with `encode_text`, `image_encoder` and `embedding_dim`.
        optimizers: partials for `generator`, `discriminators`, `encoder` and `joint`, which judges pairs of an image
            and semantic features.
        width: channels of the generator's hidden features.
        noise_dim: size of the noise.
        condition_dim: size of the condition drawn from a sentence.
        num_residual: residual blocks per stage.
        base_size: size of the first stage's image; the two others double it.
        discriminator_width: channels after the first convolution of discriminators and encoder.
        max_words: captions longer than this keep so many of their words in training.
        max_prompt_words: the same where images are generated.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        lambda_damsm: weight of the DAMSM terms.
        decay: of the generator's moving average, which makes the images.
    """

    trains_on = frozenset({"image", "caption", "class_id"})

    def __init__(
        self,
        damsm: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        noise_dim: int,
        condition_dim: int,
        num_residual: int,
        base_size: int,
        discriminator_width: int,
        max_words: int,
        max_prompt_words: int,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        lambda_damsm: float,
        decay: float,
    ) -> None:
        embedding_dim, sizes = damsm.embedding_dim, (base_size, 2 * base_size, 4 * base_size)
        stages = (NextStage(width, embedding_dim, condition_dim, num_residual) for _ in sizes[1:])
        super().__init__(
            optimizers,
            Guide(damsm, gamma1, gamma2, gamma3, lambda_damsm, max_words, max_prompt_words),
            StagedGenerator(width, embedding_dim, noise_dim, condition_dim, base_size, stages),
            Discriminators(sizes, discriminator_width, embedding_dim),
            noise_dim,
            condition_dim,
            decay,
        )
        self.encoder = ImageEncoder(sizes[-1], discriminator_width, embedding_dim)
        self.joint = ConditionalDiscriminator(sizes[-1], discriminator_width, embedding_dim)
        initialise_orthogonally(self.encoder)
        initialise_orthogonally(self.joint)

    def judged(self, image: Tensor, semantics: Tensor) -> Tensor:
        """Logits (N,) that images (N, 3, H, W) and semantic features (N, D) are a real image and its features."""
        return self.joint.conditional(self.joint(image), semantics)

    def joint_terms(self, real: Tensor, fake: Tensor, sentence: Tensor) -> dict[str, Tensor]:
        """The side of BiGAN's equation 2 that tells (x, E(x)) from (G(z, s), s)."""
        with torch.no_grad():
            features = self.encoder(real)
        return {
            "L_bi_real": cross_entropy_real(self.judged(real, features)),
            "L_bi_fake": cross_entropy_fake(self.judged(fake.detach(), sentence)),
        }

    def encoder_terms(self, real: Tensor) -> dict[str, Tensor]:
        """Features of real images are to be taken for the sentence of a generated one."""
        return {"L_bi": cross_entropy_fake(self.judged(real, self.encoder(real)))}

    def generator_terms(self, output: Generated, text: EncodedText, class_id: Tensor) -> dict[str, Tensor]:
        """AttnGAN's objective; and images are to go with their sentences as real ones do with their features."""
        return {
            **self.discriminators.generator_terms(output.images, text.sentence),
            **self.guide.terms(output.images[-1], text, class_id),
            "L_bi": cross_entropy_real(self.judged(output.images[-1], text.sentence)),
            "KL": kl_to_standard_normal(output.mu, output.log_variance),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = pyramid(batch["image"], self.discriminators.sizes)
        text = self.guide.captions(batch)
        output = self.drawn(self.generator, text, batch["noise"])
        terms = self.discriminators.discriminator_terms(real, output.images, text.sentence)
        self.minimise("discriminators", terms)
        self.minimise("joint", self.joint_terms(real[-1], output.images[-1], text.sentence))
        with self.held(self.discriminators, self.joint):
            self.minimise("encoder", self.encoder_terms(real[-1]))
            self.minimise("generator", self.generator_terms(output, text, batch["class_id"]))
        self.follow(self.ema, self.generator)
