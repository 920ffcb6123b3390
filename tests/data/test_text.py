"""Captions as words: the AttnGAN family's tokens, vocabulary and choice of words."""

import json

import pytest

from mmbench.core.noise import random_stream
from mmbench.core.text import END, Vocabulary, captions_hash, repaired, tokenise

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
