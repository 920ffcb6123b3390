"""Word vectors: both published formats, their damages, and captions as sequences."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmbench.core.cards import Card, MissingAsset
from mmbench.core.fasttext import (
    FastText,
    SeededVectors,
    WordEmbedding,
    fnv1a,
    is_model,
    letter_runs,
    read_model_vectors,
    read_text_vectors,
)
from mmbench.core.text import Vocabulary

# Written by fastText 0.9.2: two models of 18 words, and what its own `get_word_vector` says of some words.
MODELS = Path(__file__).parent / "fixtures" / "fasttext"
SAID = json.loads((MODELS / "vectors.json").read_text(encoding="utf-8"))

# As fastText writes it: a space after the last number, a word that is a no-break space, a word twice.
PUBLISHED = "4 3\nred 0.5 -1 2e-05 \n\u00a0 1 2 3 \nbird -0.25 0.125 4 \nred 9 9 9 \n"


@pytest.fixture
def vec(tmp_path):
    """Writes a file of vectors where cards look for it and returns its path."""

    def write(text=PUBLISHED):
        path = tmp_path / "weights" / "words.vec"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
        return path

    return write


def fasttext(tmp_path, dim=3):
    return FastText(Card("words.vec", None, "ask the authors", "none"), tmp_path, dim)


def test_the_wanted_words_have_the_numbers_of_their_lines(vec):
    found = read_text_vectors(vec(), {"bird", "red", "unheard"}, 3)
    assert list(found) == ["red", "bird"]
    np.testing.assert_array_equal(found["red"], np.array([0.5, -1, 2e-5], np.float32))
    np.testing.assert_array_equal(found["bird"], np.array([-0.25, 0.125, 4], np.float32))
    assert found["red"].dtype == np.float32


def test_a_word_that_is_a_space_of_another_alphabet_is_a_word(vec):
    np.testing.assert_array_equal(read_text_vectors(vec(), {"\u00a0"}, 3)["\u00a0"], [1, 2, 3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected a first line of the number of words and their dimension, found b''"),
        ("red 1 2 3\n", r"expected a first line of the number of words"),
        ("4 5\nred 1 2 3 4 5\n", r"expected vectors of 3 numbers, found 5"),
        ("4 3\nred 1 2 3\n", r"expected 4 words, as its first line says, found 1"),
        ("1 3\nred 1 2\n", r"line 2: expected a word and 3 finite numbers, found 2"),
        ("1 3\nred 1 2 3 4\n", r"line 2: expected a word and 3 finite numbers, found 4"),
        ("1 3\nred 1 2 x\n", r"line 2: expected a word and 3 numbers, found b'1 2 x"),
        ("1 3\nred 1 2 nan\n", r"line 2: expected a word and 3 finite numbers"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(vec, text, message):
    path = vec(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_text_vectors(path, {"red"}, 3)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_binary_file_is_no_text_file(vec):
    path = vec()
    path.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(ValueError, match="expected a first line"):
        read_text_vectors(path, {"red"}, 3)


def test_a_missing_file_says_where_it_belongs(tmp_path):
    with pytest.raises(MissingAsset, match=r"words\.vec"):
        fasttext(tmp_path).of(["red"])


def test_vectors_of_another_language_are_refused(vec, tmp_path):
    vec()
    with pytest.raises(ValueError, match="expected vectors of 2 words of the captions, found none"):
        fasttext(tmp_path).of(["rouge", "oiseau"])


def test_captions_are_sequences_of_their_words_vectors(vec, tmp_path):
    vec()
    words = WordEmbedding(Vocabulary.from_captions(["a red bird", "unheard"]), fasttext(tmp_path))
    vectors, lengths = words(["A Red, red bird!", "this is a bird"])
    assert lengths.tolist() == [3, 1]
    red, bird = [0.5, -1, 2e-5], [-0.25, 0.125, 4]
    torch.testing.assert_close(vectors, torch.tensor([[red, red, bird], [bird, [0] * 3, [0] * 3]]))


@pytest.mark.parametrize("caption", ["", "unheard words", "?!"])
def test_a_caption_without_known_words_is_refused(caption):
    words = WordEmbedding(Vocabulary.from_captions(["a red bird"]), SeededVectors(4))
    with pytest.raises(ValueError, match="found none in caption 1 of the batch"):
        words(["a red bird", caption])


def test_seeded_vectors_belong_to_the_word():
    one, other = SeededVectors(8).of(["red", "bird"]), SeededVectors(8).of(["bird"])
    np.testing.assert_array_equal(one["bird"], other["bird"])
    assert not np.allclose(one["bird"], one["red"])


def test_vectors_are_neither_trained_nor_saved():
    words = WordEmbedding(Vocabulary.from_captions(["a red bird"]), SeededVectors(4))
    assert not list(words.parameters())
    assert not words.state_dict()


def test_a_model_gives_fasttexts_own_vectors_also_of_words_it_does_not_list():
    said = SAID["subwords"]
    found = read_model_vectors(MODELS / "subwords.bin", set(said), 3)
    assert found.keys() == said.keys()
    for word, vector in said.items():
        np.testing.assert_allclose(found[word], vector, rtol=1e-6, atol=1e-7, err_msg=word)


def test_a_model_without_runs_of_letters_has_none_of_unlisted_words():
    said = SAID["words"]
    listed = {word for word, vector in said.items() if any(vector)}
    found = read_model_vectors(MODELS / "words.bin", set(said), 3)
    assert found.keys() == listed
    assert {"reddish", "x"}.isdisjoint(listed)
    for word in listed:
        np.testing.assert_allclose(found[word], said[word], rtol=1e-6)


def test_runs_are_of_letters_not_bytes():
    assert letter_runs("n\u00e4", 2, 3) == [
        b"<n",
        "n\u00e4".encode(),
        "\u00e4>".encode(),
        "<n\u00e4".encode(),
        "n\u00e4>".encode(),
    ]
    assert letter_runs("a", 1, 1) == [b"a"]
    assert letter_runs("bird", 0, 0) == []


def test_the_hash_is_fnv1a():
    assert fnv1a(b"") == 0x811C9DC5
    assert fnv1a(b"a") == 0xE40C292C
    assert fnv1a(b"foobar") == 0xBF9CF968


def test_formats_are_told_apart(vec, tmp_path):
    assert is_model(MODELS / "words.bin")
    assert not is_model(vec())
    vec().write_bytes((MODELS / "subwords.bin").read_bytes())
    assert fasttext(tmp_path).of(["reddish"]).keys() == {"reddish"}


@pytest.mark.parametrize("length", [4, 60, 100, 300, 420, 700])
def test_a_model_that_ends_early_is_refused(tmp_path, length):
    path = tmp_path / "short.bin"
    path.write_bytes((MODELS / "subwords.bin").read_bytes()[:length])
    with pytest.raises(ValueError, match=r"short\.bin: expected a whole model, found one that ends early: fetch"):
        read_model_vectors(path, {"red"}, 3)


def test_a_model_of_another_dimension_or_version_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected vectors of 300 numbers, found 3"):
        read_model_vectors(MODELS / "words.bin", {"red"}, 300)
    content = bytearray((MODELS / "words.bin").read_bytes())
    content[4] = 13
    (tmp_path / "new.bin").write_bytes(content)
    with pytest.raises(ValueError, match="expected a whole model of version 11 or 12, found version 13"):
        read_model_vectors(tmp_path / "new.bin", {"red"}, 3)
