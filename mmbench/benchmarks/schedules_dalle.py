"""DALL-E's schedule, after the training loop of the re-implementation.

Every place of the sequence gets logits of all words and all codes, of which those of the other kind are filled with the
least number there is. Attention has a whole matrix of scores, and another of what may be seen for each layer; the shift
of tokens pads and cuts. Codes come from the autoencoder anew in every step, as ours do. Layers look everywhere before,
as by default. Left out: reading the loss off at every step, and the image that each hundredth step draws.
https://github.com/lucidrains/DALLE-pytorch/blob/58c1e1a/dalle_pytorch/dalle_pytorch.py#L570
https://github.com/lucidrains/DALLE-pytorch/blob/58c1e1a/train_dalle.py#L587
"""

from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from mmbench.benchmarks.schedules import Losses, Theirs, only_optimizer
from mmbench.core.method import Batch
from mmbench.layers.token_shift import TokenShift
from mmbench.methods.synthesis.dalle import DALLE


def least(x: Tensor) -> float:
    return -torch.finfo(x.dtype).max


def causal_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor) -> Tensor:
    """(N, heads, L, D) each; that tokens look back, and everywhere, is known without the mask."""
    scores = torch.einsum("nhid, nhjd -> nhij", query * query.shape[-1] ** -0.5, key)
    hidden = torch.ones(scores.shape[-2:], device=scores.device).triu_(1).bool()
    scores.masked_fill_(hidden, least(scores))
    return torch.einsum("nhij, nhjd -> nhid", scores.softmax(dim=-1), value)


def shifted(text_length: int, side: int, x: Tensor, history: None) -> Tensor:
    """Tokens (N, L, D), of which the last code is missing: half of a word's channels from the word before, a fourth of
    a code's from above and a fourth from the left.
    """
    text, codes = x[:, :text_length], x[:, text_length:]
    missing = side**2 - codes.shape[1]
    codes = F.pad(codes, (0, 0, 0, missing)).unflatten(1, (side, side))
    before, same = text.chunk(2, dim=-1)
    text = torch.cat((F.pad(before, (0, 0, 1, -1)), same), dim=-1)
    above, left, *rest = codes.chunk(4, dim=-1)
    left, above = F.pad(left, (0, 0, 1, -1)), F.pad(above, (0, 0, 0, 0, 1, -1))
    codes = torch.cat((above, left, *rest), dim=-1).flatten(1, 2)
    return torch.cat((text, codes[:, :-missing]), dim=1)


class TheirsDALLE(Theirs):
    method: DALLE

    def __init__(self, method: DALLE) -> None:
        super().__init__(method)
        network = method.network
        text_length = network.max_words
        for module in network.modules():
            if isinstance(module, TokenShift):
                module.forward = partial(shifted, text_length + 1, network.side)  # type: ignore[method-assign]
        word_place = torch.arange(text_length + network.side**2)[:, None] < text_length
        word = torch.arange(network.logits.out_features) < network.num_text_tokens
        self.of_other_kind = (word_place != word).to(method.device)
        self.optimizer = only_optimizer(method)

    def step(self, batch: Batch) -> Losses:
        with patch.object(F, "scaled_dot_product_attention", causal_attention):
            terms = self.terms(batch)
            sum(terms.values()).backward()
        clip_grad_norm_(self.method.parameters(), self.method.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return terms

    def terms(self, batch: Batch) -> Losses:
        method, network = self.method, self.method.network
        text, codes = method.shown_tokens(batch), method.codes(batch["image"])
        tokens = torch.cat((network.embedded_text(text), network.embedded_codes(codes)), dim=1)[:, :-1]
        logits = network.logits(network.read(tokens))  # (N, L, words and codes)
        logits.masked_fill_(self.of_other_kind, least(logits))
        logits = logits.mT
        targets = torch.cat((network.word_targets(text), codes + network.num_text_tokens), dim=1)
        split, weight = method.max_words, method.lambda_image
        words = F.cross_entropy(logits[:, :, :split], targets[:, :split])
        pictures = F.cross_entropy(logits[:, :, split:], targets[:, split:])
        return {"dalle/L_text": words / (weight + 1), "dalle/L_image": weight * pictures / (weight + 1)}
