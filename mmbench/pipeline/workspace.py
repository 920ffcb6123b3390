"""The workspace of an experiment on Weights & Biases: its runs in groups, ours beside published, pictures and table."""

from typing import Any

from mmbench.pipeline.experiments import Experiment
from mmbench.pipeline.profiling import MEMORY, SPEED

STEP = "trainer/global_step"


def workspace(experiment: Experiment, source: str, entity: str, project: str) -> Any:
    """The workspace, a `wandb_workspaces.workspaces.Workspace` that is saved nowhere yet.

    Raises:
        ValueError: the package that builds it is missing.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise ValueError(
            "expected the package wandb-workspaces, found none: pip install 'mmbench[workspaces]'"
        ) from None
    lines, bars = [], []
    for name, shown in scores(experiment, source).items():
        ours, printed = f"score/{name}", f"published/{name}"
        lines.append(panels.LinePlot(title=shown, x=STEP, y=[ours, printed], title_x="ours, and as published"))
        by_method = panels.Config("method.name")
        bars.append(panels.BarPlot(title=shown, metrics=[ours], groupby=by_method, groupby_rangefunc="stddev"))
    speed = [panels.LinePlot(title=name, x=STEP, y=[name]) for name in (SPEED, MEMORY)]
    table = [panels.WeavePanelSummaryTable(table_name="table"), panels.MediaBrowser(media_keys=["grid"])]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{experiment.name} ({source} data)",
        sections=[
            ws.Section(name="table and pictures", panels=table, is_open=True),
            ws.Section(name="scores beside published values", panels=lines, is_open=True),
            ws.Section(name="methods, mean and deviation over seeds", panels=bars, is_open=True),
            ws.Section(name="speed of training", panels=speed),
        ],
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == experiment.name],
            groupby=[ws.Metric("Group"), ws.Metric("JobType"), ws.Config("seed")],
        ),
        auto_generate_panels=True,  # of losses, whose names are those of the methods
    )


def scores(experiment: Experiment, source: str) -> dict[str, str]:
    """The scores of an experiment by their names in records, each to the words of its table."""
    found: dict[str, list[str]] = {}
    for shown in experiment.places:
        for row in experiment.rows:
            words = found.setdefault(experiment.metric(shown, row, source), [])
            if shown not in words:
                words.append(shown)
    return {name: ", ".join(words) for name, words in found.items()}


def specification(made: Any) -> dict[str, Any]:
    """What Weights & Biases would be told of a workspace, as plain values."""
    return made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def saved(made: Any) -> str:
    """Saves a workspace, of the user's own entity where it names none; returns its address.

    Raises:
        ValueError: the user has no key, or Weights & Biases refuses it or cannot be reached.
    """
    import requests
    import wandb

    try:
        if not made.entity:
            made.entity = wandb.Api().default_entity
        return made.save().url
    except (wandb.Error, requests.RequestException, ValueError) as error:
        raise ValueError(
            f"expected Weights & Biases to take the workspace, found {' '.join(str(error).split())}: check "
            "WANDB_API_KEY and the network, or print it with dry_run=true"
        ) from None
