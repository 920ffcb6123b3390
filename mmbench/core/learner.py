"""The base of methods that minimise one loss."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from mmbench.core.ema import EMA
from mmbench.core.method import Batch, Method
from mmbench.core.schedules import Schedule, set_learning_rates

OptimizerPartial = Callable[[Iterable[nn.Parameter]], Optimizer]


class Learner(Method):
    """A method with one optimiser, over everything in it that takes gradients, and a loss that is a sum of terms.

    Args:
        optimizer: partial of an optimiser that lacks its parameters.
        gradient_clip: largest norm of the gradient of what `clipped` names.
        schedule: of the learning rate; None: it stays.
    """

    def __init__(
        self, optimizer: OptimizerPartial, gradient_clip: float | None = None, schedule: Schedule | None = None
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.gradient_clip = gradient_clip
        self.schedule = schedule

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: scalars that are added up, by the names that they are logged under."""
        raise NotImplementedError

    def clipped(self) -> Iterable[nn.Parameter]:
        """The parameters whose gradient is clipped."""
        return self.parameters()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.total(type(self).__name__.lower(), self.terms(batch))

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])

    def on_train_epoch_start(self) -> None:
        if self.schedule:
            set_learning_rates([self.optimizers()], self.schedule, self.current_epoch)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.gradient_clip is not None:
            clip_grad_norm_(self.clipped(), self.gradient_clip)


class AveragedLearner(Learner):
    """A learner whose images are made by the moving average of a network, `ema`, which follows each step.

    Args:
        optimizer: as of `Learner`.
        network: what is averaged; `followed` says where the method has it.
        decay: as of `EMA`.
    """

    def __init__(self, optimizer: OptimizerPartial, network: nn.Module, decay: float) -> None:
        super().__init__(optimizer)
        self.ema = EMA(network, decay)

    @property
    def followed(self) -> nn.Module:
        """The network that is trained."""
        raise NotImplementedError

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.followed)
