"""Losses over pairs of a batch that is divided among processes are those of the whole batch, gradients included."""

import pytest
import torch
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmbench.core import processes
from mmbench.losses import matching, ranking

PROCESSES, PAIRS, DIM = 2, 6, 5
LENGTHS = torch.tensor([3, 7, 2, 4, 1, 5])  # of captions: the parts have different longest ones
CLASSES = torch.tensor([0, 1, 2, 0, 3, 1])
GAMMAS = {"gamma1": 4.0, "gamma2": 5.0, "gamma3": 10.0}


class Embedding(nn.Module):
    """Images and captions brought into a common space by two linear maps, and a loss over their pairs."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss
        torch.manual_seed(0)
        self.image, self.text = (nn.Linear(4, DIM, bias=False).double() for _ in range(2))

    def forward(self, rows):
        stream = torch.Generator().manual_seed(1)
        regions = torch.randn(PAIRS, 3, 2, 4, generator=stream, dtype=torch.float64)[rows]
        words = torch.randn(PAIRS, max(LENGTHS), 4, generator=stream, dtype=torch.float64)[rows]
        longest = int(LENGTHS[rows].max())
        regions, words = self.image(regions).permute(0, 3, 1, 2), self.text(words[:, :longest])
        return self.loss(regions, words, torch.arange(longest) < LENGTHS[rows, None], CLASSES[rows])


def over_words(regions, words, word_mask, class_ids):
    return sum(matching.words_loss(regions, words, word_mask, class_ids, **GAMMAS))


def over_sentences(regions, words, word_mask, class_ids):
    return sum(matching.sentence_loss(regions.mean(dim=(2, 3)), words[:, 0], class_ids, GAMMAS["gamma3"]))


def by_rank(regions, words, word_mask, class_ids):
    return ranking.pairwise_ranking_loss(regions.mean(dim=(2, 3)), words[:, 0], margin=0.5)


def learned(model, rows):
    """The loss of some rows, and the gradients of all parameters."""
    loss = model(rows)
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


def one_process(rank, folder, loss, gather):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    if not gather:
        processes.divided = lambda: False
    rows = torch.arange(PAIRS)[rank::PROCESSES]
    torch.save(learned(DistributedDataParallel(Embedding(loss)), rows), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("loss", [over_words, over_sentences, by_rank])
@pytest.mark.parametrize("gather", [True, False])
def test_a_divided_batch_has_the_loss_and_the_gradients_of_the_whole(tmp_path, loss, gather):
    expected = learned(Embedding(loss), torch.arange(PAIRS))
    torch.multiprocessing.start_processes(one_process, (tmp_path, loss, gather), PROCESSES, start_method="fork")
    for rank in range(PROCESSES):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        differences = [float((ours - whole).abs().max()) for ours, whole in zip(found, expected, strict=True)]
        if gather:
            assert max(differences) < 1e-9
        else:  # each process sees the pairs of its own part alone
            assert min(differences) > 1e-3
