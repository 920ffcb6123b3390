"""The base of methods that train several networks against each other."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmbench.core.method import Method
from mmbench.core.noise import random_stream

OptimizerPartial = Callable[[Iterable[nn.Parameter]], Optimizer]


class Adversarial(Method):
    """A method with one optimiser for each of several submodules, stepped by hand in the order of its paper.

    There is no shared `training_step`: each paper writes its own few lines with `minimise` and `held`.

    Args:
        optimizers: submodule name to a partial of an optimiser that lacks its parameters.
        seed: of everything random in training. All of it, dropout included, derives from (seed, epoch, step), so that a
            run that was stopped and resumed ends with the same weights as one that was not.
    """

    def __init__(self, optimizers: Mapping[str, OptimizerPartial], seed: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.partials = dict(optimizers)
        self.seed = seed
        self.order = list(self.partials)

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimiser for each entry of `optimizers`, over the parameters of its submodule that take gradients.

        Raises:
            ValueError: a name is no submodule.
        """
        for name in self.order:
            if not isinstance(getattr(self, name, None), nn.Module):
                valid = ", ".join(child for child, _ in self.named_children())
                raise ValueError(f"expected optimizers named as submodules, found {name!r}: choose from {valid}")
        return [
            self.partials[name]([p for p in self.get_submodule(name).parameters() if p.requires_grad])
            for name in self.order
        ]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        key = (self.seed, self.current_epoch, batch_idx, self.global_rank, "step")
        torch.manual_seed(int(random_stream(*key).integers(2**63)))

    def minimise(self, name: str, terms: Mapping[str, Tensor]) -> None:
        """One step of the optimiser of submodule `name` on the sum of the terms; logs each term as `name/term`.

        Raises:
            ValueError: a term is NaN or infinite; names step, term and the last good checkpoint. Nothing was stepped.
        """
        for term, value in terms.items():
            if not torch.isfinite(value):
                raise ValueError(self._diverged(name, term, value))
        optimizers = self.optimizers()
        optimizer = optimizers[self.order.index(name)] if isinstance(optimizers, list) else optimizers
        optimizer.zero_grad()
        self.manual_backward(torch.stack(list(terms.values())).sum())
        optimizer.step()
        self.log_dict(
            {f"{name}/{term}": value.detach() for term, value in terms.items()},
            on_step=False,
            on_epoch=True,
            batch_size=1,
        )

    def _diverged(self, name: str, term: str, value: Tensor) -> str:
        callback = self.trainer.checkpoint_callback
        checkpoint = getattr(callback, "last_model_path", "") or "none yet"
        return (
            f"expected finite losses, found {term} of {name} to be {float(value)} in epoch {self.current_epoch}, step "
            f"{self.trainer.fit_loop.epoch_loop.batch_idx}: lower the learning rate; last good checkpoint: {checkpoint}"
        )

    @contextmanager
    def held(self, *modules: nn.Module) -> Iterator[None]:
        """Inside, gradients flow through the modules but not into their parameters: others are stepped."""
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)
