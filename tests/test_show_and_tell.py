"""Show and Tell: what its captions depend on, what its search finds, what it learns, and bad input."""

import itertools
import math
from functools import partial

import pytest
import torch
import torch.multiprocessing
from torch import nn

from mmbench.core.frozen import Frozen
from mmbench.core.noise import Noise, Sample
from mmbench.core.text import Vocabulary
from mmbench.methods.captioning.show_and_tell import Decoder, MaxoutLSTM, ShowAndTell, beam_search, decayed, lstm

CAPTIONS = ["a red car on the grass", "two blue boats", "a kite"]


class Trunk(nn.Module):
    """Mean colours of the four quarters as features."""

    global_channels = 12

    def forward(self, image):
        regions = nn.functional.adaptive_avg_pool2d(image, 2)
        return regions, regions.flatten(1)


def method(cell=lstm, **changes):
    torch.manual_seed(0)
    sizes = {"embedding_dim": 8, "hidden_dim": 16, "dropout": 0.0, "max_words": 5, "longest": 6}
    search = {"beam_size": 3, "by_length": False, "repeats": True}
    trained = {"largest_gradient": 0.1, "optimizer": partial(torch.optim.Adam, lr=0.02)}
    vocabulary = Vocabulary.from_captions(CAPTIONS)
    return ShowAndTell(vocabulary, Frozen(Trunk()), cell=cell, **{**sizes, **search, **trained, **changes})


