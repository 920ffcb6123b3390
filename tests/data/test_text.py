"""Captions as words and characters: each family's tokens, vocabulary and choice of words."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mmbench.core import config
from mmbench.core.cards import Card
from mmbench.core.noise import random_stream
from mmbench.core.text import ALPHABET, END, Vocabulary, captions_hash, characters, repaired, tokenise, treebank_words
from mmbench.pipeline import assembly, training

BROKEN = "this\ufffd\ufffdbird\ufffd\ufffdhas\ufffd\ufffda\ufffd\ufffdbrownish-grey\ufffd\ufffdhead."


def test_a_caption_without_spaces_gets_them_back():
    assert repaired(BROKEN) == "this bird has a brownish-grey head."
    assert repaired("  a bird. ") == "a bird."
    assert tokenise(BROKEN) == tokenise(repaired(BROKEN)) == ["this", "bird", "has", "a", "brownish", "grey", "head"]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A black bil, 3-toed!", ["a", "black", "bil", "3", "toed"]),
        ("the bird's café _", ["the", "bird", "s", "caf", "_"]),
        ("\N{CYRILLIC SMALL LETTER ES} red", ["red"]),  # nothing of the first word is ASCII
        ("...", []),
        ("two\nlines", ["two", "lines"]),
    ],
)
def test_tokens_are_runs_of_word_characters_stripped_to_ascii(caption, words):
    assert tokenise(caption) == words


def test_vocabulary_begins_with_end_and_has_every_word(tmp_path):
    captions = ["a red bird", "a blue bird with a bill"]
    vocabulary = Vocabulary.from_captions(captions)
    assert vocabulary.words == (END, "a", "bill", "bird", "blue", "red", "with")
    assert vocabulary.captions_sha256 == captions_hash(reversed(captions)) != captions_hash(captions[:1])
    vocabulary.write(tmp_path / "words.json")
    assert Vocabulary.read(tmp_path / "words.json") == vocabulary
    assert json.loads((tmp_path / "words.json").read_text())["captions_sha256"] == captions_hash(captions)


def test_unknown_words_are_dropped_and_index_0_is_never_a_word():
    vocabulary = Vocabulary.from_captions(["a red bird"])
    assert vocabulary.encode("a mauve bird, <end>", 18) == [1, 2]
    assert vocabulary.encode("mauve", 18) == []


def test_a_long_caption_keeps_an_ordered_subset_of_positions():
    words = [chr(ord("a") + i) for i in range(26)]
    vocabulary = Vocabulary.from_captions([" ".join(words)])
    long = " ".join(words)
    kept = [vocabulary.encode(long, 18, random_stream(i)) for i in range(200)]
    assert all(len(set(row)) == 18 and row == sorted(row) for row in kept)
    # Every position is kept equally often: 18 of 26 times. 6 standard deviations of a count are about 39.
    counts = [sum(index in row for row in kept) for index in range(1, 27)]
    assert all(abs(count - 200 * 18 / 26) < 40 for count in counts)
    # At evaluation the choice is the caption's own, and no prefix.
    assert vocabulary.encode(long, 18) == vocabulary.encode(long, 18) != list(range(1, 19))
    assert vocabulary.encode(long, 26) == list(range(1, 27))


def test_a_vocabulary_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="begins with <end>"):
        Vocabulary(("a", "b"))
    with pytest.raises(ValueError, match="expected 3 different words, found 2"):
        Vocabulary((END, "a", "a"))
    with pytest.raises(ValueError, match="found none"):
        Vocabulary.read(tmp_path / "absent.json")
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ValueError, match="found another file"):
        Vocabulary.read(tmp_path / "other.json")
    for captions in ([], ["...", ""]):
        with pytest.raises(ValueError, match=r"expected a vocabulary with words, found <end> alone: make it again"):
            Vocabulary.from_captions(captions)
    (tmp_path / "empty.json").write_text(json.dumps({"words": [END], "captions_sha256": captions_hash([])}))
    with pytest.raises(ValueError, match="found <end> alone"):
        Vocabulary.read(tmp_path / "empty.json")


def test_an_embedding_of_another_size_is_refused_with_both_sizes():
    vocabulary = Vocabulary.from_captions(["a red bird"])
    vocabulary.require_rows(4, "text_encoder.pth")
    with pytest.raises(
        ValueError,
        match=r"text_encoder.pth: expected a word embedding of 4 rows, .*, found 5450: use the captions.pickle",
    ) as error:
        vocabulary.require_rows(5450, "text_encoder.pth")
    assert "\n" not in str(error.value)


def test_weights_of_other_words_are_refused_with_both_hashes():
    ours, theirs = ["a red bird"], ["a blue bird", "a fish"]
    vocabulary = Vocabulary.from_captions(ours)
    vocabulary.require_same(Vocabulary.from_captions([*ours, "red, red"]), "vocabulary.json")  # the words are the same
    stored = Vocabulary.from_captions(theirs)
    with pytest.raises(ValueError, match=r"vocabulary\.json: expected 4 words") as error:
        vocabulary.require_same(stored, "vocabulary.json")
    assert captions_hash(ours) in str(error.value)
    assert f"found 5 words, of other captions with sha256 {captions_hash(theirs)}" in str(error.value)
    assert "\n" not in str(error.value)


def test_trained_weights_keep_their_vocabulary_and_are_refused_with_another(tiny, home):
    words = ["method=damsm", "data.source=toy", "data.toy_images=40", "trainer=cpu", "method.training.batch_size=8"]
    plain = config.composed(words)
    data = assembly.prepared_data(plain)
    done = training.trained(plain, data)
    stored = Vocabulary.read(done.folder / "vocabulary.json")
    assert stored == data.vocabulary()
    for weights in ("trained", str(done.weights)):
        method, _ = assembly.built({**plain, "weights": weights}, data)
        assert method.vocabulary == stored
        Vocabulary((*stored.words[:-1], "zebra"), "0" * 64).write(done.folder / "vocabulary.json")
        with pytest.raises(
            ValueError, match=f"vocabulary.json: expected {len(stored)} words.* {stored.captions_sha256}.* {'0' * 64}"
        ):
            assembly.built({**plain, "weights": weights}, data)
        stored.write(done.folder / "vocabulary.json")


def test_a_released_encoder_of_another_vocabulary_is_refused_before_any_shape(conf, home, toy_root, monkeypatch):
    """As where ManiGAN's encoder for COCO is put in the place of the one for birds."""
    words = ["method=damsm", "data=cub", "data.source=toy", "data.toy_images=40", "weights=official"]
    plain = config.composed(words)
    data = assembly.prepared_data(plain)
    method, _ = assembly.built({**plain, "weights": "none"}, data)
    save_file({"encoder.weight": torch.zeros(27297, 64)}, home / "text_encoder.safetensors")
    card = Card("text_encoder.safetensors", None, "none", "none")
    monkeypatch.setattr(assembly, "official_cards", lambda plain: {"vocabulary": card, "text_encoder": card})
    monkeypatch.setattr(assembly, "find", lambda card, assets: home / "text_encoder.safetensors")
    with pytest.raises(
        ValueError, match=rf"text_encoder.safetensors: .* of {len(data.vocabulary())} rows, .*, found 27297: use the"
    ):
        assembly._load_official(method, plain)


