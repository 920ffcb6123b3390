"""WordPiece: texts as pieces of words, the way BERT reads them (https://arxiv.org/abs/1810.04805, uncased).

Steps and order are those of https://github.com/google-research/bert/blob/eedf571/tokenization.py.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from mmbench.core.cards import Card, find

START, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
LONGEST = 100  # letters of a word; a longer one is unknown
CHINESE = "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002ebe0\uf900-\ufaff\U0002f800-\U0002fa1f"


class WordPieces:
    """The pieces of words that a text encoder knows; index 0 fills up a text.

    Args:
        card: of the file with one piece a line, by its index.
        assets: the folder that holds `weights/`.

    Raises:
        MissingAsset: the file is not there and could not be fetched.
        ValueError: it lacks a piece that every text needs.
    """

    def __init__(self, card: Card, assets: str | Path) -> None:
        self.path = find(card, assets)
        if absent := [piece for piece in (START, END, UNKNOWN) if piece not in self.index]:
            raise ValueError(
                f"{self.path}: expected pieces of words, one a line, found no {absent[0]}: fetch the file that its "
                "card names"
            )

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Place of each piece; pieces that go on within a word begin with ##."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return {line.strip(): place for place, line in enumerate(lines)}

    def __len__(self) -> int:
        return len(self.index)

    def knows(self, caption: str) -> bool:
        """Whether there is anything of a caption to read; what is unknown is a piece of its own."""
        return bool(words(caption))

    def encode(self, caption: str, max_words: int) -> list[int]:
        """Indices of the pieces of a text between a start and an end: so many at most, the rest is cut off."""
        pieces = [piece for word in words(caption) for piece in self.pieces(word)]
        return [self.index[piece] for piece in (START, *pieces[: max_words - 2], END)]

    def pieces(self, word: str) -> list[str]:
        """The longest known pieces, one behind the other; the unknown one where they do not cover the word."""
        found: list[str] = []
        start = 0
        while start < len(word) <= LONGEST:
            candidates = (("##" if start else "") + word[start:end] for end in range(len(word), start, -1))
            piece = next((piece for piece in candidates if piece in self.index), None)
            if piece is None:
                return [UNKNOWN]
            found.append(piece)
            start += len(piece) - 2 * bool(start)
        return found or [UNKNOWN]


def words(text: str) -> list[str]:
    """Words and signs of a text, in lower case without accents; each Chinese character is a word."""
    kept = "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or (character != "\ufffd" and not unicodedata.category(character).startswith("C"))
    )
    spaced = re.sub(f"([{CHINESE}])", r" \1 ", kept).lower()
    plain = "".join(one for one in unicodedata.normalize("NFD", spaced) if unicodedata.category(one) != "Mn")
    return "".join(f" {one} " if _is_sign(one) else one for one in plain).split()


def _is_sign(character: str) -> bool:
    return unicodedata.category(character).startswith("P") or (character.isascii() and character in "$+<=>^`|~")
