"""Keeps off the terminal what libraries say of how mmbench uses them, which nobody who runs a command can change."""

import logging
import os
import sys
import warnings

# Greetings, banners of the hardware, advertisements. A level of their own: Lightning sets that of its root when it is
# imported.
TALKATIVE = (
    *("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero"),
    *("lightning_fabric.utilities.distributed", "lightning_fabric.utilities.seed"),
)
# Modules whose warnings are about trainers and loops, which this project makes.
ABOUT_TRAINERS = r"(pytorch_lightning|lightning_fabric)\."


def quieten() -> None:
    """Silences them, unless Python was asked for warnings (`-W`, PYTHONWARNINGS); all others are shown as ever."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of a distributed run's buckets and barriers
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=ABOUT_TRAINERS)