def test_duplicate_captions_stay_in_their_places(real_copy, read):
    data = read(real_copy)
    record = data.split("train")[3]
    path = real_copy / "text_c10" / f"{record.id}.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[1], *lines[1:]]) + "\n")
    captions = read(real_copy).split("train")[3].captions
    assert captions == (record.captions[1], *record.captions[1:])
    assert len(captions) == 10
    assert read(real_copy).vocabulary().captions_sha256 != data.vocabulary().captions_sha256


def test_the_alphabet_of_characters_has_70_places_and_the_hyphen_the_later_one():
    assert len(ALPHABET) == 70
    assert len(set(ALPHABET)) == 69
    assert [characters(character)[0] for character in "az09 "] == [1, 26, 27, 36, 70]
    assert characters("-")[0] == ALPHABET.rindex("-") + 1 == 60


def test_characters_are_201_and_unknown_ones_leave_their_place_empty():
    codes = characters("A caf\N{LATIN SMALL LETTER E WITH ACUTE}!")
    assert len(codes) == 201
    # Two bytes of one accented letter.
    assert codes[:8] == [1, 70, 3, 1, 6, 0, 0, ALPHABET.index("!") + 1]
    assert not any(codes[8:])
    assert characters("") == [0] * 201
    assert characters("b" * 500) == [2] * 201
    assert characters("\ufffd") == [0] * 201


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("The bird's yellow-ish bill.", ["the", "bird", "'s", "yellow-ish", "bill", "."]),
        ("it isn't red, it's 3.5 cm.", ["it", "is", "n't", "red", ",", "it", "'s", "3.5", "cm", "."]),
        ("a bird. it is red", ["a", "bird", ".", "it", "is", "red"]),  # two sentences
        ('a "caf\N{LATIN SMALL LETTER E WITH ACUTE}"', ["a", "``", "caf", "''"]),
        (repaired(BROKEN), ["this", "bird", "has", "a", "brownish-grey", "head", "."]),
        (" ", []),
    ],
)
def test_treebank_words_split_clitics_and_punctuation(caption, words):
    """The Treebank's conventions, sentence by sentence."""
    assert treebank_words(caption) == words


def test_the_beginning_of_a_caption_goes_with_its_uncut_number_of_known_words():
    vocabulary = Vocabulary.from_captions(["a red bird"])
    caption = "a brownish-red bird, a red bird. a bird!"
    a, bird, red = 1, 2, 3
    assert vocabulary.encode_beginning(caption, 128) == ([a, bird, a, red, bird, a, bird], 7)
    assert vocabulary.encode_beginning(caption, 3) == ([a, bird, a], 7)
    assert vocabulary.encode_beginning("mauve", 3) == ([], 0)
