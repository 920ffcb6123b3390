"""What holds of every method, found by its YAML, at the scale `tiny` on toy data; prints the seconds of each."""

import mmbench.core.torchvision_schema  # noqa: F401  (before torchvision)

# isort: split

import copy
import itertools
import math
import random
import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from torch import Tensor, nn

from mmbench.core import catalogue, composition, config, construction
from mmbench.core.ema import EMA
from mmbench.core.frozen import Frozen
from mmbench.core.method import Method
from mmbench.core.noise import Noise
from mmbench.core.task import TEXT_GUIDED_EDITING, Task
from mmbench.core.weights import load_strictly, read_state
from mmbench.data.base import DataModule
from mmbench.data.batches import collate
from mmbench.data.fields import EDITED
from mmbench.layers.spectral_norm import settle
from mmbench.pipeline import assembly, stages, training
from mmbench.pipeline.pictures import Interpolating

TINY = ["scale=tiny", "data.source=toy", "data.toy_images=40", "trainer=cpu", "weights=none"]
# Sums over another batch are cut into other blocks and added up in another order: a hundredth of a level of 255.
ROUNDING = 1e-4
# What no gradient reaches but rounding: a class is one token, and attention to one token is that token, whatever asks.
WITHOUT_GRADIENT = {"LDMClass": re.compile(r"unet\..*\.norm2\.bias")}


@dataclass(frozen=True)
class Subject:
    """A method as it is built, never trained itself, and the data that it sees."""

    plain: dict
    method: Method
    data: DataModule

    def batch(self, count=3):
        """Inputs and target of the first test images, as at evaluation."""
        task = self.method.task
        seen = assembly.prepared_data(self.plain, evaluation=True)
        samples = seen.samples("test")[:count]
        items = seen.evaluation("test", samples, seed=0, fields={*task.inputs, task.target})
        return collate([items[place] for place in range(count)])

    def fitted(self, epochs=1, batch_size=None, kept=None, resumed=None, **hardware):
        """A copy after so many epochs of one batch each, and its trainer; `kept` is a folder for the checkpoint."""
        method = copy.deepcopy(self.method)
        self.data.training_fields = method.trains_on
        self.data.batch_size = batch_size or self.plain["method"]["training"]["batch_size"]
        trainer = stages.trainer_of(
            {**self.plain, "trainer": {**self.plain["trainer"], **hardware}},
            max_epochs=epochs,
            limit_train_batches=1,
            callbacks=[training.SeededSteps(self.plain["seed"]), *([checkpoints(kept)] if kept else [])],
            logger=False,
            enable_checkpointing=bool(kept),
        )
        trainer.fit(method, datamodule=self.data, ckpt_path=resumed, weights_only=True)
        return method, trainer


def checkpoints(folder):
    return ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True)


@cache
def protocols():
    """Task to the first protocol that is for it."""
    described = {name: composition.node(f"protocol/{name}")["task"] for name in reversed(catalogue.names("protocol"))}
    return {task: name for name, task in described.items()}


@cache
def composed(name, *words):
    """A method under a protocol for its task."""
    task = construction.target({"_target_": built_from(name)}).task.name
    assert task in protocols(), f"{name} is for {task}, which no protocol is for"
    return config.composed([f"method={name}", f"protocol={protocols()[task]}", *words])


def lacking(plain):
    """The fields that its task needs at evaluation, or its training reads, and its data set lacks."""
    method, module = construction.target(plain["method"]["module"]), plain["data"]["module"]
    evaluated, trained = (
        construction.construct({**module, **more}).fields for more in (plain["data"]["evaluation"], {})
    )
    return [*method.task.missing(evaluated), *(method.trains_on - trained)]


def subject(name):
    """A method on the data set of a run that names none, or on the first that has what it needs."""
    choices = [[], *([f"data={data}"] for data in catalogue.names("data"))]
    plain = next(plain for words in choices if not lacking(plain := composed(name, *words, *TINY)))
    data = assembly.prepared_data(plain, evaluation="training" not in plain["method"])
    return Subject(plain, assembly.built(plain, data)[0], data)


