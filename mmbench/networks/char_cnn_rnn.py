"""Char-CNN-RNN: a caption, read letter by letter, as one vector.

Scott Reed, Zeynep Akata, Honglak Lee, Bernt Schiele. Learning Deep Representations of Fine-grained Visual Descriptions.
CVPR 2016. https://arxiv.org/abs/1605.05395. The text encoder of GAN-INT-CLS, StackGAN and StackGAN++.
Authors' code, in Lua: https://github.com/reedscot/cvpr2016/tree/7988b42f3c2e41b6f7dc6c9ff8020b8681581259 and
https://github.com/reedscot/icml2016/tree/db3f0c6d7c9ef3ef138cb15bf36592c7e19eb9a0. A port to PyTorch that loads their
weights: https://github.com/martinduartemore/char_cnn_rnn_pytorch/tree/f44f613d330f94f9d351060c07a848ba6df590d9

Convolutions shorten 201 letters to a few steps, a recurrent network reads these, and the mean of its states over all
steps is mapped into the space of images.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbench.core.weights import KeyMap

# The place of a letter, from 1; the hyphen stands twice, and the later place is its own.
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
LETTERS = {letter: place for place, letter in enumerate(ALPHABET, 1)}
LENGTH = 201  # letters that are read of a caption
SMALLEST = 1e-6  # activations up to here are none


def spelt(captions: Sequence[str]) -> Tensor:
    """Captions as places of letters in `ALPHABET`: (N, 201) int64, 0 behind the end; a strange letter is a space."""
    characters = torch.zeros(len(captions), LENGTH, dtype=torch.int64)
    for row, caption in zip(characters, captions, strict=True):
        places = [LETTERS.get(letter, LETTERS[" "]) for letter in caption.lower()[:LENGTH]]
        row[: len(places)] = torch.tensor(places, dtype=torch.int64)
    return characters


class RectifiedRNN(nn.Module):
    """A recurrent network of rectifiers, whose first state knows its input alone.

    Args:
        dim: of inputs and states.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.from_input = nn.Linear(dim, dim)
        self.from_state = nn.Linear(dim, dim)

    def forward(self, steps: Tensor) -> Tensor:
        """(N, L, dim) to the states (N, L, dim)."""
        inputs = self.from_input(steps).unbind(dim=1)
        states = [inputs[0].relu()]
        for step in inputs[1:]:
            states.append((step + self.from_state(states[-1])).relu())
        return torch.stack(states, dim=1)


