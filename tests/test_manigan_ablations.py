"""ManiGAN's ablations: each differs from the full method where it says, and nowhere else."""

from functools import cache

import pytest
import torch

from mmbench.core import config, construction
from mmbench.core.noise import Noise, Sample
from mmbench.layers.affine_combination import AffineCombination
from mmbench.networks.manigan import DetailCorrection, MainModule
from mmbench.networks.manigan_ablations import (
    ConcatDetailCorrection,
    Concatenation,
    ConcatMainModule,
    DetailCorrectionAlone,
    MainModuleWithoutACM,
)
from mmbench.pipeline import assembly, lookup, stages
from mmbench.pipeline.experiment_files import load

BASE, WIDTH, TEXT, REGIONS = 16, 6, 10, 8
# What an ablation has in common with the method that it is an ablation of.
FULL = {
    "manigan_without_acm": "manigan_main",
    "manigan_concat_main": "manigan_main",
    "manigan_concat": "manigan",
    "manigan_without_main": "manigan",
}


def main_module(network):
    torch.manual_seed(0)
    return network(WIDTH, TEXT, noise_dim=7, condition_dim=4, num_residual=1, base_size=BASE, shared_width=8).eval()


def correction(network):
    torch.manual_seed(0)
    return network(WIDTH, 4 * BASE, TEXT, feature_channels=5, num_residual=1, shared_width=8).eval()


def shapes(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def without(found, *parts):
    return {name: shape for name, shape in found.items() if not any(part in name for part in parts)}


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(1)
    sizes = {
        "noise": (7,),
        "eps": (4,),
        "sentence": (TEXT,),
        "words": (8, TEXT),
        "image_code": (TEXT,),
        "regions": (TEXT, REGIONS, REGIONS),
        "features": (5, 2 * BASE, 2 * BASE),
    }
    inputs = {name: torch.randn(3, *size, generator=generator) for name, size in sizes.items()}
    return inputs | {"word_mask": torch.arange(8) < torch.tensor([5, 2, 8])[:, None]}


def pick(given, *names):
    return {name: given[name] for name in (*names, "word_mask")}


def image(network, given):
    """The largest image of a main module, or the image of a correction module."""
    with torch.no_grad():
        output = network(**given)
    return output if isinstance(output, torch.Tensor) else output.images[-1]


@pytest.mark.parametrize(("channels", "image_channels", "shared"), [(96, 32, 128), (36, 12, 16), (5, 7, 3)])
def test_concatenation_has_as_many_weights_as_the_affine_combination(channels, image_channels, shared):
    counts = [
        sum(parameter.numel() for parameter in layer(channels, image_channels, shared).parameters())
        for layer in (AffineCombination, Concatenation)
    ]
    assert counts[0] == counts[1] == 9 * shared * (image_channels + 2 * channels)


@pytest.mark.parametrize(("layer", "scales"), [(Concatenation, False), (AffineCombination, True)])
def test_only_the_affine_combination_scales_hidden_features_by_the_image(layer, scales):
    torch.manual_seed(0)
    combination, (one, other) = layer(6, 4, 16), torch.randn(2, 2, 6, 8, 8)
    dark, bright = torch.randn(2, 2, 4, 8, 8)
    with torch.no_grad():
        added = [combination(hidden, bright) - combination(hidden, dark) for hidden in (one, other)]
    assert added[0].shape == one.shape
    assert (added[0] - added[1]).abs().max().item() > 0.1 if scales else torch.allclose(*added, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "full", "ablated"),
    [(main_module, MainModule, ConcatMainModule), (correction, DetailCorrection, ConcatDetailCorrection)],
)
def test_concatenation_replaces_every_affine_combination_and_nothing_else(build, full, ablated):
    full, ablated = shapes(build(full)), shapes(build(ablated))
    assert without(full, ".combination.") == without(ablated, ".combination.")
    replaced = {name.rpartition(".combination.")[0] for name in full.keys() - without(full, ".combination.").keys()}
    assert {name for name in ablated if ".combination." in name} == {
        f"{place}.combination.{n}.weight" for place in replaced for n in range(2)
    }
    assert len(replaced) == (5 if build is main_module else 2)


