"""What is optimised for an input is kept: once for all draws, whatever is beside it, and after a stop."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mmbench.core import config
from mmbench.core.noise import Noise, Sample
from mmbench.core.task import RECONSTRUCTION
from mmbench.core.tuned import Tuned, rows_of
from mmbench.pipeline import evaluation, generation

SIDE = 4


class Colour(Tuned):
    """Finds the mean colour of an image by descent, from a random one; each draw shows it at another brightness."""

    task = RECONSTRUCTION

    def __init__(self, together=None):
        super().__init__()
        self.largest_batch = together
        self.groups = []

    def tune(self, inputs, noise):
        assert torch.is_grad_enabled()
        self.groups.append(inputs["id"])
        colour = noise.normal("start", 3).requires_grad_()
        for _ in range(50):
            loss = (inputs["image"] - colour[:, :, None, None]).square().mean(dim=(1, 2, 3)).sum()
            (gradient,) = torch.autograd.grad(loss, colour)
            colour = (colour - gradient).detach().requires_grad_()
        return [{"colour": row.detach()} for row in colour]

    def draw(self, batch, tuned, noise):
        colour = torch.stack([state["colour"] for state in tuned])[:, :, None, None]
        return (colour * noise.uniform("brightness", 1, 1, 1)).expand_as(batch["image"])


class OneForAll(Colour):
    def tuned_by(self, sample):
        return "everything"


def batch_of(*samples):
    samples = [Sample(*sample) for sample in samples]
    image = torch.stack([Noise(1, [Sample(one.id, 0, 0)]).normal("image", 3, SIDE, SIDE)[0] for one in samples])
    return {"id": [one.id for one in samples], "sample": samples, "image": image, "noise": Noise(0, samples)}


def made(method, *samples):
    return method.predict_step(batch_of(*samples))


DRAWS = [("b", 0, 0), ("a", 0, 0), ("b", 0, 1), ("a", 3, 1)]


@pytest.mark.parametrize("kept", [False, True])
def test_draws_of_an_input_share_what_was_tuned_for_it(tmp_path, kept):
    method = Colour()
    method.kept = tmp_path / "tuned" if kept else None
    first = made(method, *DRAWS)
    assert method.groups == [["a", "b"]]
    assert not torch.equal(first[0], first[2]), "the draws are not the same"
    again = Colour()
    again.kept = method.kept
    assert torch.equal(made(again, *DRAWS, ("a", 0, 7))[:4], first)
    assert again.groups == ([] if kept else [["a", "b"]])


def test_a_row_alone_is_that_of_its_batch_and_so_are_groups():
    together = made(Colour(), *DRAWS)
    one_by_one = Colour(together=1)
    assert torch.allclose(made(one_by_one, *DRAWS), together, atol=1e-6)
    assert one_by_one.groups == [["a"], ["b"]]
    for row, sample in enumerate(DRAWS):
        assert torch.allclose(made(Colour(), sample)[0], together[row], atol=1e-6)
    method = Colour(together=2)
    made(method, *[(name, 0, 0) for name in "edcab"])
    assert method.groups == [["a", "b"], ["c", "d"], ["e"]]


def test_one_state_may_serve_all_inputs(tmp_path):
    method = OneForAll()
    method.kept = tmp_path
    made(method, *DRAWS)
    made(method, ("z", 0, 0))
    assert method.groups == [["b"]]
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_runs_that_want_the_same_input_at_once_tune_it_once(tmp_path):
    methods = [Colour(), Colour()]
    for method in methods:
        method.kept = tmp_path
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda method: made(method, *DRAWS), methods)
    assert torch.equal(one, other)
    assert [*methods[0].groups, *methods[1].groups] == [["a", "b"]]
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


def test_progress_is_shown_over_inputs(capsys):
    made(Colour(together=1), *DRAWS)
    assert capsys.readouterr().err.startswith("tuning: 2 of 2 in ")


def test_rows_of_a_batch_leave_out_its_noise():
    rows = rows_of(batch_of(*DRAWS), [2, 0])
    assert rows["id"] == ["b", "b"]
    assert rows["image"].shape == (2, 3, SIDE, SIDE)
    assert "noise" not in rows


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def anothers(path):
    method = Colour()
    method.kept = path.parent
    made(method, ("b", 0, 0))
    (other,) = set(path.parent.glob("*.safetensors")) - {path}
    other.replace(path)


@pytest.mark.parametrize("damage", [cut, flipped, anothers, lambda path: path.write_bytes(b"")])
def test_a_damaged_state_is_one_line_that_names_the_file(tmp_path, damage):
    method = Colour()
    method.kept = tmp_path
    made(method, ("a", 0, 0))
    (path,) = tmp_path.glob("*.safetensors")
    damage(path)
    with pytest.raises(ValueError, match=rf"{path.name}: expected what was tuned for a, found a damaged file: .*") as e:
        made(method, ("a", 0, 0))
    assert "\n" not in str(e.value)
    path.unlink()
    made(method, ("a", 0, 0))
    assert len(method.groups) == 2


@pytest.fixture
def colour(tiny):
    (tiny.folder / "method/colour.yaml").write_text(
        "# Mean colours\nname: colour\nmodule: {_target_: test_tuned.Colour}\n"
    )
    return ["method=colour", "protocol=strict_reconstruction", "data.source=toy", "data.toy_images=40", "trainer=cpu"]


def test_another_draw_of_a_run_tunes_nothing_again_and_another_seed_does(colour, home, monkeypatch):
    tuned = []
    tune = Colour.tune
    monkeypatch.setattr(Colour, "tune", lambda *given: (tuned.extend(given[1]["id"]), tune(*given))[1])
    words = [*colour, "protocol.count=4", "data.module.batch_size=3"]
    _, run = evaluation.evaluate(config.composed(words))
    assert len(tuned) == len(set(tuned)) == 4
    assert run.method.kept.parent == run.folder.parent / "tuned"
    more = generation.prepared(config.composed([*words, "protocol.draws=3"]))
    assert more.folder != run.folder
    generation.generate(more)
    assert len(tuned) == 4
    generation.generate(generation.prepared(config.composed([*words, "seed=1"])))
    generation.generate(generation.prepared(config.composed([*words, "data.module.image_size=32"])))
    assert len(tuned) == 12
