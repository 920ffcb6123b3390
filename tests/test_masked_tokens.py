"""MaskGIT: the schedule of its masks, and decoding in a few passes."""

import itertools
import math
import zlib
from functools import partial

import pytest
import torch
from torch import nn

from mmbench.core.noise import Noise, Sample
from mmbench.core.text import Vocabulary
from mmbench.methods.synthesis.masked_tokens import MaskGIT, decoded, left_masked, random_mask
from mmbench.networks.token_transformer import BidirectionalTransformer

NUM_CODES, MASK = 20, 33


def uniform(seed=0, rows=3, length=16):
    """Random numbers by name."""

    def draw(name):
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        return torch.rand(rows, length, generator=generator)

    return draw


def network(seen=None):
    """Logits that depend on place and on all codes; keeps what it is shown."""
    weights = torch.randn(MASK + 1, NUM_CODES, generator=torch.Generator().manual_seed(1))
    places = torch.randn(16, NUM_CODES, generator=torch.Generator().manual_seed(2))

    def logits(codes):
        if seen is not None:
            seen.append(codes)
        return places + weights[codes].mean(dim=1, keepdim=True)

    return logits


def start(rows=3):
    return torch.full((rows, 16), MASK)


def test_as_many_are_left_after_each_step_as_the_cosine_says():
    left = left_masked(256, 8)
    assert left == [math.floor(256 * math.cos(math.pi / 2 * step / 8)) for step in range(1, 8)] + [0]
    assert left_masked(256, 1) == [0]


@pytest.mark.parametrize("num_steps", [1, 2, 5, 12, 16])
def test_each_step_decides_at_least_one_and_the_last_one_the_rest(num_steps):
    left = [16, *left_masked(16, num_steps)]
    assert len(left) == num_steps + 1
    assert left[-1] == 0
    assert all(before > after for before, after in itertools.pairwise(left))


@pytest.mark.parametrize("num_steps", [0, 17])
def test_more_steps_than_codes_are_refused(num_steps):
    with pytest.raises(ValueError, match=f"expected num_steps from 1 to 16, the codes of a map, found {num_steps}:"):
        left_masked(16, num_steps)


def test_every_code_is_decided_once_and_as_many_in_each_step_as_planned():
    seen = []
    codes = decoded(network(seen), start(), 6, 4.5, 1.0, None, uniform())
    shown = [*seen, codes]
    assert [int((one == MASK).sum(dim=1).unique()) for one in shown] == [16, *left_masked(16, 6)]
    for before, after in itertools.pairwise(shown):
        decided = before != MASK
        assert torch.equal(after[decided], before[decided]), "a code that was decided is another"
    assert codes.max() < NUM_CODES


def test_one_step_takes_the_likeliest_of_all_where_only_these_are_drawn():
    codes = decoded(network(), start(), 1, 4.5, 1.0, 1, uniform())
    assert torch.equal(codes, network()(start()).argmax(dim=-1))


def test_without_noise_the_most_probable_stay():
    seen = []
    decoded(network(seen), start(), 4, 0.0, 1.0, 1, uniform())
    surest = network()(start()).softmax(dim=-1).amax(dim=-1)
    stay = seen[1] != MASK
    for row in range(3):
        assert surest[row][stay[row]].min() >= surest[row][~stay[row]].max()


def test_noise_in_the_choice_fades():
    """What stays in the first step is chance where the noise is large; in the last step nothing is chosen."""
    chosen = []
    for seed in range(2):
        seen = []
        decoded(network(seen), start(), 4, 1e6, 1.0, 1, uniform(seed))
        chosen.append(seen[1] != MASK)
    assert not torch.equal(*chosen)
    once, again = (decoded(network(), start(), 1, noise, 1.0, 1, uniform()) for noise in (0.0, 1e6))
    assert torch.equal(once, again)


def test_a_map_does_not_depend_on_its_batch():
    together = decoded(network(), start(), 5, 4.5, 1.0, 8, uniform())
    for row in range(3):
        alone = decoded(network(), start(1), 5, 4.5, 1.0, 8, lambda name, row=row: uniform()(name)[row : row + 1])
        assert torch.equal(alone[0], together[row])


def test_in_training_a_share_by_the_schedule_is_masked_and_at_least_one():
    progress = torch.tensor([0.0, 0.5, 1 - 2**-24])
    mask = random_mask(progress, torch.rand(3, 100, generator=torch.Generator().manual_seed(0)))
    assert mask.sum(dim=1).tolist() == [100, math.ceil(100 * math.cos(math.pi / 4)), 1]


class Stage(nn.Module):
    """A first stage whose codes say whether a square is light."""

    num_codes, factor = 2, 4

    def encode(self, images):
        return (images[:, 0, ::4, ::4] > 0).long()

    def decode(self, codes):
        light = (2.0 * codes - 1).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
        return light[:, None].expand(-1, 3, -1, -1)


def maskgit(**more):
    settings = {
        "vocabulary": Vocabulary.from_captions(["light left", "light right"]),
        "transformer": partial(BidirectionalTransformer, width=16, num_layers=1, num_heads=2),
        "max_words": 2,
        "window": 4,
        "num_steps": 4,
        "choice_temperature": 4.5,
        "temperature": 1.0,
        "top_k": None,
        "label_smoothing": 0.0,
        "text_dropout": 0.0,
        "guidance": 1.0,
        "optimizer": partial(torch.optim.AdamW, lr=0.01),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MaskGIT(Stage(), **{**settings, **more}).eval()


@pytest.mark.parametrize(("steps", "guided"), [(60, {}), (150, {"text_dropout": 0.2, "guidance": 2.0})])
def test_captions_say_what_is_drawn(steps, guided):
    """Pictures that are light on one side: words and places decide every code."""
    image = -torch.ones(2, 3, 16, 16)
    image[0, :, :, :8], image[1, :, :, 8:] = 1, 1
    image, captions = image.repeat(4, 1, 1, 1), ["light left", "light right"] * 4
    method = maskgit(**guided)
    optimizer = method.configure_optimizers()
    for step in range(steps):
        noise = Noise(0, [Sample(f"bird{n}", 0, step) for n in range(8)])
        optimizer.zero_grad()
        sum(method.terms({"image": image, "caption": captions, "noise": noise}).values()).backward()
        optimizer.step()
    made = method.generate({"caption": captions}, Noise(0, [Sample(f"bird{n}", 0, 0) for n in range(8)]))
    assert (made == image).float().mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_steps": 17}, "expected num_steps from 1 to 16, the codes of a map, found 17"),
        ({"guidance": 2.0}, r"expected guidance=1 where text_dropout=0 .*, found 2\.0: train"),
        ({"choice_temperature": -1.0}, "expected choice_temperature from 0, found -1.0"),
        ({"temperature": 0.0}, "expected a temperature above 0, found 0.0"),
        ({"top_k": 3}, "expected top_k from 1 to 2, the number of tokens, found 3"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        maskgit(**settings)


def test_pictures_of_another_size_are_refused():
    noise = Noise(0, [Sample("bird", 0, 0)])
    with pytest.raises(ValueError, match="expected images of 16 x 16 pixels to train a transformer of 4 x 4 codes"):
        maskgit().terms({"image": torch.zeros(1, 3, 20, 20), "caption": ["light left"], "noise": noise})
