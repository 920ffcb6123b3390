"""How fast sampling is: ours beside a plain transcription on the same networks, as a ratio in one run.

Denoising: steps of DDIM with classifier-free guidance by ADM's U-Net. The transcription does what the released code
does: attention by a whole matrix of weights, features made larger before they are convolved, and coefficients that go
from a table to a tensor of the image's shape at every step.

Decoding: tokens drawn one after the other by VQGAN's transformer, with the keys and values of earlier tokens kept and,
in the transcription, with every token before it read again for each.

Weights are random: how fast a network is does not depend on what it knows. Each side has a process of its own, and they
take turns, so that whatever else the machine does falls on both. Both compute in float32.
"""

import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.benchmarks.schedules import awake, rescaled, upsampled_then_convolved
from mmbench.benchmarks.training import peak_memory
from mmbench.core import catalogue
from mmbench.core.categorical import drawn
from mmbench.diffusion.denoisers import predicts_noise
from mmbench.diffusion.guidance import classifier_free
from mmbench.diffusion.samplers import ddim
from mmbench.diffusion.schedules import Schedule, linear, respaced
from mmbench.layers.upsampling import UpsamplingConvolution
from mmbench.networks.adm import Blocks, UNet
from mmbench.networks.token_transformer import TokenTransformer, sampled

HELP = """usage: python -m mmbench.benchmarks.sampling [check] [denoising] [decoding]

Prints steps and tokens a second, ours beside a plain transcription, and the memory of each at its peak; exits with 1
where their results differ. Networks have the published width on a graphics card and a quarter of it elsewhere.

With `check` nothing is timed: small networks sample on both sides, which takes seconds.
"""
ROUNDS = 3
TOLERANCE = 1e-3  # of the largest value: networks with random weights are not smooth
NUM_CLASSES, NUM_TOKENS, GUIDANCE = 1000, 1024, 2.0


class Size(NamedTuple):
    """How large a case is.

    Attributes:
        width: of the network.
        depth: blocks at each size of features, or of the transformer.
        batch_size: images.
        side: height and width of the image, or of the map of tokens.
        num_steps: of denoising.
    """

    width: int
    depth: int
    batch_size: int
    side: int
    num_steps: int = 0


class Sides(NamedTuple):
    """What both sides do.

    Attributes:
        unit: what is counted.
        count: how many of it both do.
        ours, plain: give the images or tokens.
    """

    unit: str
    count: int
    ours: Callable[[], Tensor]
    plain: Callable[[], Tensor]


