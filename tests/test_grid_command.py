"""`mmbench grid`: pictures of one sample are those that `evaluate` makes of it, and mistakes are one line."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmbench.commands import grid as command
from mmbench.core import config
from mmbench.methods.inpainting.tdanet import TDANet
from mmbench.methods.synthesis.controlgan import ControlGAN
from mmbench.networks.damsm import EncodedText
from mmbench.pipeline import pictures
from mmbench.pipeline.generation import generate, prepared
from mmbench.pipeline.grid import Tile, coloured, laid_over, write_tiles
from mmbench.pipeline.pictures import Asked

DATA = ["data=cub", "data.source=toy", "data.toy_images=40", "trainer=cpu"]
HOLES = ["protocol=strict_inpainting_object", "protocol.count=3"]
FILLED = ["method=tdanet", "weights=none", *DATA, *HOLES]
DRAWN = ["method=controlgan", "weights=none", *DATA, "protocol=strict_synthesis", "protocol.count=2"]


@pytest.fixture
def evaluated(tiny):
    """Of a table of three holes with two draws: each sample's image as `evaluate` writes it, and the run."""
    run = prepared(config.composed([*FILLED, "protocol.draws=2"]))
    generate(run)
    return {(sample.id, sample.draw): np.asarray(Image.open(run.file(sample))) for sample in run.samples}, run


def shown(kind, words, place=0, captions=(), draws=16):
    return pictures.KINDS[kind](config.composed(words), Asked(place, captions, draws))


def test_a_picture_after_its_own_caption_is_that_of_the_table_and_others_differ_by_the_caption_alone(evaluated):
    images, run = evaluated
    sample = run.samples[2]
    tiles = shown("captions", FILLED, place=1).tiles
    own, *others = [tile.heading for tile in tiles[3:]]
    assert [tile.heading for tile in tiles[:3]] == ["original", "corrupted", "without text"]
    texts = run.data.texts("test", run.samples, 0)["caption"]
    assert own == texts[2]
    assert len(others) == 2
    assert set(others) <= {*texts} - {own}
    assert np.array_equal(tiles[3].cell, images[sample.id, 0])
    mask = run.items([sample], {"mask"})[0]["mask"][0].numpy() > 0
    original, corrupted = tiles[0].cell, tiles[1].cell
    assert np.unique(corrupted[mask]).tolist() == [128]
    for tile in tiles[1:]:
        assert np.array_equal(tile.cell[~mask], original[~mask]), tile.heading
    again = shown("captions", FILLED, place=1, captions=[others[0], own, others[0]]).tiles[3:]
    assert np.array_equal(again[1].cell, tiles[3].cell), "the noise is the sample's, whatever stands beside it"
    assert np.array_equal(again[0].cell, again[2].cell)
    assert np.array_equal(again[0].cell, tiles[4].cell)


def test_captions_reach_the_method(evaluated, monkeypatch):
    told = []
    monkeypatch.setattr(TDANet, "generate", lambda self, batch, noise: told.append(batch["caption"]) or batch["image"])
    shown("captions", FILLED, captions=["a red bird", "a blue bird"])
    assert told == [["", "a red bird", "a blue bird"]]
    told.clear()
    tiles = shown("captions", [*FILLED, "protocol.caption=none"]).tiles
    assert told[0][0] == ""
    assert "" not in told[0][1:], "what the protocol tells, and that once"
    assert len(tiles) == 2 + len(told[0])


def test_draws_are_those_of_the_table(evaluated):
    images, run = evaluated
    picture = shown("draws", FILLED, draws=3)
    assert [tile.heading for tile in picture.tiles] == ["original", "corrupted", "draw 0", "draw 1", "draw 2"]
    first = run.samples[0].id
    for draw in range(2):
        assert np.array_equal(picture.tiles[2 + draw].cell, images[first, draw])
    assert picture.title == run.data.texts("test", run.samples[:1], 0)["caption"][0]


