"""Where the user's files are by default: the folder for data and weights, and what `~` and empty variables mean."""

import os
from pathlib import Path
from typing import Any

import platformdirs
from omegaconf import OmegaConf


def default_assets() -> Path:
    """The folder for data and weights where no command line says another: `$MMBENCH_HOME`, else the user's cache."""
    return Path(at_home(_assets_folder()))


def at_home(folder: Any) -> str:
    """A folder with a leading ~, which no shell expands behind a `=`, as the home that it stands for."""
    return os.path.expanduser(str(folder))  # noqa: PTH111  (pathlib raises where there is no home, this leaves it)


def _assets_folder() -> str:
    return os.environ.get("MMBENCH_HOME") or _cache_folder()


def _cache_folder() -> str:
    """The user's folder for what can be had again.

    Raises:
        ValueError: nobody knows where this user is at home, as in a container that runs as a number.
    """
    try:
        return platformdirs.user_cache_dir("mmbench")
    except RuntimeError as error:
        raise ValueError(
            f"expected a home folder of this user, found none ({error}): set MMBENCH_HOME or HOME"
        ) from None


OmegaConf.register_new_resolver("assets_folder", _assets_folder, replace=True)
OmegaConf.register_new_resolver("at_home", at_home, replace=True)
# Unlike Hydra's oc.env, an empty variable counts as none.
OmegaConf.register_new_resolver("folder", lambda name, default: os.environ.get(name) or default, replace=True)