def denoising(size: Size, device: str) -> Sides:
    """Steps by ADM's U-Net at 64 pixels, conditioned on classes; one more stands for no class."""
    network = UNet(
        Blocks(head_dim=min(64, size.width), dropout=0.0, groups=min(32, size.width)),
        image_size=size.side,
        in_channels=3,
        out_channels=3,
        width=size.width,
        multipliers=(1, 2, 3, 4),
        num_blocks=size.depth,
        attention_sizes=(size.side // 2, size.side // 4, size.side // 8),
        condition=lambda dim: nn.Embedding(NUM_CLASSES + 1, dim),
    )
    network = awake(rescaled(network)).to(device).eval()
    schedule = respaced(linear(1000), size.num_steps)
    start = torch.randn(size.batch_size, 3, size.side, size.side).to(device)
    label = torch.arange(size.batch_size, device=device)
    nothing = torch.full_like(label, NUM_CLASSES)
    guided = classifier_free(predicts_noise(network, schedule), GUIDANCE, nothing)
    return Sides(
        "steps",
        size.num_steps,
        partial(ddim, guided, schedule, start, label),
        partial(plain_ddim, network, schedule, start, label, nothing),
    )


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(N, heads, L, D) each, by (N, heads, L, L) weights."""
    scale = 1 / math.sqrt(math.sqrt(query.shape[-1]))
    weights = torch.einsum("nhtd,nhsd->nhts", query * scale, key * scale).float().softmax(dim=-1)
    return torch.einsum("nhts,nhsd->nhtd", weights.type(value.dtype), value)


def plain_ddim(network: nn.Module, schedule: Schedule, x: Tensor, label: Tensor, nothing: Tensor) -> Tensor:
    """DDIM with guidance as written down, attention and enlarging included."""
    for module in network.modules():
        if isinstance(module, UpsamplingConvolution):
            module.forward = partial(upsampled_then_convolved, module)  # type: ignore[method-assign]

    def spread_out(values: Tensor, step: int) -> Tensor:
        return torch.from_numpy(values.numpy()).to(x.device)[step].float().expand(x.shape)

    with patch.object(F, "scaled_dot_product_attention", plain_attention):
        for step in reversed(range(len(schedule))):
            times = schedule.timesteps[[step] * 2 * len(x)].to(x.device)
            without, given = network(torch.cat((x, x)), times, torch.cat((nothing, label))).chunk(2)
            noise = without + GUIDANCE * (given - without)
            level = spread_out(schedule.alphas_cumprod, step)
            previous = spread_out(schedule.alphas_cumprod_previous, step)
            denoised = (x - torch.sqrt(1 - level) * noise) / torch.sqrt(level)
            x = torch.sqrt(previous) * denoised + torch.sqrt(1 - previous) * noise
    return x


def decoding(size: Size, device: str) -> Sides:
    """Tokens by VQGAN's transformer, after one that says the class."""
    count = size.side**2
    transformer = TokenTransformer(NUM_TOKENS, count + 1, size.width, size.depth, num_heads=max(1, size.width // 64))
    transformer.to(device).eval()
    uniform = torch.rand(count, size.batch_size).to(device)
    start = torch.arange(size.batch_size, device=device)[:, None]

    def run(cached: bool) -> Tensor:
        return sampled(
            transformer,
            lambda top, left: transformer.embedding(start),
            (size.side, size.side),
            size.side,
            lambda logits, number: drawn(logits, uniform[number]),
            cached,
        )

    return Sides("tokens", count, partial(run, True), partial(run, False))


CASES = {"denoising": denoising, "decoding": decoding}
SIZES = {
    "cuda": {"denoising": Size(192, 3, 8, 64, 20), "decoding": Size(1024, 24, 8, 16)},
    "cpu": {"denoising": Size(64, 2, 1, 64, 2), "decoding": Size(256, 4, 4, 16)},
    "check": {"denoising": Size(8, 1, 2, 16, 3), "decoding": Size(16, 2, 2, 4)},
}


def built(name: str, sizes: str) -> Sides:
    """A case with the same random weights and inputs in every process."""
    torch.manual_seed(0)
    return CASES[name](SIZES[sizes][name], "cuda" if sizes == "cuda" else "cpu")


@torch.inference_mode()
def side(connection: Connection, name: str, sizes: str, ours: bool) -> None:
    """The process of one side: samples each time it is its turn, at the end says the memory at its peak in GB."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    sides = built(name, sizes)
    run = sides.ours if ours else sides.plain
    for _ in range(1 + ROUNDS):
        connection.recv()
        began = time.perf_counter()
        found = run().cpu()  # which waits for a graphics card
        connection.send((time.perf_counter() - began, found.tolist()))
    connection.send(peak_memory())


def turn(connection: Connection) -> tuple[float, list]:
    connection.send("sample")
    return connection.recv()


def difference(ours: Tensor, plain: Tensor) -> float:
    """The largest, in units of the largest value."""
    return float((ours - plain).abs().max() / plain.abs().max())


def bench(name: str, sizes: str) -> bool:
    """Measures a case and prints it; whether both sides sample the same."""
    context = multiprocessing.get_context("spawn")
    sides, processes = [], []
    for ours in (True, False):
        connection, other_end = context.Pipe()
        processes.append(context.Process(target=side, args=(other_end, name, sizes, ours), daemon=True))
        processes[-1].start()
        other_end.close()  # so that a side that fails is heard of
        sides.append(connection)
    apart = difference(*(torch.tensor(turn(connection)[1]) for connection in sides))  # the first warms up
    seconds = [[turn(connection)[0] for connection in sides] for _ in range(ROUNDS)]
    memory = [connection.recv() for connection in sides]
    for process in processes:
        process.join()
    size, case = SIZES[sizes][name], built(name, sizes)
    done = case.count * size.batch_size
    ours, plain = (done / median(column) for column in zip(*seconds, strict=True))
    ratios = [slow / fast for fast, slow in seconds]
    goal = ", goal >= 5" if name == "decoding" else ""
    what = f"{name}, width {size.width}, {case.count} {case.unit}, batch of {size.batch_size}"
    print(
        f"{what}: ours {ours:.2f} {case.unit}/s, "
        f"plain {plain:.2f}, {median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}){goal}, "
        f"{memory[0]:.2f} GB beside {memory[1]:.2f} GB, results differ by {apart:.1e}",
        flush=True,
    )
    return apart < TOLERANCE


@torch.inference_mode()
def check(name: str) -> bool:
    """Whether both sides sample the same by small networks; prints the difference."""
    case = built(name, "check")
    apart = difference(case.ours(), case.plain())
    print(f"{name}: {case.count} {case.unit}, results differ by {apart:.1e} (at most {TOLERANCE})")
    return apart < TOLERANCE


def main(words: list[str]) -> int:
    if {"-h", "--help"} & set(words):
        print(HELP, end="")
        return 0
    chosen = [word for word in words if word != "check"] or list(CASES)
    for name in chosen:
        if name not in CASES:
            catalogue.unknown("case", name, CASES)
    if "check" in words:
        equal = [check(name) for name in chosen]
        return 0 if all(equal) else 1
    sizes = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.cuda.get_device_name() if sizes == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}, PyTorch {torch.__version__}, float32")
    equal = [bench(name, sizes) for name in chosen]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"mmbench: error: {' '.join(str(error).split())}")
