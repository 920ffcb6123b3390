"""PICNet: masks, attention, encoder, generator, discriminators, losses, a step of training and completion.

Masks are 1 = known, as `keep` of our networks is.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from fixture import gradients, inputs, outputs_of, part, state
from torch import Tensor, nn

from mmbench.core.noise import Noise, Sample
from mmbench.core.weights import KeyMap, load_strictly
from mmbench.data.masks import middle
from mmbench.losses.adversarial import hinge_fake, hinge_real
from mmbench.methods.inpainting.picnet import (
    ENCODER,
    GENERATOR,
    Encoder,
    Generator,
    NormedDiscriminator,
    PatchDiscriminator,
    Paths,
    PICNet,
    PlainDiscriminator,
    assumed_sigma,
)
from mmbench.networks.pluralistic import (
    DISCRIMINATOR,
    DROPPED,
    Discriminator,
    Gaussian,
    ShortLongTermAttention,
    ShortTermAttention,
    attention_names,
    block_names,
    convolution_names,
    resized,
    targets,
)

# What no published model has: the names of discriminators that the code offers.
NAMES = {"block0": "0", "encoder0": "1", "encoder1": "2", "encoder2": "4", "encoder3": "5", "block1": "6"}
PLAIN = KeyMap(
    rename={
        **{rf"{theirs}\.(.*)": rf"{ours}.\1" for theirs, ours in NAMES.items()},
        **attention_names("attn2", "3"),
        **convolution_names("conv", "8"),
    },
    drop=DISCRIMINATOR.drop,
)
NORMED = KeyMap(
    rename={
        r"block0\.model\.1\.(\w+)": r"0.norm.\1",
        **block_names({"block0": "0", "block1": "9"} | {f"encoder{n}": f"{2 * n + 1}" for n in range(4)}),
        **convolution_names("conv", "11"),
    },
    drop=DROPPED,
)
PATCH = KeyMap(
    rename={key: name for n in range(0, 10, 2) for key, name in convolution_names(rf"model\.{n}", str(n)).items()},
    drop={r".*\.weight_v": DROPPED[r".*\.weight_v"]},
)


def keep_of(given: dict[str, Tensor], factor: int) -> Tensor:
    return F.interpolate(given["mask_bits"], scale_factor=factor)


def _encoder(config: dict) -> Encoder:
    return Encoder(config["ngf"], config["img_f"], config["layers"], config["z_nc"], config.get("L", 6))


def _generator(config: dict) -> Generator:
    assert config["L"] == 0
    return Generator(config["ngf"], config["img_f"], config["layers"], config["z_nc"], config["output_scale"])


def _loaded(network: nn.Module, keys: KeyMap, weights: dict[str, Tensor], name: str) -> nn.Module:
    load_strictly(network, keys(weights, network), name)
    return network.eval()


def masks(fixture: dict) -> dict[str, Tensor]:
    given, scales = inputs(fixture), fixture["config"]["scales"]
    hole = torch.from_numpy(middle(*given["size"].tolist()))
    rows, columns = hole.nonzero().unbind(1)
    mask, image = keep_of(given, 8), given["image"]
    sizes = [image.new_empty(1, 1, *(side // 2**n for side in image.shape[2:])) for n in reversed(range(scales))]
    return {
        "center": (~hole).float().expand(3, -1, -1),
        "first_row": rows.min(),
        "last_row": rows.max(),
        "first_column": columns.min(),
        "last_column": columns.max(),
        **{f"image_{n}": each for n, each in enumerate(targets(image, sizes))},
        **{f"mask_{n}": each for n, each in enumerate(targets(mask, sizes))},
        "mask_feature": resized(mask, (8, 8)),
    }


@torch.no_grad()
def attention(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    network = ShortLongTermAttention(fixture["config"]["input_nc"])
    weights = {f"own.{key}": value for key, value in state(fixture).items()}
    keys = KeyMap(rename=attention_names("own", "0"), drop=DROPPED)
    _loaded(nn.Sequential(network), keys, weights, fixture["name"])
    return {
        "short_term": network.short(given["x"], network.weights(given["x"])),
        "attention": network.weights(given["x"]),
        "short_and_long": network(given["x"], given["pre"], given["mask"]),
    }


@torch.no_grad()
def encoder(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    network = _loaded(_encoder(fixture["config"]), ENCODER, state(fixture), fixture["name"])
    keep, image = keep_of(given, 16), given["image"]
    known = network(keep * image)
    with outputs_of({"trunk": network.trunk}) as seen:
        both, posterior = network.both(keep * image, (1 - keep) * image)
    return {
        **{f"feature_{n}": known.features[n] for n in (0, 2, 4)},
        **known.prior._asdict(),
        **{f"train_posterior_{name}": value for name, value in posterior._asdict().items()},
        **{f"train_prior_{name}": value for name, value in both.prior._asdict().items()},
        "train_feature_4": seen["trunk"][4],
    }


@torch.no_grad()
def generator(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    network = _loaded(_generator(fixture["config"]), GENERATOR, state(fixture), fixture["name"])
    decoder, unused = network.decoder, torch.empty(0)
    modules = {"attention_output": decoder.attention, "pre_tanh_4": decoder.heads[-1].conv}
    with outputs_of({"attention_input": decoder.blocks[1], **modules}) as seen:
        # The mask is given at the size of the attention already.
        made = network(given["z"], [unused, unused, given["f_e"], unused, given["f_m"]], given["mask"])
    weights = decoder.attention.weights(seen["attention_input"])
    return {**seen, "attention": weights, **{f"image_{n}": image for n, image in enumerate(made)}}


@torch.no_grad()
def discriminator(kind: type[nn.Module], keys: KeyMap, fixture: dict) -> dict[str, Tensor]:
    config = fixture["config"]
    network = _loaded(kind(config["ndf"], config["img_f"], config["layers"]), keys, state(fixture), fixture["name"])
    attention = {"attended": network[3]} if isinstance(network[3], ShortTermAttention) else {}
    with outputs_of({"before": network[2], "features": network[-3], **attention}) as seen:
        logit = network(inputs(fixture)["image"])
    weights = {"attention": network[3].weights(seen["before"])} if attention else {}
    return {**seen, **weights, "logit": logit}


def _method(config: dict, kind: type[PICNet] = PICNet) -> PICNet:
    judges = config["discriminators"]
    judge = partial(Discriminator, judges["ndf"], judges["img_f"], judges["layers"])
    method = kind(
        judge,
        {},
        width=config["encoder"]["ngf"],
        max_width=config["encoder"]["img_f"],
        depth=config["encoder"]["layers"],
        latent_dim=config["encoder"]["z_nc"],
        num_refining=config["encoder"]["L"],
        lambda_rec=20.0,
        lambda_kl=20.0,
        lambda_gan=1.0,
    )
    assert config["generator"] == config["encoder"] | {"L": 0, "output_scale": len(method.generator.decoder.heads)}
    return method


class Given(Noise):
    """The numbers that were drawn for a recording, by the names that ours have."""

    def __init__(self, numbers: dict[str, Tensor]) -> None:
        rows = len(next(iter(numbers.values())))
        super().__init__(0, [Sample(str(row), 0, 0) for row in range(rows)])
        self.numbers = numbers

    def normal(self, name: str, *shape: int) -> Tensor:
        assert self.numbers[name].shape[1:] == shape
        return self.numbers[name]


@torch.no_grad()
def complete(fixture: dict) -> dict[str, Tensor]:
    given, weights = inputs(fixture), state(fixture)
    config = fixture["config"] | {"discriminators": {"ndf": 8, "img_f": 8, "layers": 3}}  # which make nothing
    method = _method(config).eval()
    for letter, network, keys in (("E", method.encoder, ENCODER), ("G", method.generator, GENERATOR)):
        load_strictly(network, keys(part(weights, f"{letter}."), network), fixture["name"])
    batch = {"image": given["image"], "mask": 1 - keep_of(given, 16)}
    with outputs_of({"made": method.generator}) as seen:
        composite = method.generate(batch, Given({"prior": given["eps_q"]}))
    return {"composite": composite, **{f"generation_{n}": image for n, image in enumerate(seen["made"])}}


def losses(fixture: dict) -> dict[str, Tensor]:
    config, given = fixture["config"], inputs(fixture)
    method = SimpleNamespace(
        lambda_rec=config["lambda_rec"],
        lambda_kl=config["lambda_kl"],
        lambda_gan=config["lambda_g"],
    )
    posterior = Gaussian(given["p_mu"], F.softplus(given["p_raw_sigma"]))
    prior = Gaussian(given["q_mu"], F.softplus(given["q_raw_sigma"]))
    scales = range(config["output_scale"])
    made = Paths([given[f"rec_{n}"] for n in scales], [given[f"gen_{n}"] for n in scales], posterior, prior)
    keep = keep_of(given, 4)
    terms = PICNet.generator_terms(
        method, given["truth"], keep, made, given["logit_gen"], given["feature_rec"], given["feature_truth"]
    )
    real, fake = given["d_real"], given["d_fake"]
    judged = PICNet.discriminator_terms(method, real, fake, real, fake)["L_D"]
    of_judge = {name: given[name] for name in ("d_real", "d_fake")}
    others = {name: value for name, value in given.items() if name not in of_judge}
    return {
        **_named(terms),
        "g_total": sum(terms.values()),
        "prior_sigma": assumed_sigma(keep)[:, 0, 0, 0],
        "img_d": judged,
        "hinge_d_real": hinge_real(real),
        "hinge_d_fake": hinge_fake(fake),
        "hinge_g": -fake.mean(),
        **gradients(fixture, sum(terms.values()), others),
        **gradients(fixture, judged, of_judge),
    }


def _named(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"KL_rec": "kl_rec", "KL_gen": "kl_g", "L_app_rec": "app_rec", "L_app_gen": "app_g"}
    names |= {"L_ad_gen": "ad_g", "L_ad_rec": "ad_rec"}
    return {theirs: terms[ours] for ours, theirs in names.items()}


def train_step(fixture: dict) -> dict[str, Tensor]:
    given, weights = inputs(fixture), state(fixture)
    method = _method(fixture["config"]).train()  # in which power iterations are stored
    maps = {"E": ENCODER, "G": GENERATOR, "D": DISCRIMINATOR, "D_rec": DISCRIMINATOR}
    networks = dict(
        zip(maps, [method.encoder, method.generator, method.discriminator, method.discriminator_rec], strict=True)
    )
    for letter, network in networks.items():
        load_strictly(network, maps[letter](part(weights, f"{letter}."), network), fixture["name"])
    steps: list[dict[str, Tensor]] = []
    made: list[Paths] = []
    paths = method.paths
    method.minimise = lambda names, terms: steps.append(terms)  # type: ignore[method-assign]
    method.paths = lambda *args: made.append(paths(*args)) or made[0]  # type: ignore[method-assign]
    image, keep = given["image"], keep_of(given, 16)
    noise = Given({"posterior": given["eps_p"], "prior": given["eps_q"]})
    method.training_step({"image": image, "mask": 1 - keep, "noise": noise}, 0)
    judged, terms = steps
    generated = made[0].generated
    parameters = {}
    for letter in ("E", "G"):
        own = dict(networks[letter].named_parameters())
        theirs = [name.removeprefix(f"grad/{letter}.") for name in fixture["outputs"] if f"grad/{letter}." in name]
        parameters |= {f"{letter}.{key}": own[maps[letter].name(key)] for key in theirs}
    return {
        "reconstruction": made[0].reconstructed[-1],
        "generation": generated[-1],
        "generation_coarse": generated[0],
        "composite": (1 - keep) * generated[-1] + keep * image,
        **_named(terms),
        "img_d": judged["L_D"],
        "img_d_rec": judged["L_D_rec"],
        **gradients(fixture, sum(terms.values()), parameters),
    }


def _meta(make: Callable[..., nn.Module], *sizes: int) -> nn.Module:
    with torch.device("meta"):
        return make(*sizes)


ADAPTERS = {
    "picnet/masks": masks,
    "picnet/attention": attention,
    "picnet/encoder": encoder,
    "picnet/encoder-full-layout": lambda fixture: (_meta(_encoder, fixture["config"]), ENCODER),
    "picnet/generator": generator,
    "picnet/generator-full-layout": lambda fixture: (_meta(_generator, fixture["config"]), GENERATOR),
    "picnet/discriminator": partial(discriminator, Discriminator, DISCRIMINATOR),
    "picnet/discriminator-full-layout": lambda fixture: (_meta(Discriminator, 32, 128, 5), DISCRIMINATOR),
    "picnet/discriminator-plain": partial(discriminator, PlainDiscriminator, PLAIN),
    "picnet/discriminator-instance": partial(discriminator, NormedDiscriminator, NORMED),
    "picnet/patch-discriminator": partial(discriminator, PatchDiscriminator, PATCH),
    "picnet/losses": losses,
    "picnet/train-step": train_step,
    "picnet/complete": complete,
}
