"""The base of methods that train several networks against each other."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim import Optimizer

from mmbench.core.method import Method

OptimizerPartial = Callable[[Iterable[nn.Parameter]], Optimizer]


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

    def minimise(self, name: str, terms: Mapping[str, Tensor]) -> None:
        """One step of the optimiser of submodule `name` on the sum of the terms; logs each term as `name/term`.

        Raises:
            ValueError: a term is NaN or infinite; nothing was stepped.
        """
        loss = self.total(name, terms)
        optimizers = self.optimizers()
        optimizer = optimizers[self.order.index(name)] if isinstance(optimizers, list) else optimizers
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

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
