"""Several processes give one process's scores, with shares that do not divide and processes that have no sample."""

import pytest
import torch
import torch.multiprocessing

from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample
from mmbench.metrics import MetricSuite
from mmbench.metrics.clip_score import CLIPScore
from mmbench.metrics.dists import DISTS
from mmbench.metrics.fid import FID
from mmbench.metrics.identity import Identity
from mmbench.metrics.inception_score import InceptionScore
from mmbench.metrics.kid import KID
from mmbench.metrics.lpips_diversity import LPIPSDiversity
from mmbench.metrics.mp import MP
from mmbench.metrics.pie import PieLPIPS, PieMSE, PiePSNR, PieSSIM
from mmbench.metrics.precision_recall import Precision, Recall
from mmbench.metrics.psnr import PSNR
from mmbench.metrics.r_precision import RPrecision
from mmbench.metrics.structure_distance import StructureDistance
from mmbench.metrics.tdanet import TDANetSSIM

PROMPTS, DRAWS = 11, 2


def suite_of(extractor):
    return MetricSuite(
        {
            "fid": FID(extractor),
            "is": InceptionScore(extractor, splits=3),
            "kid": KID(extractor, subsets=5, subset_size=9),
            "precision": Precision(extractor, 3),
            "recall": Recall(extractor, 3),
            "psnr": PSNR(against="image"),
            "mp": MP(extractor),
            "clip_score": CLIPScore(extractor, factor=100),
            "diversity": LPIPSDiversity(extractor, draws=DRAWS),
            "r_precision": RPrecision(extractor, candidates=4, apart="id"),
            "tdanet": TDANetSSIM(),
            "structure_distance": StructureDistance(extractor, against="image"),
            "dists": DISTS(extractor, against="image"),
            "identity": Identity(extractor, against="image"),
            "pie_mse": PieMSE(covered=1),
            "pie_psnr": PiePSNR(covered=1),
            "pie_ssim": PieSSIM(covered=1),
            "pie_lpips": PieLPIPS(covered=1, extractor=extractor),
        }
    )


def score(extractor, images, real, rank, shares):
    """What this process has to say after it has seen its share, the first one the real set too."""
    suite = suite_of(extractor)
    rows = torch.arange(len(images))[rank::shares] if rank < shares else torch.arange(0)
    for part in rows.split(3) if len(rows) else ():
        samples = [Sample(f"bird/{int(row) // DRAWS:04d}", 0, int(row) % DRAWS) for row in part]
        suite.update(
            images[part],
            {
                "id": [sample.id for sample in samples],
                "sample": samples,
                "image": from_uint8(255 - images[part]),
                "mask": torch.ones(len(part), 1, 16, 16),
                "prompt": [f"{int(row) // DRAWS:03d}" for row in part],
            },
        )
    if rank == 0:
        suite.update_reference({"id": [f"{row:03d}" for row in range(len(real))], "image": from_uint8(real)})
    return suite.compute()


def one_process(rank, ranks, shares, folder, extractor, images, real):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store-{ranks}-{shares}", rank=rank, world_size=ranks
    )
    found = score(extractor, images, real, rank, shares)
    torch.save({name: tuple(value) for name, value in found.items()}, folder / f"{ranks}-{shares}-{rank}.pt")
    torch.distributed.destroy_process_group()


# The last two: three of four, and seven of eight processes, have no sample.
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("ranks", "shares"), [(2, 2), (3, 3), (4, 4), (8, 8), (4, 1), (8, 1)])
@pytest.mark.filterwarnings("ignore:The ``compute`` method", "ignore:.*fork")
def test_any_number_of_processes_gives_the_same_scores(tmp_path, make_extractor, pixels, ranks, shares):
    extractor, images, real = make_extractor(), pixels(PROMPTS * DRAWS), pixels(13, 1)
    expected = score(extractor, images, real, 0, 1)
    torch.multiprocessing.start_processes(
        one_process, (ranks, shares, tmp_path, extractor, images, real), ranks, start_method="fork"
    )
    for rank in range(ranks):
        found = torch.load(tmp_path / f"{ranks}-{shares}-{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, score_of in expected.items():
            assert found[name] == tuple(score_of), name