class FirstInputGRU(nn.Module):
    """A gated recurrent network, whose first state knows its input alone; an open update gate takes the candidate.

    Args:
        dim: of inputs and states.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.from_input, self.from_state = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.update_from_input, self.update_from_state = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.reset_from_input, self.reset_from_state = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, steps: Tensor) -> Tensor:
        """(N, L, dim) to the states (N, L, dim)."""
        maps = (self.from_input, self.update_from_input, self.reset_from_input)
        inputs, updates, resets = (map_(steps).unbind(dim=1) for map_ in maps)
        states = [inputs[0].tanh()]
        for step, to_update, to_reset in zip(inputs[1:], updates[1:], resets[1:], strict=True):
            state = states[-1]
            update = (to_update + self.update_from_state(state)).sigmoid()
            reset = (to_reset + self.reset_from_state(state)).sigmoid()
            candidate = (step + self.from_state(reset * state)).tanh()
            states.append(torch.lerp(state, candidate, update))
        return torch.stack(states, dim=1)


def _released(steps: Mapping[int, str]) -> KeyMap:
    """From the places of modules in the authors' files, whose recurrent networks have copies for each step.

    Args:
        steps: place of a layer among those copies, where it comes first, to our name.
    """
    own, places = r"(?:protos\.enc_doc\.)?", "|".join(map(str, steps))
    return KeyMap(
        drop={
            r"protos\.enc_image\..*": "features of images pass it as they are",
            rf"{own}4\.(?!(?:{places})\.).*": "the same layers at later steps",
        },
        rename={
            **{rf"{own}2\.{3 * n + 1}\.(.*)": rf"convolutions.{n}.\1" for n in range(3)},
            **{rf"{own}4\.{place}\.1\.(.*)": rf"recurrent.{name}.\1" for place, name in steps.items()},
            rf"{own}6\.(.*)": r"project.\1",
        },
        convert={r"convolutions\.\d\.weight": _by_channels},
    )


def _by_channels(weight: Tensor) -> Tensor:
    """Torch's weight of a convolution over time, (out, 4 * in), as PyTorch's, (out, in, 4)."""
    return weight.unflatten(1, (4, -1)).mT


class CharCNNGRU(nn.Module):
    """Three convolutions and a gated recurrent network over 18 steps: the birds' encoder of GAN-INT-CLS and StackGAN.

    Args:
        widths: channels of the convolutions, (384, 512, 512).
        embedding_dim: of the vector, 1024.

    Attributes:
        released: how the authors' keys become ours.
    """

    recurrence: type[nn.Module] = FirstInputGRU
    # Places as in https://github.com/martinduartemore/char_cnn_rnn_pytorch/blob/f44f613d330f94f9d351060c07a848ba6df590d9/utils.py
    released: KeyMap = _released(
        {
            2: "from_input",
            5: "update_from_input",
            6: "update_from_state",
            10: "reset_from_input",
            11: "reset_from_state",
            15: "from_state",
        }
    )

    def __init__(self, widths: Sequence[int], embedding_dim: int) -> None:
        super().__init__()
        channels = (len(ALPHABET), *widths)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel_size=4) for before, after in pairwise(channels)
        )
        self.recurrent = self.recurrence(channels[-1])
        self.project = nn.Linear(channels[-1], embedding_dim)

    def forward(self, characters: Tensor) -> Tensor:
        """(N, 201) int64, as `spelt` gives them, to (N, embedding_dim)."""
        hidden = one_hot(characters).to(self.project.weight.dtype)  # (N, 70, 201)
        *pooled, last = self.convolutions
        for convolution in pooled:
            hidden = F.max_pool1d(_thresholded(convolution(hidden)), 3)
        hidden = self.shortened(_thresholded(last(hidden)))
        return self.project(self.recurrent(hidden.mT).mean(dim=1))

    def shortened(self, hidden: Tensor) -> Tensor:
        """What is read of the last features (N, C, 18): all."""
        return hidden


class CharCNNRNN(CharCNNGRU):
    """Eight steps, read by rectifiers: the encoders of CVPR 2016, and GAN-INT-CLS's of flowers.

    Args:
        widths: (384, 512, 256) in CVPR 2016.
        embedding_dim: as of `CharCNNGRU`.
    """

    recurrence = RectifiedRNN
    released = _released({2: "from_input", 6: "from_state"})

    def shortened(self, hidden: Tensor) -> Tensor:
        """The maxima of three steps, every second one: (N, C, 18) to (N, C, 8)."""
        return F.max_pool1d(hidden, 3, stride=2)


def one_hot(characters: Tensor) -> Tensor:
    """Places of letters (N, L), 0 for none, to (N, 70, L) float32."""
    return F.one_hot(characters, len(ALPHABET) + 1)[..., 1:].mT.float()


def _thresholded(x: Tensor) -> Tensor:
    return F.threshold(x, SMALLEST, 0.0)


# From the names of the port to PyTorch.
TEXT_ENCODER = KeyMap(
    rename={
        **{rf"conv{n + 1}\.(.*)": rf"convolutions.{n}.\1" for n in range(3)},
        r"rnn\.i2h_(update|reset)\.(.*)": r"recurrent.\1_from_input.\2",
        r"rnn\.h2h_(update|reset)\.(.*)": r"recurrent.\1_from_state.\2",
        r"rnn\.i2h\.(.*)": r"recurrent.from_input.\1",
        r"rnn\.h2h\.(.*)": r"recurrent.from_state.\1",
        r"emb_proj\.(.*)": r"project.\1",
    }
)
