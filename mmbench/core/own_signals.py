"""Lightning's trainers under this project's handlers of signals."""

import signal
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from mmbench.core import interrupts


class OwnSignals(Callback):
    """Keeps the handler of SIGTERM that was there: Lightning's swallows it, and in a prediction does nothing else.

    The processes that a distributed run has started end where this one is interrupted.
    """

    def setup(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)
        interrupts.end_with_us(getattr(trainer.strategy.launcher, "procs", []))

    def on_train_start(self, *_: Any) -> None:
        signal.signal(signal.SIGTERM, self.handler)

    on_predict_start = on_train_start  # type: ignore[assignment]
