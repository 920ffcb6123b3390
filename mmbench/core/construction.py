"""What a node of a configuration builds: Hydra's `instantiate`, with errors as they are."""

import re
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate


def target(described: Mapping[str, Any]) -> Any:
    """The class that a node builds."""
    return get_class(described["_target_"])


def construct(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Hydra's `instantiate`, but objects are handed on, and errors of the target raised, as they are.

    Raises:
        ValueError: whatever the target raises; MissingAsset among them; it has no argument of such a name.
    """
    try:
        # As a partial, so that Hydra does not turn the given objects (data classes, say) into configuration.
        return instantiate(node, _partial_=True)(**arguments)
    except (InstantiationException, TypeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ValueError | TypeError):
            cause = cause.__cause__
        if isinstance(cause, ValueError):
            raise cause from None
        if cause and (stranger := re.search(r"unexpected keyword argument '(\w+)'", str(cause))):
            raise ValueError(
                f"expected arguments that {node['_target_']} has, found {stranger[1]!r}: leave it out, or correct its "
                "name"
            ) from None
        raise
