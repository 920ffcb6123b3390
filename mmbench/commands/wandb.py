"""Builds the workspace of an experiment on Weights & Biases."""

import json

from mmbench.core import catalogue, command_line
from mmbench.pipeline.experiment_files import load

HELP = """usage: mmbench wandb experiment=NAME [data.source=real|toy] [entity=NAME] [project=NAME] [dry_run=true]

Saves a workspace for what `mmbench reproduce experiment=NAME logger=wandb` has sent to Weights & Biases: its runs by
experiment, job type and seed, each score beside its published value, the methods, the table, pictures and speed.
It is built by the package wandb-workspaces: pip install 'mmbench[workspaces]'.

  entity     user or team that the project belongs to (default: your own)
  project    default: mmbench
  dry_run    true prints the workspace as JSON, and needs no account
"""
OPTIONS = ("experiment", "data.source", "entity", "project", "dry_run")


def main(arguments: list[str]) -> int:
    own, rest = command_line.split_options(arguments, OPTIONS)
    command_line.require_said(own)
    if rest:
        catalogue.unknown("option", rest[0].partition("=")[0], OPTIONS)
    if "experiment" not in own:
        known = ", ".join(catalogue.names("experiment"))
        raise ValueError(f"expected experiment=NAME, found none: choose from {known}")
    if own.get("dry_run", "false") not in ("true", "false"):
        raise ValueError(f"expected dry_run=true or false, found {own['dry_run']!r}: choose one")
    experiment = load(own["experiment"])
    source = own.get("data.source", experiment.sources[0])
    experiment = experiment.on(source)
    from mmbench.pipeline.workspace import (
        saved,
        specification,
        workspace,
    )  # and torch, which no mistake in a word needs

    made = workspace(experiment, source, own.get("entity", ""), own.get("project", "mmbench"))
    if own.get("dry_run") == "true":
        print(json.dumps(specification(made), indent=1))
        return 0
    print(f"workspace: {saved(made)}\nnext: open it, or mmbench reproduce experiment={experiment.name} logger=wandb")
    return 0
