"""Scores anybody's folder of images under mmbench's metrics and protocols."""

from pathlib import Path

import torch

from mmbench.core import config
from mmbench.core.files import sha256_json
from mmbench.core.results import Result
from mmbench.metrics.suite import build_suite
from mmbench.pipeline import canary, scoring
from mmbench.pipeline.folders import (
    OWN,
    Sample,
    Scored,
    _asked,
    _batch,
    _chosen,
    _Counted,
    _print,
    _reference,
    _whole,
    folders,
    inspect,
    read_captions,
)

HELP = """usage: mmbench score fake=DIR metrics=A,B [real=DIR|data=NAME] [captions=FILE] [input=DIR] [mask=DIR] [...]

Scores images of any tool. Folders may be zip archives; images belong together by path without extension.

  fake                generated images, all of one size and mode
  real                real images: the reference set of FID and its kin; compared image by image where there is no input
  data=NAME           a data set's test images instead of real= (data.source=toy for toy data)
  input               images that were edited: what diff, L1, PSNR, SSIM and LPIPS compare with
  captions            the prompt of each image: .json {name: text}, or .csv / .tsv of name and text
  mask                masks of inpainting, white = hole
  metrics=fid,is      names that `mmbench list group=metric` shows
  protocol=NAME       instead of metrics=: those of a protocol's metrics that the given folders allow
  extractor           standard (default) or toy networks
  extractor.inception.file=PATH   weights of a judge; the record then has the file's SHA-256
  size=N              real, input and mask are resized to N (shorter side, bilinear, anti-aliased; centre crop)
  skip_bad=N          leave out up to N images that cannot be scored; the record names them (default 0)
  workers=N           processes that read images (default 0)
  out=FILE.json       the record (default: below results/score)

In Python: from mmbench.metrics import MetricSuite; suite = MetricSuite.named("psnr", "ssim").
"""


def main(arguments: list[str]) -> int:
    own, rest = config.split_options(arguments, OWN)
    judges = {key: value for key, _, value in (word.partition("=") for word in rest) if key.startswith("extractor.")}
    rest = [word for word in rest if word.partition("=")[0] not in judges]
    if "fake" not in own:
        raise ValueError("expected fake=DIR, the images to score, found none: see `mmbench score --help`")
    if ("metrics" in own) == ("protocol" in own):
        raise ValueError("expected metrics=A,B or protocol=NAME, one of them: see `mmbench score --help`")
    size = config.integers(own["size"])[0] if "size" in own else None
    allowed = config.integers(own.get("skip_bad", "0"))[0]
    workers = config.integers(own.get("workers", "0"))[0]
    wants_data = any(word.startswith("data=") for word in rest)
    if wants_data and "real" in own:
        raise ValueError("expected real=DIR or data=NAME, found both: remove one")
    protocol = own.get("protocol", "strict")
    cfg = config.composed(["method=identity", f"protocol={protocol}", *rest])
    assets = Path(cfg["paths"]["assets"]).expanduser()
    captions = read_captions(Path(own["captions"]).expanduser()) if "captions" in own else None
    with folders({what: own[what] for what in ("fake", "real", "input", "mask") if what in own}) as found:
        sources = {"generated": found["fake"]}
        if compared := found.get("input", found.get("real")):
            sources["image"] = compared
        if "mask" in found:
            sources["mask"] = found["mask"]
        has = {*sources, *(("prompt",) if captions is not None else ())}
        # A named data set may have judges of its own, which its composed protocol knows.
        asked = _asked(own, cfg["protocol"] if wants_data and cfg["data"]["source"] == "real" else None)
        metric_nodes, extractor_nodes, left_out = _chosen(own, asked, judges, has, wants_data or "real" in found)
        suite = build_suite(metric_nodes, extractor_nodes, assets)
        sources = {name: folder for name, folder in sources.items() if name == "generated" or name in suite.needs}
        paired = [folder.what for name, folder in sources.items() if name != "generated"]
        problems = inspect(found, paired, captions if "prompt" in suite.needs else None, size)
        names = sorted(found["fake"].files.keys() - problems.found.keys())
        dataset = Scored(names, sources, captions if "prompt" in suite.needs else None, size)
        if len(problems.found) > allowed:  # no score will come of it: look into the other files too, and say all
            for _ in _whole(iter(scoring.loader(dataset, workers, _batch)), problems, allowed):
                pass
        problems.require(allowed)
        if torch.cuda.is_available() and cfg["trainer"]["accelerator"] != "cpu":
            suite.cuda()
        drift = canary.check(suite, assets)
        batches = _Counted(scoring.loader(dataset, workers, _batch), problems, allowed)
        shown = scoring.show(suite, batches, "scoring")
        problems.require(allowed)
        good = [Sample(name, 0, 0) for name in names if name not in problems.found]
        covered = scoring.coverage(shown, good)
        reference = None
        if suite.needs_reference:
            real, reference = _reference(found, cfg, size, workers)
            scoring.add_reference(suite, real, reference, assets, workers)
        metrics = scoring.results_of(suite)
        facts = {
            "fake": found["fake"].sha256(),
            **{what: folder.sha256() for what, folder in found.items() if what != "fake"},
            "reference": reference,
            "captions": sha256_json(captions) if captions is not None else None,
            "size": size,
            "skipped": dict(sorted(problems.found.items())),
            "not scored": left_out,
        }
    used = {node["extractor"] for node in metric_nodes.values() if "extractor" in node}
    judged = {
        name: {key: node[key] for key in ("name", "network")} for name, node in extractor_nodes.items() if name in used
    }
    description = {"metrics": metric_nodes, "extractors": judged, "size": size}
    record = Result(
        experiment="score",
        row={
            "method": Path(own["fake"]).stem,
            "data": cfg["data"]["name"] if wants_data else "folder",
            "source": "folder",
        },
        seed=0,
        protocol={"name": own.get("protocol", "score"), "hash": config.config_hash(description)},
        metrics=metrics,
        run_key=sha256_json([facts, description, {key: score["weights"] for key, score in metrics.items()}]),
        config_hash=config.config_hash(description),
        weights={"choice": "none needed", "sha256": None, "verified": True},
        data=facts,
        config=description,
        coverage=covered,
        canary=drift,
    )
    path = record.write(cfg["paths"]["results"], own.get("out"))
    _print(metrics, left_out, problems)
    print(f"record: {path}")
    return 0