def batch(captions=CAPTIONS):
    images = torch.rand(len(captions), 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    samples = [Sample(f"scene {n}", 0, 0) for n in range(len(captions))]
    return {"image": images, "captions": [[text] for text in captions], "sample": samples, "noise": Noise(0, samples)}


def fit(made, full, steps):
    """The loss before each step."""
    optimizer, found = made.configure_optimizers(), []
    for _ in range(steps):
        loss = sum(made.terms(full).values())
        optimizer.zero_grad()
        loss.backward()
        made.on_before_optimizer_step(optimizer)
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def told(made, full):
    with torch.no_grad():
        return made.eval().generate(full, full["noise"])


@pytest.mark.parametrize("cell", [lstm, MaxoutLSTM])
def test_it_learns_to_say_what_it_was_told_of_each_image(cell):
    made, full = method(cell), batch()
    losses = fit(made, full, 150)
    assert losses[-1] < 0.1 < losses[0]
    assert told(made, full) == ["a red car on the", *CAPTIONS[1:]]  # cut off after five words


@pytest.mark.parametrize("cell", [lstm, MaxoutLSTM])
def test_a_caption_does_not_depend_on_its_batch(cell):
    made, full = method(cell), batch()
    fit(made, full, 20)
    together = told(made, full)
    assert together == [told(made, {**full, "image": full["image"][n : n + 1]})[0] for n in range(3)]


def test_before_it_has_learned_each_word_is_as_likely_as_any_other():
    made = method()
    nn.init.zeros_(made.decoder.logits.weight)
    (loss,) = made.terms(batch()).values()
    assert loss.item() == pytest.approx(math.log(len(made.vocabulary) + 1), rel=1e-6)


def test_the_loss_is_the_mean_over_words_and_ends_whatever_the_padding():
    made, full = method().eval(), batch()
    alone = [made.terms({"image": full["image"][n : n + 1], "captions": [[CAPTIONS[n]]]})["L"] for n in range(3)]
    words = torch.tensor([6.0, 4.0, 3.0])  # five at most, and the end
    assert made.terms(full)["L"].item() == pytest.approx((torch.stack(alone) * words).sum().item() / 13, rel=1e-5)


def test_all_captions_of_an_image_are_told_of_it():
    made, full = method().eval(), batch()
    together = {"image": full["image"][:2], "captions": [CAPTIONS[:1], CAPTIONS[1:]]}
    apart = {"image": full["image"][[0, 1, 1]], "captions": full["captions"]}
    assert made.terms(together)["L"].item() == pytest.approx(made.terms(apart)["L"].item(), rel=1e-6)


def gradients(rows):
    """Of all numbers that are learned, by a share of four images, averaged over processes as DDP does."""
    made, full = method().eval(), batch([*CAPTIONS, "a"])
    share = {"image": full["image"][rows], "captions": [full["captions"][row] for row in rows]}
    made.terms(share)["L"].backward()
    found = torch.cat([parameter.grad.flatten() for parameter in made.decoder.parameters()])
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(found)
        found /= torch.distributed.get_world_size()
    return found


def one_process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(gradients([[0, 1], [2, 3]][rank]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore:.*fork")
def test_two_processes_learn_from_words_as_one_does(tmp_path):
    torch.multiprocessing.start_processes(one_process, (tmp_path,), 2, start_method="fork")
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, gradients([0, 1, 2, 3]), atol=1e-6, rtol=1e-4)


def test_a_word_that_is_not_in_the_vocabulary_is_the_unknown_one_and_is_never_said():
    made, full = method(), batch(["a zeppelin", "a zeppelin", "a zeppelin"])
    tokens, lengths = made.encode(full["captions"][0])
    a = made.vocabulary.index["a"]
    assert tokens.tolist() == [[0, a, made.unknown, 0]]
    assert lengths.tolist() == [3]
    fit(made, full, 60)
    assert all("a" in text.split() for text in told(made, full))
    assert {word for text in told(made, full) for word in text.split()} <= set(made.vocabulary.words)


@pytest.mark.parametrize("caption", ["", "  ", "?!", "zeppelin"])
def test_a_caption_without_a_known_word_is_refused_in_one_line(caption):
    with pytest.raises(ValueError, match=r"^expected captions of known words, found none in '.*': reword it$"):
        method().terms(batch(["a kite", caption]))


def test_it_says_a_word_even_where_an_end_is_likeliest():
    made, full = method(), batch()
    with torch.no_grad():
        made.decoder.logits.bias[0] = 20
    assert all(len(text.split()) == 1 for text in told(made, full))


def decoder(num_words=4):
    torch.manual_seed(2)
    network = Decoder(num_words, 3, 4, 5, MaxoutLSTM, dropout=0.5).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


def every_caption(network, features, longest):
    """All captions of up to `longest` words with their log-probability, those that end and those that are cut off."""
    found = {}
    for length in range(1, longest + 1):
        for words in itertools.product(range(network.embedding.num_embeddings), repeat=length):
            if 0 not in words[:-1] and (words[-1] == 0 or length == longest):
                rows = network(features, torch.tensor([[0, *words[:-1]]]))[0]
                found[words] = float(rows[range(length), list(words)].sum())
    return found


@torch.no_grad()
def test_a_beam_that_holds_everything_finds_the_likeliest_caption_of_all():
    network, features = decoder(), torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
    everything = every_caption(network, features, 4)
    assert sum(map(math.exp, everything.values())) == pytest.approx(1, rel=1e-5)
    best = sorted(everything.items(), key=lambda one: -one[1])[:3]
    found = beam_search(network, features, 300, 4)
    for (words, score), said, value in zip(best, found.words[0].tolist(), found.scores[0].tolist(), strict=False):
        assert tuple(said[: len(words)]) == words
        assert said[len(words) :] == [0] * (4 - len(words))
        assert value == pytest.approx(score, abs=1e-5)


@torch.no_grad()
def test_a_search_obeys_its_settings():
    network, features = decoder(6), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    found = beam_search(network, features, 2, 7, least_words=3, barred=(4,), repeats=False).words
    assert found.shape == (5, 2, 7)
    assert (found[..., :3] != 0).all()
    assert (found != 4).all()
    assert not ((found[..., 1:] == found[..., :-1]) & (found[..., 1:] != 0)).any()
    greedy = beam_search(network, features, 1, 7).words[:, 0]
    words = torch.zeros(5, 1, dtype=torch.int64)
    for _ in range(7):
        following = network(features, words)[:, -1].argmax(dim=1)
        words = torch.cat((words, (following * ((words[:, 1:] != 0).all(dim=1)))[:, None]), dim=1)
    assert torch.equal(greedy, words[:, 1:])


def test_the_learning_rate_falls_by_steps():
    schedule = decayed(0.8, 15)
    assert [schedule(0.5, epoch) for epoch in (0, 14, 15, 30)] == pytest.approx([0.5, 0.5, 0.4, 0.32])