@cache
def written(name):
    """A method's YAML as it stands: composing all methods to learn a word of each takes seconds."""
    return yaml.safe_load((catalogue.shipped("conf") / f"method/{name}.yaml").read_text(encoding="utf-8"))


def above(name):
    """A method's YAML, and those that it stands on."""
    bases = [entry for entry in written(name).get("defaults", ()) if entry in catalogue.names("method")]
    return [written(name), *(one for entry in bases for one in above(entry))]


def learns(name):
    """Whether a method is trained itself."""
    return any("training" in one for one in above(name))


@cache
def built_from(name):
    """The import path of a method's class."""
    return next(one["module"] for one in above(name) if "_target_" in one.get("module", {}))["_target_"]


@cache
def is_variant(name):
    """Whether it has other numbers alone than a method of a shorter name, of the same class."""
    alike = [other for other in catalogue.names("method") if built_from(other) == built_from(name)]
    return name != min(alike, key=lambda one: (len(one), one))


def each(names=None):
    """Methods as parameters of a test, for CI one of each class, and variants of it in `make test-slow`."""
    names = catalogue.names("method") if names is None else names
    return [pytest.param(name, marks=[pytest.mark.slow] if is_variant(name) else []) for name in names]


def is_stood_on(name):
    """Whether it is a stage of another method."""
    entries = [entry for other in catalogue.names("method") for entry in written(other).get("stages", {}).values()]
    return name in [entry if isinstance(entry, str) else entry["method"] for entry in entries]


def seen(method, batch, seed=0):
    """What a method makes of a batch, as `mmbench evaluate` asks it."""
    method = copy.deepcopy(method).eval()
    with torch.inference_mode(not method.needs_gradients):
        return method.predict_step({**batch, "noise": Noise(seed, batch["sample"])})


