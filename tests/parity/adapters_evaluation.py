"""The scores of inpainting papers, as their evaluation scripts computed them."""

import torch
from fixture import inputs
from torch import Tensor

from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample
from mmbench.metrics.picnet import PICNetL1
from mmbench.metrics.tdanet import TDANetL1, TDANetPSNR, TDANetSSIM, TDANetTV

TDANET = {"l1": TDANetL1, "psnr": TDANetPSNR, "tv": TDANetTV, "ssim": TDANetSSIM}


def _images(values: Tensor) -> Tensor:
    """(N, H, W, 3) levels to (N, 3, H, W) uint8."""
    return values.clamp(0, 255).to(torch.uint8).permute(0, 3, 1, 2)


def tdanet(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    truth = given["truth"]
    mask = torch.zeros(len(truth), 1, 256, 256)
    mask[..., 64:192, 64:192] = 1
    hole = mask.permute(0, 2, 3, 1) > 0
    filled = truth + given["noise"] - 40
    filled[1::2] = 255 - truth[1::2]
    images = _images(torch.where(hole, filled, truth))
    batch = {"image": from_uint8(_images(truth)), "mask": mask}
    found = {}
    for kind, count in (("selected", 1), ("table", len(truth))):
        for name, metric_type in TDANET.items():
            metric = metric_type()
            rows = {key: value[:count] for key, value in batch.items()}
            metric.update(images[:count], rows | {"sample": [Sample(str(row), 0, 0) for row in range(count)]})
            found[f"{kind}_{name}"] = torch.tensor(metric.compute().value / metric.scale)
    masked = _images(torch.where(hole, 127, truth))
    for kind, pictures in (("masked", masked), ("output", images)):
        for name, value in zip(TDANET, TDANetSSIM().candidate(_images(truth), pictures)[0], strict=True):
            found[f"{kind}_{name}"] = value
    return found


def picnet(fixture: dict) -> dict[str, Tensor]:
    given = inputs(fixture)
    output = given["truth"] + given["noise"] - 40
    values = PICNetL1().candidate(_images(given["truth"][None]), _images(output[None]))[0]
    return dict(zip(("l1", "psnr", "tv"), values, strict=True))


ADAPTERS = {"tdanet/evaluation": tdanet, "picnet/evaluation": picnet}
