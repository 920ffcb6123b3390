"""Says what differences a table can show."""

from mmbench.core import catalogue, command_line, config, results
from mmbench.pipeline.experiment_files import load
from mmbench.pipeline.experiments import Experiment, require_all_rows, seeds_of
from mmbench.pipeline.sheets import FORMATS, rendered

HELP = f"""usage: mmbench power experiment=NAME [data.source=toy|real] [difference=D metric=M] [key=value ...]

  metric=M               only this metric, as the table shows it
  difference=D           a difference of that metric, in its unit: how many images and seeds would show it
  seeds=0,1,2            instead of the experiment's own seeds
  format={"|".join(FORMATS)}

Says of each metric the smallest difference between two rows that the table can show, from what the records that are
there keep of their images: values by sample, or how a score of the whole set (FID, IS) varies over halves of it; paired
by image, two-sided, alpha 0.05 by Holm over all comparisons of the table, power 0.8. Reference rows and rows that did
not learn are left out.
"""


def main(arguments: list[str]) -> int:
    options = ("experiment", "data.source", "difference", "metric", "seeds", "format")
    own, rest = command_line.split_options(arguments, options)
    command_line.require_said(own)
    require_all_rows(rest)
    if "experiment" not in own:
        raise ValueError(
            f"expected experiment=NAME, found none: choose from {', '.join(catalogue.names('experiment'))}"
        )
    experiment = load(own["experiment"])
    source = own.get("data.source", experiment.sources[-1])
    experiment = experiment.on(source)
    form = own.get("format", "markdown")
    if form not in FORMATS:
        catalogue.unknown("format", form, FORMATS)
    if "metric" in own and own["metric"] not in experiment.metrics:
        catalogue.unknown("metric of this experiment", own["metric"], experiment.metrics)
    wanted = _difference(own, experiment)
    seeds = seeds_of(own.get("seeds"), rest, experiment)
    paths = config.composed(["method=identity", f"data.source={source}", *rest])["paths"]
    from mmbench.pipeline import planning  # SciPy, which no mistake above needs
    from mmbench.pipeline.cells import cells_of
    from mmbench.pipeline.comparing import compared
    from mmbench.pipeline.sampled import is_product, taking_part, varying_of_table

    held = results.by_configuration(paths["results"], experiment.name)
    cells = cells_of(experiment, source, seeds, rest, paths, held, experiment.rows)
    cells = compared(experiment, cells, paths["results"])
    values = taking_part(experiment, cells, varying_of_table(experiment, cells, paths["results"]))
    comparisons = max((cell.compared.tests for cell in cells if cell.compared), default=1)
    plans = planning.plans(values, comparisons, own.get("metric"), wanted)
    known = {metric for (_, metric), methods in values.items() if len(methods) > 1}
    if "metric" in own and known and own["metric"] not in known:
        raise ValueError(
            f"expected a metric of which two rows keep how it varies with the images, found {own['metric']}: choose "
            f"from {', '.join(sorted(known))}, or evaluate again"
        )
    if not plans and (num_compared := sum(not row.reference for row in experiment.rows)) < 2:
        raise ValueError(
            f"expected an experiment with two rows that are compared, found {num_compared} in {experiment.name} beside "
            "its references: choose another"
        )
    if not plans:
        raise ValueError(
            f"expected two rows of {experiment.name} with values by sample of {own.get('metric', 'a metric')}, found "
            f"none: run mmbench reproduce experiment={experiment.name} data.source={source}"
        )
    products = dict.fromkeys(cell.metric for cell in cells if is_product(experiment, cell))
    under = planning.explained(comparisons, plans, [*products])
    planned = {plan.metric for plan in plans}
    if "metric" not in own and (others := [metric for metric in experiment.metrics if metric not in planned]):
        under.append(
            f"Not known of two rows how it varies with the same images, and so not planned: {', '.join(others)}."
        )
    print(rendered(planning.texts(plans), form, planning.RIGHT, under), end="")
    if form == "markdown":
        print("\n".join(["", *under, ""]))
        more = ",".join(map(str, [*seeds, max(seeds) + 1]))
        print(f"next: mmbench reproduce experiment={experiment.name} data.source={source} seeds={more}")
    return 0


def _difference(own: dict[str, str], experiment: Experiment) -> float | None:
    """The difference that is to be shown; one of several metrics, which have units of their own, needs its metric."""
    if "difference" not in own:
        return None
    try:
        wanted = abs(float(own["difference"]))
    except ValueError:
        wanted = 0.0
    if not 0 < wanted < float("inf"):
        raise ValueError(f"expected difference=D, a number other than 0, found {own['difference']!r}: correct it")
    if "metric" not in own and len(experiment.metrics) > 1:
        raise ValueError(
            f"expected metric=M beside difference=, whose unit is that of one metric, found none: choose from "
            f"{', '.join(experiment.metrics)}"
        )
    return wanted