def enlivened(method):
    """A copy whose own matrices are orthogonal, so that signals neither fade nor grow and a wrong row is seen.

    Where a network scales its weights itself, they are as large as they start.
    """
    method = copy.deepcopy(method)
    frozen = below(parts_of(method, Frozen), dict(method.named_parameters()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, parameter in method.named_parameters():
            if parameter.dim() > 1 and name not in frozen:
                size = parameter.data.norm()
                nn.init.orthogonal_(parameter.data)
                parameter.data *= max(1, size / parameter.data.norm())
    settle(method)
    return method


def draws_nothing(call):
    """What it returns, whatever state global generators are in, which it leaves as they are."""
    found = []
    for seed in (0, 1):
        for seeding in (torch.manual_seed, np.random.seed, random.seed):
            seeding(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        found.append(call())
        assert torch.equal(before[0], torch.get_rng_state()), "it draws from PyTorch's own generator"
        assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate()), "it draws from a global generator"
    assert not apart(*found), "something but `noise` is random"
    return found[0]


def apart(one, other):
    """How far two outputs lie from each other: at most, of tensors; texts are the same or not."""
    if isinstance(one, Tensor):
        return float((one - other).abs().max())
    return 0.0 if one == other else math.inf


def require_outputs(subject):
    """Kind and range; each row belongs to its sample alone; nothing but `noise` is random; in full precision."""
    method, batch = enlivened(subject.method), subject.batch()
    made = draws_nothing(lambda: seen(method, batch))
    method.task.output.check(made, [sample.name for sample in batch["sample"]])
    if isinstance(made, Tensor):
        target = batch[method.task.target]
        assert (made.shape, made.dtype) == (target.shape, target.dtype), f"not as {method.task.target} is"
        assert made.abs().max() <= 1, "outside [-1, 1]"
    for row in range(len(made)):
        alone = seen(method, {field: column[row : row + 1] for field, column in batch.items()})
        far = apart(alone[0], made[row])
        assert far < ROUNDING, f"row {row} alone is another than in its batch, by {far:.1e}"
    assert any(apart(made[0], other) > 10 * ROUNDING for other in made[1:]), "all samples have one and the same"
    with torch.autocast("cpu", torch.bfloat16):
        assert not apart(seen(method, batch), made), "what is made depends on the precision of training"
    if isinstance(method, Interpolating):
        require_interpolation(method, batch, made)


def require_interpolation(method, batch, made):
    """Between two texts it begins with what is made of the one, and ends with that of the other."""
    prompt, noise = method.task.prompt, Noise(0, batch["sample"])
    others = [*batch[prompt][1:], *batch[prompt][:1]]
    with torch.inference_mode():
        first, middle, last = (
            method.eval().interpolated(batch, others, torch.full((len(made),), share), noise)
            for share in (0.0, 0.5, 1.0)
        )
    assert apart(first, made) < ROUNDING, "an interpolation begins elsewhere than at the first text"
    assert apart(last, seen(method, {**batch, prompt: others})) < ROUNDING, "it ends elsewhere than at the other text"
    assert min(apart(middle, end) for end in (first, last)) > 0, "half way between two texts lies one of them"


def makes_something(subject):
    """Not what encodes for methods that stand on it, and says so."""
    try:
        seen(subject.method, subject.batch(1))
    except ValueError as error:
        if not str(error).startswith("expected a method that makes images, found"):
            raise
        return False
    return True


def state_of(method):
    return {key: tensor.clone() for key, tensor in [*method.named_parameters(), *method.named_buffers()]}


def changed(before, after):
    """The names of what is not the same."""
    return {key for key in before if not torch.equal(before[key], after[key])}


def below(parts, keys):
    return {key for key in keys if any(key.startswith(f"{part}.") for part in parts)}


def parts_of(method, kind):
    return [name for name, module in method.named_modules() if isinstance(module, kind)]


def unit(method, key):
    """The network that a parameter belongs to: a submodule, or one of a list of them."""
    first, second, *_ = [*key.split("."), ""]
    return f"{first}.{second}" if isinstance(getattr(method, first), nn.ModuleList) else first


def require_learning(before, method, trainer):
    """One batch changes every network that the optimisers hold, the average of it, and nothing else."""
    held = {id(p) for one in trainer.optimizers for group in one.param_groups for p in group["params"]}
    parameters = dict(method.named_parameters())
    learned = {key for key, parameter in parameters.items() if id(parameter) in held}
    assert learned, "the optimisers hold nothing"
    moved = changed(before, state_of(method))
    idle = {unit(method, key) for key in learned} - {unit(method, key) for key in moved & learned}
    assert not idle, f"one batch leaves {', '.join(sorted(idle))} as it was"
    frozen = below(parts_of(method, Frozen), moved)
    assert not frozen, f"what is frozen changes: {min(frozen)}"
    open_ = {key for key, parameter in parameters.items() if parameter.requires_grad}
    assert open_ == learned, f"takes gradients or is in an optimiser, not both: {min(open_ ^ learned)}"
    assert all(parameters[key].grad is None for key in parameters.keys() - learned), "gradients of what is held"
    averages = [name for name in parts_of(method, EMA) if not below(parts_of(method, Frozen), [name])]
    others = (moved & parameters.keys()) - learned - below(averages, moved)
    assert not others, f"no optimiser holds {min(others)}, and it changes"
    for name in averages:
        require_following(method, f"{name}.average", moved & parameters.keys())


def require_following(method, average, moved):
    """An average moves where a network of its kind does."""
    kind = type(method.get_submodule(average))
    networks = [
        name for name in parts_of(method, kind) if name != average and not below(parts_of(method, Frozen), [name])
    ]

    def within(part):
        return {key.removeprefix(f"{part}.") for key in below([part], moved)}

    assert any(within(average) == within(name) != set() for name in networks), f"{average} does not follow its network"


def require_same_after_loading(subject, method, folder):
    """What is saved is all that was learned, and nothing of what is frozen."""
    state = method.state_dict()
    assert not below(parts_of(method, Frozen), state), "what is frozen is saved"
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "weights.safetensors")
    loaded = copy.deepcopy(subject.method)
    load_strictly(loaded, read_state(folder / "weights.safetensors"), "weights.safetensors")
    lost = changed(state_of(method), state_of(loaded))
    assert not lost, f"saving and loading loses {min(lost)}"
    if makes_something(subject):
        batch = subject.batch()
        assert not apart(seen(loaded, batch), seen(method, batch)), "saved and loaded it makes something else"


def require_training(subject, folder):
    """All that holds of a method that is trained, by as few steps as show it."""
    before = state_of(subject.method)
    once, trainer = subject.fitted(kept=folder)
    require_learning(before, once, trainer)
    require_same_after_loading(subject, once, folder)

    resumed, _ = subject.fitted(epochs=2, resumed=folder / "last.ckpt")
    twice, after_two = subject.fitted(epochs=2)
    others = changed(state_of(resumed), state_of(twice))
    assert not others, f"resumed, a training ends with another {min(others)}"
    still = learning(twice) - changed(before, state_of(twice))
    if still:  # behind a layer that starts at zero, and that behind another one
        thrice, _ = subject.fitted(epochs=3)
        still -= changed(before, state_of(thrice))
    unreached = WITHOUT_GRADIENT.get(type(subject.method).__name__)
    still = {key for key in still if not (unreached and unreached.fullmatch(key))}
    assert not still, f"three batches leave {min(still)} as it was"

    smallest, _ = subject.fitted(batch_size=subject.method.smallest_batch)
    require_finite(smallest)
    mixed, in_bfloat16 = subject.fitted(precision="bf16-mixed")
    require_finite(mixed)
    expected, found = terms_of(trainer), terms_of(in_bfloat16)
    if found == expected:  # as where the last layer starts at zero, whatever the others compute
        expected, found = terms_of(after_two), terms_of(subject.fitted(epochs=2, precision="bf16-mixed")[1])
    assert found != expected, "nothing is computed in bfloat16"
    assert found == pytest.approx(expected, rel=0.02, abs=0.005), "bfloat16, which rounds to 0.004, loses more"


def terms_of(trainer):
    """What the loss of the last batch consisted of."""
    return {term: float(value) for term, value in trainer.callback_metrics.items()}


def learning(method):
    return {key for key, parameter in method.named_parameters() if parameter.requires_grad}


def require_finite(method):
    for key, parameter in method.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all(), f"{key} is no number"


@pytest.fixture(scope="module", autouse=True)
def place(toy_assets):
    """Folders of this module's runs; what is done once for all methods is done, and not in the time of the first."""
    with pytest.MonkeyPatch.context() as patch, config.remembering():
        patch.setenv("MMBENCH_HOME", str(toy_assets))
        for protocol, data in itertools.product(protocols().values(), catalogue.names("data")):
            lacking(config.composed(["method=identity", f"protocol={protocol}", f"data={data}", "data.source=toy"]))
        subject_of(Plain).fitted(precision="bf16-mixed")
        yield


@pytest.mark.parametrize("name", each())
def test_it_composes_on_every_data_set_with_the_fields_of_its_task(name):
    fitting = []
    for data in catalogue.names("data"):
        for source in ("toy", "real"):
            plain = composed(name, f"data={data}", f"data.source={source}")
            assert plain["method"]["name"] == name
            assert plain["method"]["module"]["_target_"].startswith("mmbench.methods.")
            assert ("training" in plain["method"]) == learns(name)
            if not lacking(plain):
                fitting.append((data, source))
    drawn = set(construction.target(plain["method"]["module"]).task.inputs) & set(EDITED)  # which photographs cannot be
    assert {source for _, source in fitting} == ({"toy"} if drawn else {"toy", "real"})


@pytest.mark.parametrize("name", each())
def test_what_it_makes_is_of_its_samples(name):
    of_it = subject(name)
    if makes_something(of_it):
        require_outputs(of_it)
    else:
        assert is_stood_on(name), f"{name} makes nothing, and no method stands on it"


@pytest.mark.parametrize("name", each(filter(learns, catalogue.names("method"))))
def test_it_learns_what_its_optimisers_hold_and_goes_on_where_it_stopped(name, tmp_path):
    require_training(subject(name), tmp_path)


class Plain(Method):
    """A learner of Lightning's own kind, neither `Adversarial` nor `Learner`."""

    task = TEXT_GUIDED_EDITING
    trains_on = frozenset({"image"})

    def __init__(self):
        super().__init__()
        self.network = nn.Conv2d(3, 3, 3, padding=1)
        self.judge = Frozen(nn.Conv2d(3, 3, 1))
        self.ema = EMA(self.network, decay=0.9)

    def loss(self, batch):
        return self.judge(self.network(batch["image"]) - batch["image"]).square().mean()

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_batch_end(self, *step):
        self.ema.update(self.network)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters_to_learn(), lr=0.01)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)}

    def parameters_to_learn(self):
        return self.network.parameters()

    def generate(self, batch, noise):
        return (self.ema(batch["image"]) + noise.normal("eps", 3, 1, 1)).tanh()