def test_noise_makes_the_draws_of_a_picture_that_a_caption_alone_asks_for(tiny):
    tiles = shown("draws", DRAWN, draws=2, captions=["a red bird"]).tiles
    assert [tile.heading for tile in tiles] == ["draw 0", "draw 1"], "there is no input to show"
    assert not np.array_equal(tiles[0].cell, tiles[1].cell)
    one, other = (shown("captions", DRAWN, captions=[text]).tiles for text in ("a red bird", "a blue bird with a bill"))
    assert [tile.heading for tile in one] == ["a red bird"], "no hole that could be filled without a text"
    assert np.array_equal(one[0].cell, tiles[0].cell)
    assert not np.array_equal(other[0].cell, tiles[0].cell)


def attention(self, batch):
    """Two words of which the first looks to the left half, and the second half as much to the right; and padding."""
    assert batch["noise"].samples == batch["sample"]
    maps = torch.zeros(1, 3, 2, 2)
    maps[0, 0, :, 0], maps[0, 1, :, 1], maps[0, 2] = 0.5, 0.25, 1.0
    return maps


def test_attention_lies_over_what_is_given_with_one_scale_for_all_words(tiny, monkeypatch):
    monkeypatch.setattr(TDANet, "word_attention", attention)
    picture = shown("attention", FILLED, captions=["red qwxz bird"])
    assert picture.title == "red qwxz bird"
    assert [tile.heading for tile in picture.tiles] == ["original", "corrupted", "tdanet", "red 0.50", "bird 0.25"]
    corrupted = picture.tiles[1].cell
    for tile, weights in zip(picture.tiles[3:], ([[1.0, 0], [1, 0]], [[0, 0.5], [0, 0.5]]), strict=True):
        assert np.array_equal(tile.cell, laid_over(corrupted, np.array(weights))), "padding is no word"


def test_attention_lies_over_what_is_made_where_nothing_is_given(tiny, monkeypatch):
    monkeypatch.setattr(ControlGAN, "word_attention", attention, raising=False)
    monkeypatch.setattr(ControlGAN, "words", lambda self, captions: [text.split() for text in captions], raising=False)
    tiles = shown("attention", DRAWN, captions=["red bird"]).tiles
    assert [tile.heading for tile in tiles] == ["controlgan", "red 0.50", "bird 0.25"]
    assert np.array_equal(tiles[1].cell, laid_over(tiles[0].cell, np.array([[1.0, 0], [1, 0]])))


def test_attention_of_an_untrained_method_is_shown_for_each_known_word(tiny):
    tiles = shown("attention", FILLED).tiles
    words = [tile.heading.rpartition(" ") for tile in tiles[3:]]
    assert all(0 <= float(largest) <= 1 for _, _, largest in words)
    caption = shown("attention", FILLED).title
    assert all(word in caption.lower() for word, _, _ in words)


def test_an_interpolation_begins_and_ends_with_what_is_made_of_its_captions(tiny):
    texts = ["a red bird", "a bird with a long blue bill and black wings"]
    picture = shown("interpolation", DRAWN, captions=texts)
    assert picture.title == "a red bird | a bird with a long blue bill and black wings"
    assert [tile.heading for tile in picture.tiles] == ["0.00", "0.14", "0.29", "0.43", "0.57", "0.71", "0.86", "1.00"]
    cells = [tile.cell.astype(int) for tile in picture.tiles]
    for tile, cell in zip(shown("captions", DRAWN, captions=texts).tiles, (cells[0], cells[-1]), strict=True):
        assert abs(tile.cell - cell).max() <= 1, "but for rounding, in another batch"
    assert all(abs(later - cell).any() for cell, later in pairwise(cells))
    again = shown("interpolation", DRAWN)
    run = prepared(config.composed(DRAWN))
    own, other = run.data.texts("test", run.samples, 0)["caption"]
    assert again.title == f"{own} | {other}", "the sample's own, and one of another image"


