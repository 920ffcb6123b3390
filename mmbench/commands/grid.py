"""Draws what a method makes of one sample."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmbench.core import catalogue, command_line, config
from mmbench.core.files import RUNS, require_assets, require_writable

# What each kind of picture shows, and its own options.
KINDS: Mapping[str, tuple[str, frozenset[str]]] = {
    "captions": ("original, input, and what is made of it after each caption; a hole also without text", frozenset()),
    "attention": ("where the method looks for each known word of the caption", frozenset()),
    "draws": ("several draws of one sample", frozenset({"draws"})),
    "interpolation": ("eight steps from one caption to another, with the same noise", frozenset()),
    "stages": ("what each stage of a stacked method makes, from small to large", frozenset()),
    "combination": ("W(v), h * W(v) and b(v) of affine combinations, as in Figure 4 of ManiGAN", frozenset()),
}
DRAWS = 16  # unless it is said

HELP = """usage: mmbench grid kind=KIND method=NAME [data=NAME] [data.source=toy|real] [protocol=NAME] [key=value ...]

Draws one sample of a protocol as a PNG. Kinds:
{kinds}

  sample=N         its place among the samples of the protocol, from 0 (default 0)
  captions='A|B'   texts in the place of the sample's own; kind=captions takes several, by default the sample's own and
                   those of two other images, kind=interpolation two, by default the sample's own and another image's,
                   the other kinds one
  draws=N          of kind=draws (default {num_draws}); the first is what a table with one draw shows
  out=FILE.png     where it goes (default: below paths.runs, in grids/)
  weights, seed, protocol.KEY, ...   as for `mmbench evaluate`, but for what concerns scores alone

Noise belongs to the sample, so that pictures after several captions differ by these alone. Maps of attention lie over
what the method is given, or else over what it makes. Behind a word stands its largest attention; the colours of all
words have one scale.

  mmbench grid kind=captions method=tdanet data=cub data.source=toy protocol=strict_inpainting_object weights=trained
  mmbench grid kind=attention method=tdanet data.source=toy protocol=strict_inpainting_object captions='a red bird'
""".format(kinds="\n".join(f"  {kind:<15}  {shown}" for kind, (shown, _) in KINDS.items()), num_draws=DRAWS)
# What changes no picture: scores and where they go, the draws that kind=draws counts itself, and several processes.
DEAF = re.compile(
    r"judges|logger(\..+)?|profile|objective|experiment|paths\.results|trainer\.(devices|strategy)"
    r"|protocol\.((metrics|extractors)\..+|reference|reference_classes|draws)"
)


def _require_heard(words: Sequence[str], own: Mapping[str, str]) -> None:
    """Refuses what the picture does not depend on.

    Raises:
        ValueError: names the option.
    """
    kind = own["kind"]
    if others := sorted({option for _, options in KINDS.values() for option in options & own.keys()} - KINDS[kind][1]):
        raise ValueError(f"expected options of kind={kind}, found {others[0]}: leave it out")
    for word in command_line.parse(words):
        key = word.get_key_element().lstrip("+~")
        if DEAF.fullmatch(key) or (key == "trainer" and word.value() == "ddp"):
            found = "trainer=ddp" if key == "trainer" else key
            raise ValueError(f"expected options that change a picture, found {found}: leave it out")


def _captions(own: Mapping[str, str]) -> list[str]:
    """The texts of `captions='A|B'`."""
    texts = [text.strip() for text in own["captions"].split("|")] if "captions" in own else []
    if not all(texts):
        raise ValueError(f"expected captions='A|B', texts with a word each, found {own['captions']!r}: correct it")
    return texts


def main(arguments: list[str]) -> int:
    own, rest = command_line.split_options(arguments, ("kind", "sample", "captions", "draws", "out"))
    command_line.require_said(own)
    if own.get("kind") not in KINDS:
        if "kind" not in own:
            raise ValueError(f"expected kind=NAME, found none: choose from {', '.join(KINDS)}")
        catalogue.unknown("kind of picture", own["kind"], KINDS)
    _require_heard(rest, own)
    place = command_line.whole_number("sample", own.get("sample", "0"), 0)
    num_draws = command_line.whole_number("draws", own.get("draws", str(DRAWS)), 1)
    texts = _captions(own)
    plain = config.composed(rest)
    name = "-".join([own["kind"], plain["method"]["name"], plain["data"]["name"], plain["data"]["source"], str(place)])
    out = Path(own.get("out", Path(plain["paths"]["runs"]) / "grids" / f"{name}.png")).expanduser()
    if out.suffix != ".png":
        raise ValueError(f"expected out=FILE.png, found {out}: pictures are PNG")
    require_writable(plain["paths"]["runs"], RUNS)
    require_writable(out.parent, "out=" if "out" in own else RUNS)
    require_assets(plain["paths"])
    from mmbench.pipeline import pictures  # and torch, which no mistake in a word needs
    from mmbench.pipeline.stages import require_hardware

    require_hardware(plain)
    pictures.write(out, own["kind"], plain, pictures.Asked(place, texts, num_draws))
    print(f"grid: {out}")
    return 0
