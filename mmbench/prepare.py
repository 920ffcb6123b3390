"""Fetches or makes a data set and checks it."""

from mmbench.core import config

HELP = """usage: mmbench prepare data=NAME [data.source=toy|real] [key=value ...]

Makes (toy) or checks (real) a data set below paths.assets, by default the user's cache folder or MMBENCH_HOME.
"""


def main(arguments: list[str]) -> int:
    own, rest = config.split_options(arguments, ("data",))
    if "data" not in own:
        raise ValueError(f"expected data=NAME, found none: choose from {', '.join(config.names('data'))}")
    # The root of every configuration has a method; which one does not matter to a data set.
    cfg = config.plain(config.composed(["method=identity", f"data={own['data']}", *rest]))
    data = config.construct(cfg["data"]["module"])
    data.prepare_data()
    data.setup("fit")
    for name, value in data.summary().items():
        print(f"{name}: {value}")
    print(f"next: mmbench evaluate method=identity data={own['data']} data.source={cfg['data']['source']}")
    return 0