class Describes(Plain):
    """Makes texts."""

    task = Task("captioning", ("image",), None, "caption")

    def generate(self, batch, noise):
        return [f"a picture of {int(value)}" for value in 1000 * super().generate(batch, noise).mean(dim=(1, 2, 3))]


class LeavesAnAverage(Plain):
    def on_train_batch_end(self, *step):
        pass


class TrainsWhatIsFrozen(Plain):
    def parameters_to_learn(self):
        return self.requires_grad_().parameters()


class LeavesOutANetwork(Plain):
    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(3, 3, 1)


class HoldsWhatItDoesNotUse(LeavesOutANetwork):
    def parameters_to_learn(self):
        return [*self.network.parameters(), *self.other.parameters()]


class ForgetsAtAStop(Plain):
    steps = 0

    def loss(self, batch):
        self.steps += 1
        return super().loss(batch) + self.steps * self.network.weight.square().sum()


class NeedsPairs(Plain):
    def loss(self, batch):
        return super().loss(batch) / (len(batch["image"]) - 1)


class SavesTooLittle(Plain):
    def on_train_batch_end(self, *step):
        super().on_train_batch_end(*step)
        self.scale = 0.5

    def generate(self, batch, noise):
        return getattr(self, "scale", 1.0) * super().generate(batch, noise)


