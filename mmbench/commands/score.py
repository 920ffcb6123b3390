"""Scores anybody's images, videos or texts under mmbench's metrics and protocols."""

import re
from collections.abc import Mapping
from pathlib import Path

from mmbench.commands.evaluate import print_scores
from mmbench.core import config
from mmbench.core.results import Result
from mmbench.pipeline.request import Request

FOLDERS = ("fake", "real", "input", "mask")
OWN = (*FOLDERS, "captions", "metrics", "protocol", "extractor", "out", "skip_bad", "size", "workers")
JUDGE = re.compile(r"extractor\.(\w+)\.file=(.*)")

HELP = """usage: mmbench score fake=DIR metrics=A,B [real=DIR|data=NAME] [captions=FILE] [input=DIR] [mask=DIR] [...]

Scores images, videos or texts of any tool: what the metrics judge, or what the protocol's task asks for. Folders may be
zip archives; files belong together by path without extension.
Pictures are turned upright as EXIF says, transparency is left out, of several frames the first is scored, grey of 16
bits is rounded to 8: a note counts the files of each kind.

  fake                generated images or videos (animated PNG, written by mmbench), all of one size; texts: .txt in
                      UTF-8, or one .json {name: text}, .csv or .tsv of name and text
  real                real ones: the reference set of FID and its kin; compared one by one where there is no input
  data=NAME           a data set's test images instead of real= (data.source=toy for toy data)
  input               images that were edited: what diff, L1, PSNR, SSIM and LPIPS compare with
  captions            the prompt of each image or video: .json {name: text}, or .csv / .tsv of name and text;
                      of each text what people wrote: in .json also {name: [text, ...]}
  mask                masks of inpainting, black and white alone, white = hole
  metrics=fid,is      names that `mmbench list group=metric` shows
  protocol=NAME       instead of metrics=: those of a protocol's metrics that the given folders allow
  extractor           standard (default) or toy networks
  extractor.inception.file=PATH   weights of a judge; the record then has the file's SHA-256
  size=N              real, input and mask are resized to N (shorter side, bilinear, anti-aliased; centre crop)
  skip_bad=N          leave out up to N that cannot be scored; the record names them (default 0)
  workers=N           processes that read files (default 0)
  out=FILE.json       the record (default: below results/score)

In Python: from mmbench.metrics import MetricSuite; suite = MetricSuite.named("psnr", "ssim").
"""


def requested(arguments: list[str]) -> Request:
    """What the words ask for.

    Raises:
        ValueError: a word is missing, misspelt, or contradicts another.
    """
    own, rest = config.split_options(arguments, OWN)
    judges = dict(match.groups() for word in rest if (match := JUDGE.fullmatch(word)))
    rest = [word for word in rest if not JUDGE.fullmatch(word)]
    for word in rest:
        if word.startswith("extractor."):
            config.unknown("option of score", word.partition("=")[0], [*OWN, "extractor.inception.file"])
    if "fake" not in own:
        raise ValueError("expected fake=DIR, what is to be scored, found none: see `mmbench score --help`")
    metrics = config.words(own.get("metrics", ""))
    if bool(metrics) == ("protocol" in own):
        raise ValueError("expected metrics=A,B or protocol=NAME, one of them: see `mmbench score --help`")
    for name in metrics:
        if name not in config.names("metric"):
            config.unknown("metric", name, config.names("metric"))
    wants_data = any(word.startswith("data=") for word in rest)
    if wants_data and "real" in own:
        raise ValueError("expected real=DIR or data=NAME, found both: remove one")
    protocol = own.get("protocol", "strict")
    plain = config.composed(["method=identity", f"protocol={protocol}", *rest])
    return Request(
        folders={what: own[what] for what in FOLDERS if what in own},
        metrics=tuple(metrics),
        protocol=own.get("protocol"),
        extractor=own.get("extractor", "standard"),
        judges=judges,
        captions=Path(own["captions"]).expanduser() if "captions" in own else None,
        data=plain["data"]["name"] if wants_data else None,
        size=_whole_number(own, "size", 1) if "size" in own else None,
        skip_bad=_whole_number(own, "skip_bad", 0),
        workers=_whole_number(own, "workers", 0),
        out=own.get("out"),
        plain=plain,
    )


def _whole_number(own: Mapping[str, str], option: str, smallest: int) -> int:
    text = own.get(option, str(smallest))
    if not text.isdecimal() or int(text) < smallest:
        raise ValueError(f"expected {option}=N, a whole number of {smallest} or more, found {text!r}: correct it")
    return int(text)


def report(record: Result, path: Path) -> None:
    """Prints what was found, and where the record lies."""
    print_scores(record.metrics)
    for name, lacking in sorted(record.data["not scored"].items()):
        print(f"{name:<28} not scored (needs {lacking})")
    for name, problem in record.data["skipped"].items():
        print(f"left out: {name} ({problem})")
    for kind, number in record.data["notes"].items():
        print(f"note: {kind}: {number} {'file' if number == 1 else 'files'}")
    print(f"record: {path}")


def main(arguments: list[str]) -> int:
    request = requested(arguments)
    from mmbench.pipeline import by_sample, folders  # networks and metrics take seconds to import

    record, values = folders.score(request)
    place = request.plain["paths"]["results"], request.out
    record = by_sample.keep(record, values, *place)
    report(record, record.write(*place))
    return 0
