"""Scores of texts are the same to the bit in batches of any size, on any number of processes and threads."""

import json

import open_clip
import pytest
import torch
import torch.multiprocessing

from mmbench.core.images import from_uint8
from mmbench.core.noise import Sample, random_stream
from mmbench.core.text import END, Vocabulary
from mmbench.metrics import MetricSuite
from mmbench.metrics.bleu import BLEU
from mmbench.metrics.cider import CIDErD
from mmbench.metrics.clip_score import CLIPScore
from mmbench.metrics.mp import MP
from mmbench.metrics.r_precision import RPrecision
from mmbench.metrics.rouge_l import ROUGEL
from mmbench.metrics.sim import Sim
from mmbench.networks.damsm import TextEncoder
from mmbench.networks.damsm_space import DAMSMSpace
from mmbench.networks.open_clip import OpenCLIP
from mmbench.networks.toy import VOCABULARY, ToyCLIP, ToyInceptionTrunk

COUNT = 35
THREADS = 3  # that processes share, as Lightning divides them
# Of a width at which products are divided among threads; the images' part is small.
WIDE = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 1},
}


class Drawn:
    """A network as it is initialised."""

    def load(self, path):
        pass


class DrawnCLIP(Drawn, OpenCLIP):
    pass


class DrawnToy(Drawn, ToyCLIP):
    pass


class DrawnDAMSM(Drawn, DAMSMSpace):
    pass


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "mmbench-wide.json"
    path.write_text(json.dumps(WIDE))
    open_clip.add_model_config(path)
    torch.manual_seed(0)
    damsm = DrawnDAMSM(ToyInceptionTrunk(), 256, 300, 18)
    damsm.vocabulary = Vocabulary((END, *VOCABULARY))
    damsm.text_encoder = TextEncoder(len(damsm.vocabulary.words), 256, 300)
    return {"clip": DrawnCLIP("mmbench-wide"), "toy": DrawnToy(), "damsm": damsm}


def texts():
    """Captions of 1 to 20 words, so that parts of all lengths are there."""
    stream = random_stream("texts")
    lengths = stream.choice([1, 2, 3, 5, 8, 12, 20], COUNT)
    return [" ".join(stream.choice(VOCABULARY, length)) for length in lengths]


def suites(networks, make_extractor):
    judges = {name: make_extractor(network, name) for name, network in networks.items()}
    learned = {
        f"{name}_{metric}": make(judge)
        for name, judge in judges.items()
        for metric, make in {
            "clip_score": lambda judge: CLIPScore(judge, factor=100),
            "sim": Sim,
            "mp": MP,
            "r_precision": lambda judge: RPrecision(judge, candidates=9, apart="id"),
        }.items()
    }
    return [MetricSuite(learned), MetricSuite({"cider_d": CIDErD(), "bleu_4": BLEU(4), "rouge_l": ROUGEL()})]


def scored(both, batch_size, rank=0, ranks=1):
    """Scores and values by sample of both suites, of which this process sees its share."""
    prompts = texts()
    pictures = torch.randint(0, 256, (2, COUNT, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    for rows in torch.arange(rank, COUNT, ranks).split(batch_size):
        samples = [Sample(f"{int(row):03d}", 0, 0) for row in rows]
        shown = [prompts[row] for row in rows]
        common = {"id": [sample.id for sample in samples], "sample": samples}
        both[0].update(pictures[0, rows], common | {"image": from_uint8(pictures[1, rows]), "prompt": shown})
        references = [[prompts[row - 1], prompts[row - 2]] for row in rows]
        both[1].update(shown, common | {"captions": references})
    return [{**suite.compute(), "values": suite.by_sample()} for suite in both]


def one_process(rank, ranks, folder, both):
    torch.set_num_threads(THREADS // ranks)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    torch.save(scored(both, 7, rank, ranks), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_processes_gives_the_same_bits(tmp_path, networks, make_extractor, threads, ranks):
    both = suites(networks, make_extractor)
    torch.multiprocessing.start_processes(one_process, (ranks, tmp_path, both), ranks, start_method="fork")
    threads(THREADS)
    expected = scored(both, 32)
    for rank in range(ranks):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=False) == expected


def test_batches_of_any_size_give_the_same_bits(networks, make_extractor):
    first, *others = (scored(suites(networks, make_extractor), batch_size) for batch_size in (1, 7, 32))
    assert all(other == first for other in others)
    assert len(first[0]["values"]["clip_sim@clip"]) == COUNT
