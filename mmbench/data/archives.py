"""The archives that data sets are published as: where they are, how to know them, and how they become folders."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A file that a data set is published as.

    Attributes:
        file: its name, at its origin's mirror and in the data set's folder `archives`.
        origin: URL, or `gdrive:<id>`, or `gdrive:<id>?resourcekey=<key>` for old ids.
        size: bytes; None where nobody states them.
        md5, sha256: hexadecimal digests; None where nobody has published one.
        terms: of use, in a few words.
        contents: what lies below the data set's folder when it is unpacked, relative paths.
        folder: where it is unpacked, below the data set's folder. An archive that is none (`.mat`, `.pickle`, `.txt`)
            is copied there.
        inner: archives inside it that are to be unpacked too, relative to `folder`, each beside itself.
        optional: whether the data set is of use without it.
    """

    file: str
    origin: str
    size: int | None
    md5: str | None
    terms: str
    contents: tuple[str, ...]
    sha256: str | None = None
    folder: str = "."
    inner: tuple[str, ...] = ()
    optional: bool = False

    def described(self) -> str:
        """The archive in words: name, size, sum, origin."""
        size = f"{self.size:,} bytes" if self.size else "size unpublished"
        digest = f"sha256 {self.sha256}" if self.sha256 else f"md5 {self.md5}" if self.md5 else "sum unpublished"
        return f"{self.file} ({size}, {digest}) from {self.origin}"
