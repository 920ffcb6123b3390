"""mmbench: reproduce, compare and extend published results in multimodal image synthesis and editing."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "0.1.0"


class _BeforeTorchvision(MetaPathFinder):
    """Prepares the import of torchvision by any library, when it happens: see `core/torchvision_schema.py`.

    Not at once, since that imports torch, which `mmbench --help` does without.
    """

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import mmbench.core.torchvision_schema  # noqa: F401
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
