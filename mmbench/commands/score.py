"""Scores anybody's images, videos or texts under mmbench's metrics and protocols."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from mmbench.commands.evaluate import print_scores
from mmbench.core import catalogue, checking, command_line, composition, config
from mmbench.core.files import RESULTS, require_assets, require_writable
from mmbench.core.results import Result
from mmbench.pipeline.request import Request

FOLDERS = ("fake", "real", "input", "mask")
NUMBERS = {"size": 1, "skip_bad": 0, "workers": 0}  # option to its least value
LARGEST = 9459  # pixels of a side: Pillow's limit is the square of that
OWN = (*FOLDERS, "captions", "metrics", "protocol", "extractor", "out", *NUMBERS)
JUDGE = re.compile(r"extractor\.([\w/]+)\.file=(.*)")
SETTING = re.compile(r"protocol\.metrics\.(\w+)\.(\w+)")
# Keys of conf/run.yaml that a score depends on: always, and where a data set is the real set.
HEARD = re.compile(r"paths\.(assets|results)|trainer(\.accelerator)?")
OF_REAL_SET = re.compile(
    r"data(\.(source|root|toy_images|toy_seed))?|scale|protocol\.reference(_classes)?"
    r"|data\.module\.(?!batch_size$|num_workers$|seed$|root$|assets$|_target_$)\w+"
    r"|protocol\.((default_)?preprocessing|data)(\.[\w.]+)?"
    r"|preprocessing@protocol\.(default_)?preprocessing"
)
# What score takes, of keys that choose where networks run.
ACCELERATORS = ("auto", "cpu", "cuda", "gpu")
TRAINERS = ("auto", "cpu")

HELP = """usage: mmbench score fake=DIR metrics=A,B [real=DIR|data=NAME] [captions=FILE] [input=DIR] [mask=DIR] [...]

Scores images, videos or texts of any tool: what the metrics judge, or what the protocol's task asks for. Folders may be
zip archives, whose one common top folder is no part of the paths; files belong together by path without extension.
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
  protocol.metrics.kid.subset_size=N   a setting of a metric, as conf/metric/kid.yaml has them; the score is then
                      called kid(subset_size=N)
  protocol.metrics.fid.extractor=dinov2   another network than a metric's own: a folder of conf/network, or a file in
                      one, clip/vitl14; the score is then called fid(extractor=dinov2)
  extractor           standard (default) or toy networks
  extractor.inception.file=PATH   weights of a judge; the record then has the file's SHA-256
  trainer             auto (default: on an accelerator where there is one) or cpu
  paths.results, paths.assets   folders of records, and of weights and data; with data= also keys of data and scale
  size=N              real, input and mask are resized to N (shorter side, bilinear, anti-aliased; centre crop)
  skip_bad=N          leave out up to N that cannot be scored; the record names them (default 0)
  workers=N           processes that read files (default 0)
  out=FILE.json       the record (default: below paths.results/score)

In Python: from mmbench.metrics import MetricSuite; suite = MetricSuite.named("psnr", "ssim").
"""


def requested(arguments: list[str]) -> Request:
    """What the words ask for.

    Raises:
        ValueError: a word is missing, misspelt, contradicts another, or would change nothing.
    """
    judges, others = _judges(arguments)
    own, rest = command_line.split_options(others, OWN)
    words = command_line.parse(rest)
    wants_data = any(word.key_or_group == "data" for word in words)
    _require_heard(words, own, wants_data)
    if "fake" not in own:
        raise ValueError("expected fake=DIR, what is to be scored, found none: see `mmbench score --help`")
    metrics = command_line.listed(own.get("metrics", ""))
    if bool(metrics) == ("protocol" in own):
        raise ValueError("expected metrics=A,B or protocol=NAME, one of them: see `mmbench score --help`")
    for name in metrics:
        if name not in catalogue.names("metric"):
            catalogue.unknown("metric", name.lower(), catalogue.names("metric"))
    numbers = {
        option: command_line.whole_number(option, own.get(option, str(least)), least)
        for option, least in NUMBERS.items()
    }
    command_line.require_said(own)
    if "size" in own and not {"real", "input", "mask"} & own.keys():
        raise ValueError("expected real=, input= or mask= with size=, which resizes them, found none: leave size= out")
    if numbers["size"] > LARGEST:
        raise ValueError(
            f"expected size=N of at most {LARGEST}, as large as a picture may be, found {own['size']}: lower it"
        )
    _require_extractor(own)
    protocol = own.get("protocol", "strict")
    settings, beside = _settings(words)
    plain = config.composed(["method=identity", f"protocol={protocol}", *beside])
    return Request(
        folders={what: own[what] for what in FOLDERS if what in own},
        metrics=tuple(metrics),
        protocol=own.get("protocol"),
        extractor=own.get("extractor", "standard"),
        judges=judges,
        settings=settings,
        told=_told(settings, metrics, own.get("protocol")),
        captions=Path(own["captions"]).expanduser() if "captions" in own else None,
        data=plain["data"]["name"] if wants_data else None,
        size=numbers["size"] if "size" in own else None,
        skip_bad=numbers["skip_bad"],
        workers=numbers["workers"],
        out=str(Path(own["out"]).expanduser()) + "/" * own["out"].endswith("/") if "out" in own else None,
        plain=plain,
    )


def _judges(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Extractor to the file of its weights, and the other words: a path need not be in Hydra's grammar."""
    judges: dict[str, str] = {}
    others = []
    for word in arguments:
        if match := JUDGE.fullmatch(word):
            if match[1] in judges:
                raise ValueError(f"expected extractor.{match[1]}.file= once, found it twice: remove one")
            judges[match[1]] = match[2]
        else:
            others.append(word)
    return judges, others


