"""The base of methods that train several networks against each other."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from mmbench.core.ema import EMA
from mmbench.core.learner import OptimizerPartial
from mmbench.core.method import Method


class Adversarial(Method):
    """A method with one optimiser for each of several submodules, stepped by hand in the order of its paper.

    There is no shared `training_step`: each paper writes its own few lines with `minimise` and `held`.

    Args:
        optimizers: submodule name to a partial of an optimiser that lacks its parameters.
    """

    def __init__(self, optimizers: Mapping[str, OptimizerPartial]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.partials = dict(optimizers)
        self.order = list(self.partials)
        self.gradient_clip: float | None = None

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimiser for each entry of `optimizers`, over the parameters of its submodule that take gradients.

        Raises:
            ValueError: a name is no submodule.
        """
        children = dict(self.named_children())
        for name in self.order:
            if name not in children:
                raise ValueError(f"expected optimizers named as submodules, found {name!r}: of {', '.join(children)}")
        return [
            self.partials[name]([p for p in self.get_submodule(name).parameters() if p.requires_grad])
            for name in self.order
        ]

    def minimise(
        self, names: str | Sequence[str], terms: Mapping[str, Tensor], gradient_clip: float | None = None
    ) -> None:
        """One step of the optimisers of submodules on the sum of the terms; logs each term as `name/term`.

        Where a batch is cut into parts, gradients are averaged over them, and the last part makes the step; until then
        the other networks see this one as it was.

        Args:
            names: one submodule or several; terms of several are logged as `name+name/term`.
            terms: scalars.
            gradient_clip: largest norm of each submodule's gradient; None: it stays as it is.

        Raises:
            ValueError: a term is NaN or infinite; nothing was stepped.
        """
        names = [names] if isinstance(names, str) else names
        loss = self.total("+".join(names), terms)
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        stepped = [optimizers[self.order.index(name)] for name in names]
        if self.first_part:
            with self.timed("optimizer_zero_grad"):
                for optimizer in stepped:
                    optimizer.zero_grad()
        self.manual_backward(loss / self.accumulate)
        self.gradient_clip = gradient_clip
        if self.last_part:
            for optimizer in stepped:
                optimizer.step()

    def follow(self, average: EMA, network: nn.Module) -> None:
        """A moving average takes in its network, once its optimiser has been stepped."""
        if self.last_part:
            with self.timed("average"):
                average.update(network)

    def timed(self, action: str) -> AbstractContextManager[Any]:
        """Inside is an action of its own to the trainer's profiler."""
        return self.trainer.profiler.profile(action)  # type: ignore[attr-defined]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Here, since gradients of float16 are at their own scale no earlier.
        if self.gradient_clip is not None:
            self.clip_gradients(optimizer, self.gradient_clip, "norm")

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