def test_words_between_two_texts_are_there_until_the_end_of_their_own():
    rows, mask = torch.randn(4, 3, 5), torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]]).bool()
    text = EncodedText(rows * mask[..., None], mask, torch.randn(4, 5))
    for share, expected in ((0.0, text.words[:2]), (1.0, text.words[2:])):
        found = text.interpolated(torch.full((2,), share))
        assert torch.equal(found.words, expected)
        assert torch.equal(found.word_mask, mask[:2] if share == 0 else mask[2:])
    half = text.interpolated(torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(half.sentence[0], 0.75 * text.sentence[0] + 0.25 * text.sentence[2])
    torch.testing.assert_close(half.words[0, :2], 0.75 * text.words[0, :2] + 0.25 * text.words[2, :2])
    assert torch.equal(half.words[0, 2], text.words[2, 2]), "the shorter text has no counterpart"
    assert torch.equal(half.word_mask, mask[2:])


def test_stages_are_shown_from_small_to_large_after_one_caption(tiny, monkeypatch):
    def stages(self, batch, noise):
        assert batch["caption"] == ["a red bird"]
        assert noise.samples == batch["sample"]
        return [torch.full((1, 3, side, side), level) for side, level in ((8, -1.0), (16, 0.0), (32, 1.0))]

    monkeypatch.setattr(ControlGAN, "generate_stages", stages, raising=False)
    picture = shown("stages", DRAWN, captions=["a red bird"])
    assert picture.title == "a red bird"
    assert [tile.heading for tile in picture.tiles] == ["8 x 8", "16 x 16", "32 x 32"]
    assert [np.unique(tile.cell).tolist() for tile in picture.tiles] == [[0], [128], [255]]


@pytest.mark.parametrize(
    ("method", "names", "sizes"),
    [
        ("manigan_main", ["heads.0", "fusions.0", "heads.1", "fusions.1", "heads.2"], [16, 16, 32, 32, 64]),
        ("manigan", ["fusion", "head"], [64, 64]),
    ],
)
def test_affine_combinations_are_shown_in_a_row_each(tiny, method, names, sizes):
    words = [f"method={method}", "weights=none", *DATA, "protocol=strict_64", "protocol.count=2"]
    picture = shown("combination", words, captions=["a red bird"])
    (given, made, *blank), maps = picture.tiles[:5], picture.tiles[5:]
    assert (picture.title, picture.across) == ("a red bird", 5)
    assert [given.heading, made.heading, *(tile.cell for tile in blank)] == ["input", method, "", "", ""]
    assert np.array_equal(made.cell, shown("captions", words, captions=["a red bird"]).tiles[1].cell)
    rows = [maps[at : at + 5] for at in range(0, len(maps), 5)]
    for name, size, row in zip(names, sizes, rows, strict=True):
        symbols = [f"{name}: {symbol} " for symbol in ("h", "W(v)", "h * W(v)", "b(v)", "h'")]
        assert all(tile.heading.startswith(symbol) for tile, symbol in zip(row, symbols, strict=True))
        assert {tile.cell.shape for tile in row} == {(size, size, 3)}
    run = prepared(config.composed(words))
    batch = pictures.with_noise([run.items(run.samples, {"image", "caption_mismatched"})[0]], 0)
    for one in run.method.eval().combined(batch).values():
        torch.testing.assert_close(one["h * W(v)"] + one["b(v)"], one["h'"])
        assert one["W(v)"].std() > 0


def test_a_map_is_coloured_from_its_smallest_value_to_its_largest():
    dark, light = coloured(np.array([[0.0], [1.0]]))[:, 0].astype(int)
    assert dark.sum() < light.sum()
    assert np.array_equal(coloured(np.array([[-3.0, 5.0, 1.0]])), coloured(np.array([[0.0, 1.0, 0.5]])))
    assert np.array_equal(coloured(np.full((1, 1), 7.0))[0, 0], dark)


def test_a_method_without_affine_combinations_has_none_to_show(tiny):
    with pytest.raises(ValueError, match=r"expected a method with affine combinations .*, found manigan_without_acm "):
        shown("combination", ["method=manigan_without_acm", "weights=none", *DATA, "protocol=strict_64"])


def test_weights_colour_rectangles_from_dark_to_light():
    picture = np.random.default_rng(np.random.SeedSequence().entropy).integers(0, 256, (6, 9, 3), np.uint8)
    found = laid_over(picture, np.array([[0.0, 1.0, 0.0]]))
    assert found.shape == picture.shape
    low, high = laid_over(picture, np.zeros((1, 1))), laid_over(picture, np.ones((2, 2)))
    assert np.array_equal(found[:, 3:6], high[:, 3:6])
    assert np.array_equal(np.delete(found, slice(3, 6), 1), np.delete(low, slice(3, 6), 1))
    assert (high.astype(int).sum(-1) > low.sum(-1)).all()


def test_headings_are_no_formulas_and_rows_are_filled(tmp_path):
    cell = np.zeros((4, 4, 3), np.uint8)
    write_tiles(tmp_path / "one.png", [Tile("costs $\\frac{", cell), Tile("", "no $picture$")], title="$\\x_{")
    write_tiles(tmp_path / "nine.png", [Tile(str(n), cell) for n in range(9)], across=4)
    write_tiles(tmp_path / "four.png", [Tile(str(n), cell) for n in range(4)], across=4)
    sizes = {path.stem: Image.open(path).size for path in tmp_path.iterdir()}
    assert sizes["nine"][0] == sizes["four"][0] == 2 * sizes["one"][0]
    assert sizes["nine"][1] == pytest.approx(3 * sizes["four"][1], abs=3)


@pytest.mark.parametrize("words", [1, 12, 40])
def test_a_long_heading_is_whole(tmp_path, words):
    cell = np.zeros((8, 8, 3), np.uint8)
    write_tiles(tmp_path / "one.png", [Tile("", cell), Tile("MMMMMMM " * words, cell)])
    image = np.asarray(Image.open(tmp_path / "one.png").convert("L"))
    assert (image[:3] == 255).all(), "the first line is cut"
    ink = (image[:, image.shape[1] // 2 :] < 128).any(axis=1).astype(int)
    assert (np.diff(ink) == 1).sum() == -(-words // 2) + 1, "two words a line, and the picture"


def test_the_command_writes_where_it_is_told_and_below_the_runs_else(tiny, capsys):
    assert command.main(["kind=draws", "draws=1", "method=telea", *DATA, *HOLES, "sample=2", "out=made/here.png"]) == 0
    assert Image.open("made/here.png").size[0] > 0
    assert command.main(["kind=captions", *FILLED, "captions=a red bird|a blue bird, small"]) == 0
    assert capsys.readouterr().out == (
        "grid: made/here.png\ngrid: runs/grids/captions-tdanet-cub-toy-0.png\n"
    )  # fmt: skip
    assert not Path("results").exists()


def test_every_kind_that_the_help_names_is_there():
    assert set(command.KINDS) == set(pictures.KINDS)
    assert all(f"  {kind} " in command.HELP for kind in command.KINDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "expected kind=NAME, found none: choose from captions, attention, draws, interpolation, stages"),
        ("kind=captons", "found 'captons': did you mean captions"),
        ("kind=draws draws=0", "expected draws=N, a whole number of 1 or more, found '0'"),
        ("kind=draws sample=-1", "expected sample=N, a whole number of 0 or more, found '-1'"),
        ("kind=captions draws=3", "expected options of kind=captions, found draws: leave it out"),
        ("kind=captions captions=a||b", "expected captions='A|B', texts with a word each, found 'a||b'"),
        ("kind=captions captions=", "expected captions=VALUE"),
        ("kind=captions method=telea out=picture.jpg", "expected out=FILE.png, found picture.jpg"),
        ("kind=captions protocol.metrics.is.splits=1", "that change a picture, found protocol.metrics.is.splits"),
        ("kind=draws protocol.draws=2", "expected options that change a picture, found protocol.draws"),
        ("kind=draws trainer=ddp", "expected options that change a picture, found trainer=ddp"),
        ("kind=draws logger=wandb", "expected options that change a picture, found logger"),
        ("kind=draws", "expected method=NAME"),
        ("kind=draws method=tdanett", "did you mean tdanet"),
        ("kind=attention method=telea", "method with `words` and `word_attention` for kind=attention, found telea"),
        ("kind=combination method=telea", "method with `combined` for kind=combination, found telea: choose another"),
        ("kind=interpolation method=telea", "method with `interpolated` for kind=interpolation, found telea: choose"),
        ("kind=stages method=telea", "method with `generate_stages` for kind=stages, found telea: choose another"),
        ("kind=stages method=dfgan", "method with `generate_stages` for kind=stages, found dfgan: choose another"),
        ("kind=attention method=dfgan", "with `words` and `word_attention` for kind=attention, found dfgan: choose"),
        ("kind=interpolation method=dfgan captions=a", "expected two captions for kind=interpolation, found 1: set"),
        ("kind=interpolation method=dfgan captions=a|b|c", "two captions for kind=interpolation, found 3: set"),
        ("kind=stages method=attngan captions=a|b", "expected one caption for kind=stages, found 2: leave out"),
        ("kind=interpolation draws=3", "expected options of kind=interpolation, found draws: leave it out"),
        ("kind=captions method=projector data=celeba_hq", "expected a method that follows texts for kind=captions"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_anything_is_made(home, words, said):
    with pytest.raises(ValueError, match="expected") as caught:
        command.main([*words.split(), "data.source=toy"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kind=draws", "sample=3"], "expected sample=N from 0 to 2, a place among the samples of protocol strict-inp"),
        (["kind=draws", "captions=a|b"], "expected one caption for kind=draws, found 2"),
        (["kind=attention", "captions=a|b"], "expected one caption for kind=attention, found 2"),
        (["kind=attention", "captions=qwxz"], "expected captions of known words"),
        (["kind=captions", "captions=qwxz"], "expected captions of known words"),
        (["kind=attention", "protocol.caption=none"], "expected a caption of known words for kind=attention, found ''"),
    ],
)  # fmt: skip
def test_what_a_sample_or_a_method_cannot_show_is_one_line(tiny, words, said):
    with pytest.raises(ValueError, match="expected") as caught:
        command.main([*words, *FILLED])
    assert said in " ".join(str(caught.value).split())


@pytest.mark.parametrize("captions", ["a", "a|b|c"])
def test_other_than_two_captions_to_go_between_are_one_line(tiny, captions):
    with pytest.raises(ValueError, match="expected two captions for kind=interpolation, found"):
        command.main(["kind=interpolation", f"captions={captions}", *DRAWN])


def test_a_method_of_one_stage_has_no_stages_to_show(tiny):
    words = ["method=attndcgan", *DRAWN[1:]]
    with pytest.raises(ValueError, match="expected a method of several stages for kind=stages, found attndcgan of one"):
        shown("stages", words)


def test_a_caption_for_a_method_that_follows_none_is_one_line(tiny):
    words = ["kind=draws", "captions=a", "method=projector", "weights=none", "data=celeba_hq", *DATA[1:]]
    with pytest.raises(ValueError, match="expected a method that follows texts with captions="):
        command.main([*words, "protocol=strict_reconstruction"])


def test_a_mistake_in_a_word_is_answered_without_torch(home):
    code = """
import sys
from mmbench.commands import grid
try:
    grid.main(["kind=draws", "method=tdanett"])
except ValueError as error:
    print(error)
assert not {"torch", "matplotlib"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "did you mean tdanet" in done.stdout


def test_a_place_that_cannot_be_written_is_one_line_before_anything_is_made(home):
    Path("taken").write_text("a file")
    with pytest.raises(ValueError, match="expected a folder for out= that can be written, found taken"):
        command.main(["kind=draws", "method=telea", *DATA, *HOLES, "out=taken/picture.png"])
    assert not Path("runs").exists()
