"""TDANet: attention, encoder, generator, discriminator, losses, a step of training and completion; and DAMSM's part."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import masks
import torch
import torch.nn.functional as F
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.noise import Noise, Sample
from mmbench.core.weights import KeyMap, load_strictly
from mmbench.losses.attngan import Guide
from mmbench.losses.matching import region_attention, sentence_loss, words_loss
from mmbench.methods.inpainting.tdanet import TDANet
from mmbench.networks.damsm import IMAGE_ENCODER, TEXT_ENCODER, EncodedImage, EncodedText, ImageEncoder, TextEncoder
from mmbench.networks.inception_v3 import InceptionV3Trunk
from mmbench.networks.pluralistic import DISCRIMINATOR, Discriminator, Gaussian, Paths
from mmbench.networks.tdanet import ENCODER, GENERATOR, Encoder, Generator, TextAttention, word_context

DEFAULTS = {"layers": 5, "output_scale": 4}  # where a config says nothing of them


def _encoder(config: dict) -> Encoder:
    assert config["image_dim"] == config["img_f"]
    width, most = config["ngf"], config["img_f"]
    widths = [width, *(min(width * 2 ** (n + 2), most) for n in range(config["layers"] - 1))]
    return Encoder(widths, config["text_dim"], config["z_nc"], config["L"])


def _generator(config: dict) -> Generator:
    assert config["L"] == 0
    return Generator(
        config["f_text_dim"], config["z_nc"], config["ngf"], config["img_f"], config["layers"], config["output_scale"]
    )


def _discriminator(config: dict) -> Discriminator:
    return Discriminator(config["ndf"], config["img_f"], config.get("layers", 5))


def _text(given: dict[str, Tensor]) -> EncodedText:
    words = given["words"].mT
    return EncodedText(words, masks.from_lengths(given["lengths"], words.shape[1]), given["sentence"])


@contextmanager
def _as_authors(network: nn.Module, text: EncodedText) -> Iterator[None]:
    """While the block runs, attention is handed the authors' mask of padding, which they tile the wrong way round."""

    def arguments(module: nn.Module, args: tuple) -> tuple:
        features, words, _, *others = args
        return features, words, masks.spatial(~text.word_mask, features[0, 0].numel()), *others

    handles = [
        module.register_forward_pre_hook(arguments) for module in network.modules() if isinstance(module, TextAttention)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _image_and_keep(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return given["image"], F.interpolate(given["mask_bits"], scale_factor=16, mode="nearest")


def word_attention(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    assert not config["multi_peak"]
    layer = TextAttention(config["image_dim"], config["text_dim"])
    keys = KeyMap(rename={r"conv_image\.weight": "project.weight"})
    load_strictly(layer, keys(state(fixture), layer), fixture["name"])
    words, features, used = given["words"].mT, given["feature"], given["keep"] == 1
    word_mask = masks.spatial(~masks.from_lengths(given["lengths"], words.shape[1]), features[0, 0].numel())
    everything = torch.ones_like(word_mask), torch.ones_like(used)
    maps = {
        "plain": word_context(layer(features, words, word_mask, used, inverse=False), words),
        "inverse": word_context(layer(features, words, word_mask, used, inverse=True), words),
        "unmasked": word_context(layer(features, words, *everything, inverse=False), words),
    }
    pooled = {f"{name}_pooled": one.amax(dim=(2, 3)) for name, one in maps.items()}
    return {f"{name}_map": one for name, one in maps.items()} | pooled


def encoder(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _encoder(fixture["config"]).eval()
    load_strictly(network, ENCODER(state(fixture), network), fixture["name"])
    (image, keep), text = _image_and_keep(given), _text(given)
    with torch.no_grad(), _as_authors(network, text):
        encoded = network(image, keep, text)
    features = {f"feature_{n}": one for n, one in enumerate(encoded.features)}
    dim = text.words.shape[-1]
    return features | {
        "mu": encoded.prior.mu,
        "sigma": encoded.prior.sigma,
        "word_context": encoded.hidden[:, -dim:, 0, 0],
        "f_text": encoded.hidden,
    }


def encoder_train(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _encoder(fixture["config"]).eval()
    load_strictly(network, ENCODER(state(fixture), network), fixture["name"])
    (image, keep), text = _image_and_keep(given), _text(given)
    with torch.no_grad(), _as_authors(network, text), outputs_of({"trunk": network.trunk}) as seen:
        encoded = network.both(image, keep, text)
    dim, known = text.words.shape[-1], encoded.known
    return {
        "feature_4": seen["trunk"][4],
        "posterior_mu": encoded.posterior.mu,
        "posterior_sigma": encoded.posterior.sigma,
        "prior_mu": known.prior.mu,
        "prior_sigma": known.prior.sigma,
        "f_text": torch.cat((known.hidden, encoded.hidden)),
        "context_for_reconstruction_half": known.hidden[:, -dim:, 0, 0],
        "context_for_generation_half": encoded.hidden[:, -dim:, 0, 0],
    }


def generator(fixture: dict) -> dict[str, Tensor]:
    given, network = inputs(fixture), _generator(fixture["config"]).eval()
    load_strictly(network, GENERATOR(state(fixture), network), fixture["name"])
    decoder = network.decoder
    modules = {"attention_input": decoder.blocks[1], "attention_output": decoder.attention}
    with torch.no_grad(), outputs_of(modules) as seen:
        images = network(given["z"], given["f_text"], given["f_e"], given["mask"])
        attention = decoder.attention.weights(seen["attention_input"])
    return {
        **seen,
        "attention": attention,
        **{f"image_{n}": image for n, image in enumerate(images)},
        "pre_tanh_4": images[-1].atanh(),
    }


def discriminator(fixture: dict) -> dict[str, Tensor]:
    assert fixture["config"]["attention"]
    assert fixture["config"]["spectral_norm"]
    given, network = inputs(fixture), _discriminator(fixture["config"]).eval()
    load_strictly(network, DISCRIMINATOR(state(fixture), network), fixture["name"])
    modules = {"given": network[2], "attended": network[3], "features": network[6]}
    with torch.no_grad(), outputs_of(modules) as seen:
        logit = network(given["image"])
        attention = network[3].weights(seen.pop("given"))
    return seen | {"attention": attention, "logit": logit}


def losses(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    made = Paths(
        [given[f"rec_{n}"] for n in range(4)],
        [given[f"gen_{n}"] for n in range(4)],
        Gaussian(given["p_mu"], F.softplus(given["p_raw_sigma"])),
        Gaussian(given["q_mu"], F.softplus(given["q_raw_sigma"])),
    )
    real, text = given["truth"], _text(given)
    rec, gen = made.reconstructed[-1], made.generated[-1]
    seen = {
        id(image): EncodedImage(given[f"region_{name}"], given[f"code_{name}"])
        for name, image in (("rec", rec), ("gen", gen))
    }
    said = {id(rec): given["logit_rec"], id(gen): given["logit_gen"]}
    like = {id(rec): given["feature_rec"], id(gen): given["feature_gen"], id(real): given["feature_truth"]}
    stage = _stage(config)
    stage.guide.images = lambda image: seen[id(image)]
    stage.discriminator = lambda image: said[id(image)]
    stage.discriminator_rec = lambda image: like[id(image)]
    terms = TDANet.generator_terms(stage, real, made, text)
    total = sum(terms.values())
    judge = SimpleNamespace(
        discriminator=lambda image: given["d_real"] if image is real else given["d_fake"],
        discriminator_rec=lambda image: image,
    )
    judge.fakes = partial(TDANet.fakes, judge)
    loss = TDANet.discriminator_terms(judge, real, made)["L_D"]
    judged = {name: given[name] for name in ("d_real", "d_fake")}
    others = {name: tensor for name, tensor in given.items() if name not in judged}
    return {
        **_by_their_names(terms),
        "g_total": total,
        "dis_img": loss,
        **gradients(fixture, total, others),
        **gradients(fixture, loss, judged),
    }


def _stage(config: dict) -> SimpleNamespace:
    """What the objective reads of a method: its weights, and the guide's."""
    gammas = dict(zip(("gamma1", "gamma2", "gamma3"), config["gammas"], strict=True))
    guide = SimpleNamespace(gammas=gammas, lambda_damsm=config["lambda_match"])
    guide.terms, guide.terms_of = partial(Guide.terms, guide), partial(Guide.terms_of, guide)
    return SimpleNamespace(
        guide=guide,
        lambda_rec=config["lambda_rec_l1"],
        lambda_gen=config["lambda_gen_l1"],
        lambda_kl=config["lambda_kl"],
        lambda_gan=config["lambda_gan"],
    )


def _by_their_names(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The objective under the names of the recording."""
    names = {
        "kl": "KL",
        "l1": "L1",
        "gan": "L_G",
        "ad_l2": "L_feature",
        "word": "DAMSM_words",
        "sentence": "DAMSM_sentence",
    }
    paths = {"rec": "rec", "g": "gen"}
    return {f"{n}_{path}": terms[f"{name}_{paths[path]}"] for n, name in names.items() for path in paths}


class _Pooled(nn.Module):
    """What the recording has in the place of DAMSM's image encoder."""

    def __init__(self, projection: Tensor) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, image: Tensor) -> EncodedImage:
        regions = torch.einsum("dc, nchw -> ndhw", self.projection, F.adaptive_avg_pool2d(image, 5))
        return EncodedImage(regions, regions.mean(dim=(2, 3)))


class _Drawn(Noise):
    """The numbers that were recorded."""

    def __init__(self, given: dict[str, Tensor]) -> None:
        super().__init__(0, [Sample(str(n), 0, 0) for n in range(len(given["image"]))])
        self.drawn = {"posterior": given["eps_p"], "prior": given["eps_q"]}

    def normal(self, name: str, *shape: int) -> Tensor:
        return self.drawn[name]


def train_step(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    method = _method(fixture, _Pooled(given["projection"])).train()
    (real, keep), text = _image_and_keep(given), _text(given)
    with _as_authors(method.encoder, text):
        made = method.paths(method.encoder.both(real, keep, text), keep, _Drawn(given))
    judged = method.discriminator_terms(real, made)
    terms = method.generator_terms(real, made, text)
    parts = {"E": (method.encoder, ENCODER), "G": (method.generator, GENERATOR)}
    parameters = {}
    for name in (output.removeprefix("grad/") for output in fixture["outputs"] if output.startswith("grad/")):
        first, _, key = name.partition(".")
        network, keys = parts[first]
        parameters[name] = network.get_parameter(keys.name(key))
    generation = made.generated[-1]
    return {
        "reconstruction": made.reconstructed[-1],
        "generation": generation,
        "generation_coarse": made.generated[0],
        "composite": (1 - keep) * generation + keep * real,
        "dis_img": judged["L_D"],
        "dis_img_rec": judged["L_D_rec"],
        **_by_their_names(terms),
        **gradients(fixture, sum(terms.values()), parameters),
    }


def complete(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    method = _method(fixture, nn.Identity()).eval()
    (image, keep), text = _image_and_keep(given), _text(given)
    method.encode_text = lambda captions: text
    batch = {"image": image, "mask": 1 - keep, "caption": []}
    noise = Noise(0, [Sample(str(n), 0, 0) for n in range(len(image))])
    with torch.no_grad(), _as_authors(method, text), outputs_of({"images": method.generator}) as seen:
        composite = method.generate(batch, noise)
    return {"composite": composite} | {f"generation_{n}": one for n, one in enumerate(seen["images"])}


def _method(fixture: dict, image_encoder: nn.Module) -> TDANet:
    """The method with the recorded networks; without discriminators where none were recorded."""
    config = fixture["config"]
    encoder, discriminators = config["encoder"], config.get("discriminators", {"ndf": 8, "img_f": 32})
    damsm = nn.Module()
    damsm.image_encoder, damsm.embedding_dim = image_encoder, encoder["text_dim"]
    method = TDANet(
        damsm,
        optimizers={},
        width=encoder["ngf"],
        max_width=encoder["img_f"],
        latent_dim=encoder["z_nc"],
        num_refining=encoder["L"],
        depth=encoder["layers"],
        discriminator_width=discriminators["ndf"],
        discriminator_max_width=discriminators["img_f"],
        lambda_rec=20,
        lambda_gen=20,
        lambda_kl=20,
        lambda_gan=1,
        lambda_match=0.1,
        gamma1=5,
        gamma2=5,
        gamma3=10,
        max_words=128,
    )
    parts = {"E": (method.encoder, ENCODER), "G": (method.generator, GENERATOR)}
    if "discriminators" in config:
        parts |= {"D": (method.discriminator, DISCRIMINATOR), "D_rec": (method.discriminator_rec, DISCRIMINATOR)}
    weights = state(fixture)
    for prefix, (network, keys) in parts.items():
        load_strictly(network, keys(part(weights, f"{prefix}."), network), fixture["name"])
    return method


def matching_loss(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    gammas = {name: config[name] for name in ("gamma1", "gamma2", "gamma3")}
    text = _text(given)
    word = sum(words_loss(given["region"], text.words, text.word_mask, None, **gammas))
    sentence = sum(sentence_loss(given["code"], text.sentence, None, gammas["gamma3"]))
    _, attention = region_attention(text.words, text.word_mask, given["region"], gammas["gamma1"])
    maps = {f"attention_{n}": attention[n : n + 1, :length] for n, length in enumerate(given["lengths"])}
    losses = {"word_loss": word, "sentence_loss": sentence}
    return losses | maps | gradients(fixture, word + sentence, given)


def text_encoder(fixture: dict) -> dict[str, Tensor]:
    given, (network, keys) = inputs(fixture), _text_encoder(fixture)
    load_strictly(network, keys(state(fixture), network), fixture["name"])
    encoded = network.eval()(given["captions"], given["lengths"])
    return {"words": encoded.words.mT, "sentence": encoded.sentence, "padding": ~encoded.word_mask}


def image_encoder(fixture: dict) -> dict[str, Tensor]:
    assert fixture["config"]["backbone"] == "inception_v3"
    network, keys = _image_encoder(fixture)
    load_strictly(network, keys(state(fixture), network), fixture["name"])
    with torch.no_grad():
        regions, code = network.eval()(inputs(fixture)["image"])
    return {"region_features": regions, "image_code": code}


def _text_encoder(fixture: dict) -> tuple[nn.Module, KeyMap]:
    config = fixture["config"]
    return TextEncoder(config["ntoken"], config["nhidden"], config["ninput"]), TEXT_ENCODER


def _image_encoder(fixture: dict) -> tuple[nn.Module, KeyMap]:
    return ImageEncoder(InceptionV3Trunk(), fixture["config"]["embedding_dim"]), IMAGE_ENCODER


def layout_of(fixture: dict) -> tuple[nn.Module, KeyMap]:
    config = {**DEFAULTS, **fixture["config"]}
    name = fixture["name"].removeprefix("tdanet/").removesuffix("-full-layout")
    with torch.device("meta"):
        match name:
            case "encoder":
                return _encoder(config), ENCODER
            case "generator":
                return _generator(config), GENERATOR
            case "discriminator":
                return _discriminator(config), DISCRIMINATOR
            case "text-encoder":
                return _text_encoder(fixture)
            case _:
                return _image_encoder(fixture)


ADAPTERS = {
    "tdanet/word-attention": word_attention,
    "tdanet/encoder": encoder,
    "tdanet/encoder-train": encoder_train,
    "tdanet/generator": generator,
    "tdanet/discriminator": discriminator,
    "tdanet/losses": losses,
    "tdanet/train-step": train_step,
    "tdanet/complete": complete,
    "tdanet/matching-loss": matching_loss,
    "tdanet/text-encoder": text_encoder,
    "tdanet/image-encoder": image_encoder,
    "tdanet/encoder-full-layout": layout_of,
    "tdanet/generator-full-layout": layout_of,
    "tdanet/discriminator-full-layout": layout_of,
    "tdanet/text-encoder-full-layout": layout_of,
    "tdanet/image-encoder-full-layout": layout_of,
}
