"""TDANet: Text-Guided Neural Image Inpainting.

Lisai Zhang, Qingcai Chen, Baotian Hu, Shuoran Jiang. ACM MM 2020. https://arxiv.org/abs/2004.03212
Authors' code: https://github.com/idealwhite/tdanet/tree/b3ea9c44c2f9a66d6b9767ae78ca8b553bda77b2

Two paths through one generator: reconstruction draws its latent variables from what the hole hides, generation from
what is known. The networks are in `mmbench.networks.tdanet` and `mmbench.networks.pluralistic`, DAMSM is AttnGAN's.

Deviations:
- A result depends on no other image and on no earlier call: a caption's padding is its own (`TextAttention`), the power
  iteration of spectral normalisation is stored in training alone, and L1 is summed over all four sizes (the authors'
  zip stops at as many sizes as a batch has images, model/tdanet_model.py#L301).
- Object masks are cut and mirrored with their images, which are not turned (see `mmbench.data.views.Squash`), and an
  image's captions are drawn at random (theirs is always the first, since the counter of epochs does not reach it).
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.adversarial import Adversarial
from mmbench.core.holes import require_mask, require_sides
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Batch
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_GUIDED_INPAINTING
from mmbench.core.text import padded
from mmbench.core.weights import KeyMap
from mmbench.losses.adversarial import least_squares_fake, least_squares_real
from mmbench.losses.attngan import Guide
from mmbench.losses.kl import kl_between_normals
from mmbench.networks.damsm import EncodedText
from mmbench.networks.pluralistic import DISCRIMINATOR, Discriminator, Gaussian, targets
from mmbench.networks.tdanet import ENCODER, GENERATOR, BothEncoded, Encoder, Generator
from mmbench.networks.tdanet_variants import DilatedEncoder, GatedEncoder, PartialEncoder

NO_WORD = 0  # of the vocabulary; stands where there is no text, and is not looked at


class Paths(NamedTuple):
    """What a training step makes, images from small to full.

    Attributes:
        reconstructed: (N, 3, s, s) each, from what the hole hides.
        generated: the same, from what is known.
        posterior: of the latent variables, of what the hole hides.
        prior: of what is known.
    """

    reconstructed: list[Tensor]
    generated: list[Tensor]
    posterior: Gaussian
    prior: Gaussian


class TDANet(Adversarial):
    """Fills holes after a caption: the published method.

    Args:
        damsm: the trained stage before, with `vocabulary`, `text_encoder`, `image_encoder` and `embedding_dim`.
        optimizers: partials for `encoder`, `generator`, `discriminator` and `discriminator_rec`.
        width, max_width: channels of the first features, and the most that any have.
        latent_dim: channels of the latent variables.
        num_refining: as `Encoder`.
        depth: halvings; images are a multiple of 2^depth pixels high and wide.
        discriminator_width, discriminator_max_width: the same of the discriminators.
        lambda_rec, lambda_gen: weights of L1 on the two paths.
        lambda_kl: weight of the KL divergences, times the number of sizes.
        lambda_gan: weight of the adversarial terms.
        lambda_match: weight of DAMSM's.
        gamma1, gamma2, gamma3: smoothing factors of DAMSM.
        max_words: captions longer than this keep so many of their first words.
    """

    network: ClassVar[type[Encoder]] = Encoder
    task = TEXT_GUIDED_INPAINTING
    trains_on = frozenset({"image", "mask", "caption"})
    smallest_batch = 2  # the other images' captions are the false ones
    official: ClassVar[dict[str, KeyMap]] = {
        "encoder": ENCODER,
        "generator": GENERATOR,
        "discriminator": DISCRIMINATOR,
        "discriminator_rec": DISCRIMINATOR,
    }

    def __init__(
        self,
        damsm: nn.Module,
        optimizers: Mapping[str, OptimizerPartial],
        width: int,
        max_width: int,
        latent_dim: int,
        num_refining: int,
        depth: int,
        discriminator_width: int,
        discriminator_max_width: int,
        lambda_rec: float,
        lambda_gen: float,
        lambda_kl: float,
        lambda_gan: float,
        lambda_match: float,
        gamma1: float,
        gamma2: float,
        gamma3: float,
        max_words: int,
    ) -> None:
        super().__init__(optimizers)
        self.depth, self.latent_dim, self.max_words = depth, latent_dim, max_words
        self.lambda_rec, self.lambda_gen = lambda_rec, lambda_gen
        self.lambda_kl, self.lambda_gan = lambda_kl, lambda_gan
        self.guide = Guide(damsm, gamma1, gamma2, gamma3, lambda_match)
        # Four times as many channels after the first halving, twice as many after the others.
        widths = [width, *(min(width * 2 ** (n + 1), max_width) for n in range(1, depth))]
        self.encoder = self.network(widths, damsm.embedding_dim, latent_dim, num_refining)
        self.generator = Generator(self.encoder.hidden_channels, latent_dim, width, max_width, depth)
        self.discriminator = Discriminator(discriminator_width, discriminator_max_width, depth)
        self.discriminator_rec = Discriminator(discriminator_width, discriminator_max_width, depth)

    def encode_text(self, captions: list[str]) -> EncodedText:
        """N captions in DAMSM's space, split into words as NLTK does.

        An empty caption is no text, which the paper does not know: its sentence and its one word are zero, so that
        whatever attends to it learns nothing.

        Raises:
            ValueError: a caption has words, and none of them is known.
        """
        damsm = self.guide.network
        told = torch.tensor([bool(caption.strip()) for caption in captions], device=self.device)
        encoded = [
            damsm.vocabulary.encode_beginning(caption, self.max_words)[0] if caption.strip() else [NO_WORD]
            for caption in captions
        ]
        tokens, lengths = padded(encoded)
        words, word_mask, sentence = damsm.text_encoder(tokens.to(self.device), lengths)
        return EncodedText(words * told[:, None, None], word_mask, sentence * told[:, None])

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W), and which of their pixels are kept, (N, 1, H, W).

        Raises:
            ValueError: the network does not work at this size, or the masks are of another.
        """
        image, mask = batch["image"], batch["mask"]
        require_mask(image, mask)
        require_sides(image, 2**self.depth, 2)
        return image, 1 - mask  # the authors' masks are 1 where they keep

    def prompts(self, batch: Batch) -> EncodedText:
        """The texts that images are filled after."""
        return self.encode_text(batch[self.task.prompt])

    def captions(self, batch: Batch) -> EncodedText:
        """The texts of a training step."""
        return self.encode_text(batch["caption"])

    def paths(self, encoded: BothEncoded, keep: Tensor, noise: Noise) -> Paths:
        """Both paths of encoded images, which pass the generator as one batch."""
        known, posterior = encoded.known, encoded.posterior
        shape = posterior.mu.shape[1:]
        z = torch.cat(
            (posterior.draw(noise.normal("posterior", *shape)), known.prior.draw(noise.normal("prior", *shape)))
        )
        # In training reconstruction is given the words that the known region does not show, and generation those that
        # the hole hides, which at test time nobody knows: as released, model/network.py#L483.
        hidden = torch.cat((known.hidden, encoded.hidden))
        features = known.features[self.depth - 3]
        images = self.generator(z, hidden, torch.cat((features, features)), torch.cat((keep, keep)))
        reconstructed, generated = zip(*(image.chunk(2) for image in images), strict=True)
        return Paths(list(reconstructed), list(generated), posterior, known.prior)

    def discriminator_terms(self, real: Tensor, made: Paths) -> dict[str, Tensor]:
        """Real images against made ones."""
        fake, fake_rec = self.fakes(made)
        return {
            f"L_{name}": (least_squares_real(judge(real)) + least_squares_fake(judge(image))) / 2
            for name, judge, image in (
                ("D", self.discriminator, fake),
                ("D_rec", self.discriminator_rec, fake_rec),
            )
        }

    def fakes(self, made: Paths) -> tuple[Tensor, Tensor]:
        """What each discriminator learns from: reconstructions alone, as released, model/tdanet_model.py#L251."""
        fake = made.reconstructed[-1].detach()
        return fake, fake

    def generator_terms(self, real: Tensor, made: Paths, text: EncodedText) -> dict[str, Tensor]:
        """The objective of encoder and generator, by path: as released, with every term over the whole image."""
        reconstructed, generated = made.reconstructed[-1], made.generated[-1]
        judged_gen, judged_rec = self.discriminator(generated), self.discriminator(reconstructed)
        like_rec, like_real, like_gen = map(self.discriminator_rec, (reconstructed, real, generated))
        standard = torch.zeros_like(made.posterior.mu), torch.ones_like(made.posterior.mu)
        kl = self.lambda_kl * len(made.generated)
        return {
            "KL_rec": kl * kl_between_normals(*standard, *made.posterior),
            "KL_gen": kl * kl_between_normals(*made.posterior.detach(), *made.prior),
            "L1_rec": self.lambda_rec * pyramid_l1(made.reconstructed, real),
            "L1_gen": self.lambda_gen * pyramid_l1(made.generated, real),
            "L_G_rec": self.lambda_gan * least_squares_real(judged_rec),
            "L_G_gen": self.lambda_gan * least_squares_real(judged_gen),
            "L_feature_rec": self.lambda_gan * F.mse_loss(like_rec, like_real),
            "L_feature_gen": self.lambda_gan * F.mse_loss(like_gen, like_real),
            **{f"{name}_rec": term for name, term in self.guide.terms(reconstructed, text, None).items()},
            **{f"{name}_gen": term for name, term in self.guide.terms(generated, text, None).items()},
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        (real, keep), text = self.given(batch), self.captions(batch)
        made = self.paths(self.encoder.both(real, keep, text), keep, batch["noise"])
        discriminators = self.discriminator, self.discriminator_rec
        self.minimise(["discriminator", "discriminator_rec"], self.discriminator_terms(real, made))
        with self.held(*discriminators):
            self.minimise(["encoder", "generator"], self.generator_terms(real, made, text))

    def generate(self, batch: Batch, noise: Noise) -> Tensor:
        """Images with their known pixels untouched.

        The first draw of a sample takes the middle of the prior, as the README has it for the table (`--no_variance`);
        the others are drawn from it.
        """
        image, keep = self.given(batch)
        encoded = self.encoder(image, keep, self.prompts(batch))
        first = torch.tensor([sample.draw == 0 for sample in noise.samples], device=image.device)
        eps = noise.normal("z", *encoded.prior.mu.shape[1:]).masked_fill(first[:, None, None, None], 0)
        z = encoded.prior.draw(eps)
        made = self.generator(z, encoded.hidden, encoded.features[self.depth - 3], keep)[-1]
        return keep * image + (1 - keep) * made

    def words(self, captions: list[str]) -> list[list[str]]:
        """The known words of N captions, in the order in which `word_attention` counts them."""
        vocabulary = self.guide.network.vocabulary
        encoded = (vocabulary.encode_beginning(caption, self.max_words)[0] for caption in captions)
        return [[vocabulary.words[place] for place in places] for places in encoded]

    @torch.no_grad()
    def word_attention(self, batch: Batch) -> Tensor:
        """How much each position of the known region attends to each word that it does not show.

        Args:
            batch: the fields that `task.inputs` names.

        Returns:
            (N, L, H / 2^depth, W / 2^depth): sums to 1 over the known words of a caption (`words`), 0 at padding and
            wherever anything of the hole is seen.
        """
        image, keep = self.given(batch)
        return self.encoder(image, keep, self.prompts(batch)).attention


class TDANetGenerationJudged(TDANet):
    """TDANet whose discriminator learns from what the generation path makes, as PICNet's does.

    So did the authors' before "changed gen path gan loss to rec path": model/tdanet_model.py#L250.
    """

    official: ClassVar[dict[str, KeyMap]] = {}

    def fakes(self, made: Paths) -> tuple[Tensor, Tensor]:
        return made.generated[-1].detach(), made.reconstructed[-1].detach()


class TDANetGated(TDANet):
    """A variant of ours: gated convolutions in the encoder's trunk."""

    network = GatedEncoder
    official: ClassVar[dict[str, KeyMap]] = {}


class TDANetPartial(TDANet):
    """A variant of ours: partial convolutions in the encoder's trunk."""

    network = PartialEncoder
    official: ClassVar[dict[str, KeyMap]] = {}


class TDANetDilated(TDANet):
    """A variant of ours: dilated convolutions in the encoder's trunk."""

    network = DilatedEncoder
    official: ClassVar[dict[str, KeyMap]] = {}


class TDANetInterpolated(TDANet):
    """A variant of ours: training lies between two captions of an image, word by word, each mixture a draw."""

    trains_on = TDANet.trains_on | {"captions"}
    official: ClassVar[dict[str, KeyMap]] = {}

    def captions(self, batch: Batch) -> EncodedText:
        """A caption on the way to another one of the same image; words that only the longer has stay as they are."""
        streams = batch["noise"].streams("other caption")
        others = [str(rng.choice(texts)) for rng, texts in zip(streams, batch["captions"], strict=True)]
        share = batch["noise"].uniform("share", 1)
        return between(self.encode_text(batch["caption"]), self.encode_text(others), share)


def between(one: EncodedText, other: EncodedText, share: Tensor) -> EncodedText:
    """Texts of which `share` (N, 1) in [0, 1] is of the other: sentences, and words at places where both have one."""
    num_words = max(one.words.shape[1], other.words.shape[1])
    words, word_mask, _ = padded_to(one, num_words)
    other_words, other_mask, _ = padded_to(other, num_words)
    # Where one caption has ended, the other goes on alone.
    weight = torch.where(word_mask & other_mask, share, other_mask.to(share))[..., None]
    sentence = torch.lerp(one.sentence, other.sentence, share)
    return EncodedText(torch.lerp(words, other_words, weight), word_mask | other_mask, sentence)


def padded_to(text: EncodedText, num_words: int) -> EncodedText:
    """Texts filled up with padding to so many words."""
    room = num_words - text.words.shape[1]
    return EncodedText(F.pad(text.words, (0, 0, 0, room)), F.pad(text.word_mask, (0, room)), text.sentence)


def pyramid_l1(made: list[Tensor], real: Tensor) -> Tensor:
    """L1 of images of several sizes, each a mean, summed."""
    return torch.stack([F.l1_loss(*pair) for pair in zip(made, targets(real, made), strict=True)]).sum()
