"""Files of prompts."""

import json
from pathlib import Path


def read_prompts(path: str | Path) -> list[str]:
    """Prompts of a file: one in each line, or a JSON list where its name ends in .json. Empty lines are none.

    Raises:
        ValueError: there is no such file, it is not UTF-8, no list of texts, or has no prompt.
    """
    wanted = f"{path}: expected prompts in UTF-8, one in each line, or a JSON list of texts in .json"
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8-sig")
        lines = json.loads(text) if Path(path).suffix == ".json" else text.replace("\r\n", "\n").split("\n")
    except OSError as error:
        raise ValueError(f"{wanted}, found no file that can be read ({error.strerror}): correct the path") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{wanted}, found byte {error.object[error.start]:#04x} at {error.start}: save it as UTF-8"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{wanted}, found no JSON ({error}): correct the file") from None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"{wanted}, found another JSON value: correct the file")
    prompts = [line.strip() for line in lines if line.strip()]
    if halves := [prompt for prompt in prompts if any("\ud800" <= letter <= "\udfff" for letter in prompt)]:
        raise ValueError(f"{wanted}, found half a character in {halves[0]!r}: correct the file")
    if not prompts:
        raise ValueError(f"{wanted}, found none: add one")
    return prompts