class DrawsItself(Plain):
    def generate(self, batch, noise):
        return super().generate(batch, noise) + torch.randn(1)


class MixesRows(Plain):
    def generate(self, batch, noise):
        image = super().generate(batch, noise)
        return (image - image.mean(dim=0)) / 2


class Enlarges(Plain):
    def generate(self, batch, noise):
        return super().generate(batch, noise).repeat(1, 1, 2, 2)


class GoesPastTheOtherText(Plain):
    def interpolated(self, batch, others, share, noise):
        return self.generate(batch, noise) + 0.1 * share[:, None, None, None]


class StaysAtTheFirstText(Plain):
    def interpolated(self, batch, others, share, noise):
        return self.generate(batch, noise)


def subject_of(method):
    """A method of this module on toy birds."""
    plain = composed("identity", *TINY, "+method.training.batch_size=4")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Subject(plain, method(), assembly.prepared_data(plain))


def require_all(subject, folder):
    require_outputs(subject)
    require_training(subject, folder)


@pytest.mark.parametrize("method", [Plain, Describes])
def test_a_learner_that_is_of_no_base_of_ours_keeps_the_contract(tmp_path, method):
    require_all(subject_of(method), tmp_path)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (LeavesAnAverage, "ema.average does not follow its network"),
        (TrainsWhatIsFrozen, "what is frozen changes: judge.network"),
        (LeavesOutANetwork, "takes gradients or is in an optimiser, not both: other.bias"),
        (HoldsWhatItDoesNotUse, "one batch leaves other as it was"),
        (ForgetsAtAStop, "resumed, a training ends with another ema.average"),
        (NeedsPairs, "network.weight is no number"),
        (SavesTooLittle, "saved and loaded it makes something else"),
        (DrawsItself, "it draws from PyTorch's own generator"),
        (MixesRows, "row 0 alone is another than in its batch"),
        (Enlarges, "not as image_mismatched is"),
        (GoesPastTheOtherText, "it ends elsewhere than at the other text"),
        (StaysAtTheFirstText, "half way between two texts lies one of them"),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_what_breaks_the_contract_is_named(tmp_path, method, message):
    broken = subject_of(method)
    with pytest.raises(AssertionError, match=message):
        require_all(broken, tmp_path)