def test_without_the_affine_combination_the_image_enters_as_a_whole_only(given):
    network = main_module(MainModuleWithoutACM)
    assert shapes(network) == without(shapes(main_module(MainModule)), ".combination.", "image_path.")
    given = pick(given, "noise", "eps", "sentence", "words", "image_code", "regions")
    edited = image(network, given)
    assert edited.shape == (3, 3, 4 * BASE, 4 * BASE)
    assert torch.equal(image(network, given | {"regions": given["regions"].flip(0)}), edited)
    for name in ("image_code", "words", "sentence", "noise"):
        assert (image(network, given | {name: given[name].flip(0)}) - edited).abs().max() > 1e-4, name


def test_without_the_main_module_the_images_own_features_are_corrected(given):
    alone, full = correction(DetailCorrectionAlone), correction(DetailCorrection)
    full.load_state_dict(alone.state_dict())
    given = pick(given, "words", "features")
    edited = image(alone, given)
    with torch.no_grad():
        hidden = full.upsample(given["features"])
    torch.testing.assert_close(image(full, given | {"hidden": hidden}), edited, rtol=0, atol=0)
    for name in ("words", "features"):
        assert (image(alone, given | {name: given[name].flip(0)}) - edited).abs().max() > 1e-4, name


def composed(method, *words):
    return config.composed([f"method={method}", "trainer=cpu", *words])


TOY = ["data.source=toy", "data.toy_images=40", "weights=none"]


@pytest.mark.parametrize(("words", "kept"), [([], (18, 25)), (["data=coco"], (12, 20))], ids=["cub", "coco"])
def test_a_prompt_keeps_more_of_its_words_than_a_caption_in_training(tiny, words, kept):
    plain = composed("manigan_main", *TOY, *words)
    method, _ = assembly.built(plain, assembly.prepared_data(plain))
    caption = " ".join(method.guide.network.vocabulary.words[1:31])
    batch = {field: [caption] for field in ("caption", "caption_mismatched", method.task.prompt)}
    batch |= {"image": torch.zeros(1, 3, 64, 64), "noise": Noise(0, [Sample("a", 0, 0)])}
    with torch.no_grad():
        trained, prompted = method.encoded(batch)[1], method.shown(batch)[1]
    assert (trained.word_mask.sum(), prompted.word_mask.sum()) == kept


@cache  # composing takes its time, and the full methods are asked for again and again
def on_coco(method):
    return composed(method, "data=coco")["method"]


@pytest.mark.parametrize(("name", "full"), FULL.items())
def test_an_ablation_is_set_as_the_full_method_and_has_no_published_weights(name, full):
    ablated, full = on_coco(name), on_coco(full)
    assert ablated["training"] == full["training"]
    ignored = {"_target_", "perceptual", "image_size", *(["shared_width"] if "concat" in name else [])}
    common = (ablated["module"].keys() & full["module"].keys()) - ignored
    assert (ablated["module"].keys() | full["module"].keys()) - ignored == common
    assert {key: ablated["module"][key] for key in common} == {key: full["module"][key] for key in common}
    assert "official" not in ablated
    assert "official" in full
    assert construction.target(ablated["module"]).official == {}
    assert construction.target(full["module"]).official.keys() == {"ema.average"}


@pytest.mark.parametrize("name", FULL)
def test_only_the_concatenating_correction_stands_on_another_main_module(name):
    before = {argument: one["method"]["name"] for argument, one in stages.predecessors(composed(name)).items()}
    assert before == ({"main": "manigan_concat_main"} if name == "manigan_concat" else {"damsm": "damsm"})


@pytest.mark.parametrize("name", ["manigan_concat_main", "manigan_concat"])
def test_concatenation_loses_nothing_on_its_way(name):
    for module in (on_coco(name)["module"], composed(name, "data.source=toy")["method"]["module"]):
        assert module["shared_width"] == 4 * module["width"], "3 * width of hidden features, and width of the image's"


def test_the_toy_table_runs_every_row_and_trains_no_main_module_twice(home):
    experiment = load("manigan")
    rows = {data: [row for row in experiment.rows if row.data == data] for data in ("cub", "coco")}
    assert [row.method for row in rows["cub"]] == [row.method for row in rows["coco"]]
    words = ["data.toy_images=40", "trainer=cpu"]
    plain = {row.label: lookup.row_config(experiment, row, "manigan", "toy", 0, words) for row in rows["coco"]}
    assert len(plain) == 7
    assert all(each["weights"] == "trained" and "training" in each["method"] for each in plain.values())
    data = assembly.prepared_data(plain["ManiGAN"])
    (main,) = stages.predecessors(plain["ManiGAN"]).values()
    assert stages.stage(plain["ManiGAN w/o DCM"], data).key == stages.stage(main, data).key
