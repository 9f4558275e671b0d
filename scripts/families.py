"""The families of variants in the order in which reports show them, each with a colour on light and on dark ground."""
import json
from pathlib import Path

TOLD = json.loads((Path(__file__).resolve().parent / "page" / "families.json").read_text())


def colours(families):
    """{family: [on light, on dark]} of these, in order; those that families.json does not name come last, in spare colours."""
    named = [family for family in TOLD["families"] if family in families]
    others = sorted(set(families) - set(named))
    spare = TOLD["spare"]
    return {**{family: TOLD["families"][family] for family in named},
            **{family: spare[i % len(spare)] for i, family in enumerate(others)}}
