"""A small experiment: what its file and the published numbers say."""

WORDS = ["data.toy_images=40"]
EVIL = "<script>alert('claimed')</script> & \"quoted\""
LINT = f"""# Printed numbers

## Findings

| rule | rows |
|:--|--:|
| {EVIL} | 3 |
"""

CSV = """paper,table,method,variant,dataset,metric,value,uncertainty,higher_is_better,protocol,confidence
Small,one,identity,,toy CUB,edit accuracy,0.05,,true,as here,read
Small,one,identity,,toy CUB,preservation,1.0,,true,as here,read
Small,one,real,,toy CUB,edit accuracy,1.0,,true,as here,read
Small,one,real,,toy CUB,preservation,0.5,,true,as here,read
Small,one,nobody,,toy CUB,edit accuracy,0.7,,true,as here,read
Small,users,identity,,toy CUB,user rank,1.5,,false,as here,read
"""


def experiment() -> dict:
    """The experiment as its file says it; its columns are places on an axis, so that it has curves."""
    metrics = {"edit accuracy": "edit_accuracy", "preservation": "preservation"}
    return {
        "citation": f"Nobody: {EVIL}. 2020. https://example.org/paper",
        "published": "small",
        "select": {"paper": "Small"},
        "columns": {
            "at 1": {"protocol": "strict", "published": {"table": "one"}, "metrics": metrics},
            "at 2": {"protocol": "strict protocol.seed=1", "metrics": metrics, "published": {"table": "none"}},
        },
        "curve": {"x": "place", "metrics": {"edit accuracy": "edit accuracy", "preservation": "preservation"}},
        "tolerance": {"relative": 0.02, "absolute": {}},
        "listed": {"user study": {"table": "users"}},
        "sources": ["toy"],
        "notes": [EVIL],
        "judged": {"metrics": ["preservation at 1"], "by": ["edit accuracy at 1"]},
        "claims": [
            {"text": "What is returned is kept", "where": "Section 1", "rows": ["identity", "real"],
             "metrics": ["preservation at 1"]},
            {"text": f"Another picture keeps more {EVIL}", "where": "Section 2", "rows": ["real", "identity"],
             "metrics": ["preservation at 1"]},
            {"text": "Nobody edits better", "where": "Section 3", "rows": ["nobody", "real"],
             "metrics": ["edit accuracy at 1"]},
        ],
        "rows": [
            {"method": "identity", "data": "cub", "published": {"method": "identity", "dataset": "toy CUB"}},
            {"method": "real", "data": "cub", "published": {"method": "real", "dataset": "toy CUB"}},
            {"method": "nobody", "data": "cub", "published": {"method": "nobody", "dataset": "toy CUB"}},
        ],
    }  # fmt: skip