def _require_extractor(own: Mapping[str, str]) -> None:
    """Refuses networks that no metric has, and of a protocol's metrics all but the two kinds that it names."""
    networks = [path.name for path in (catalogue.shipped("conf") / "network").iterdir() if path.is_dir()]
    valid = {name for network in networks for name in catalogue.names(f"network/{network}")}
    if own.get("extractor", "toy") not in ({"standard", "toy"} if "protocol" in own else valid):
        catalogue.unknown("extractor", own["extractor"], ("standard", "toy"))


def _is_heard(key: str, own: Mapping[str, str]) -> bool:
    """Whether a score depends on a key of conf/run.yaml; on the task, where a protocol is to choose the metrics."""
    is_task = key == "protocol.task" and "protocol" in own
    return is_task or any(kind.fullmatch(key) for kind in (HEARD, SETTING, OF_REAL_SET))


def _require_heard(words: Sequence[Override], own: Mapping[str, str], wants_data: bool) -> None:
    """Refuses keys of a run that no score depends on.

    Raises:
        ValueError: names the key, or the nearest valid ones of a misspelt one.
    """
    for word in words:
        key = word.get_key_element().lstrip("+~")
        if word.is_delete() or not _is_heard(key, own):
            _refuse(key, own)
        if OF_REAL_SET.fullmatch(key) and not wants_data:
            raise ValueError(f"expected data=NAME, a data set as real images, with {key}, found none: add it")
    said = {word.key_or_group: word.value() for word in words}
    for key, valid in (("trainer", TRAINERS), ("trainer.accelerator", ACCELERATORS)):
        if key in said and said[key] not in valid:
            raise ValueError(f"expected {key}={', '.join(valid)} for a score, found {said[key]}: choose one")
    if wants_data and "real" in own:
        raise ValueError("expected real=DIR or data=NAME, found both: remove one")
    if "out" in own and "paths.results" in said:
        raise ValueError("expected out=FILE or paths.results=FOLDER, found both: remove one")


def _refuse(key: str, own: Mapping[str, str]) -> None:
    """Raises ValueError for a key that score does not take: one of other commands, or a misspelt one."""
    known = checking.known_keys([])
    if key in known or key in catalogue.groups() or key.startswith((f"{command_line.STAGES}.", "hydra.")) or "@" in key:
        raise ValueError(
            f"expected options that change a score, found {key}, which is for other commands: leave it out, or see "
            "`mmbench score --help`"
        )
    heard = [one for one in known if _is_heard(one, own) and not one.endswith(("._target_", ".extractor"))]
    catalogue.unknown("option of score", key, [*OWN, "data", "trainer", "extractor.inception.file", *heard])


def _settings(words: Sequence[Override]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Metric to what the words say of it, and the other words."""
    settings: dict[str, dict[str, Any]] = {}
    others = []
    for word in words:
        if match := SETTING.fullmatch(word.key_or_group):
            settings.setdefault(match[1], {})[match[2]] = word.value()
        else:
            others.append(str(word.input_line))
    return settings, others


def _told(settings: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], protocol: str | None) -> dict[str, str]:
    """Metric to its settings as the name of its score has them.

    Raises:
        ValueError: a metric is none of those asked for, or has no such setting, or its value is of another kind.
    """
    told = {}
    asked = metrics if protocol is None else composition.node(f"protocol/{protocol}")["metrics"]
    for name, said in settings.items():
        if name not in asked:
            catalogue.unknown("metric that is to be scored", name, asked)
        usual = composition.node(f"metric/{name}") if protocol is None else asked[name]
        if text := config.settings_told(name, usual, {**usual, **said}):
            told[name] = text
    return told


def report(record: Result) -> None:
    """Prints what was found."""
    print_scores(record)
    for name, lacking in sorted(record.data["not scored"].items()):
        print(f"{name:<28} not scored (needs {lacking})")
    for name, problem in record.data["skipped"].items():
        print(f"left out: {name} ({problem})")
    for sentence, count in record.data["notes"].items():
        print(f"note: {sentence}: {count}")


def require_place(request: Request) -> None:
    """Refuses a place for the record, or for what scores keep, that cannot be written, before anything is scored.

    Raises:
        CannotWrite: names the folder and what names it.
        ValueError: `out=` names a folder.
    """
    paths, out = request.plain["paths"], request.out
    if out is None:
        require_writable(Path(paths["results"]) / "score", RESULTS)
    elif Path(out).is_dir() or out.endswith("/"):
        raise ValueError(
            f"expected a file for out=, found the folder {out}: name a file in it, {out.rstrip('/')}/x.json"
        )
    else:
        require_writable(Path(out).parent, "out=")
    require_assets(paths)


def main(arguments: list[str]) -> int:
    request = requested(arguments)
    require_place(request)
    from mmbench.pipeline import by_sample, folders  # networks and metrics take seconds to import

    record, values = folders.score(request)
    place = request.plain["paths"]["results"], request.out
    try:
        _report_in_any_encoding(record)  # before it is written: should that fail, nothing is lost
    finally:  # nor should nobody read what is printed
        record = by_sample.keep(record, values, *place)
        path = record.write(*place)
    print(f"record: {path}")
    return 0


def _report_in_any_encoding(record: Result) -> None:
    """As `report`; characters that the terminal does not have are printed as their numbers."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        report(record)
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (what is left in the old one cannot be written)
        raise ValueError(
            f"expected to print the scores, found {error.strerror}: they are in the record, see out= or paths.results="
        ) from None
