"""What is said of a joint ranking, whatever kinds of goals there are."""

import pytest

from atomsets_core.report.joint.words import chance, search_sentences, sought
from atomsets_core.report.words import NONE


def summary(goals, strategies, combine="hypervolume"):
    rows = [
        {"strategy": name, "gained": gained, "gained_error": 0.01, "found": found, "found_error": 0.01}
        for name, (gained, found) in strategies.items()
    ]
    asked = [{"property": f"p{k}", "goal": goal} for k, goal in enumerate(goals)]
    return {"settings": {"objectives": asked}, "combine": combine, "together": {"n": 80, "strategies": rows}}


def test_limits_alone_have_no_front_and_no_ranking_by_one_of_them():
    told = summary(["exceed", "below"], {"hypervolume": (0.4, 0.4), "random": (0.1, 0.1)})
    assert sought(told) == "what meets all limits"
    assert search_sentences(told) == [
        "tried on 80 materials of which all values are known, one in ten looked up: this ranking finds 40% of what "
        "meets all limits, a blind choice 10%"
    ]


def test_one_direction_looks_for_the_best_tenth():
    told = summary(["maximize", "below"], {"hypervolume": (0.6, 0.5), "p0 alone": (0.3, 0.3), "random": (0.1, 0.1)})
    (said,) = search_sentences(told)
    assert said.endswith(
        "gains 60% of what there is to gain and finds 50% of the best tenth; p0 alone 30%, a blind choice 10%"
    )


def test_a_ranking_no_better_than_chance_is_called_so():
    strategies = {"hypervolume": (0.04, 0.0), "p0 alone": (0.02, 0.0), "random": (0.29, 0.1)}
    said = search_sentences(summary(["target", "maximize"], strategies))
    assert "finds 0% of the front" in said[0]
    assert said[-1] == "that is no better than a blind choice: its order says nothing"


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "100%"), (0.99997, "> 99%"), (0.5, "50%"), (0.001, "< 1%"), (0.0, "0%"), (None, NONE), (float("nan"), NONE)],
)
def test_what_is_nearly_certain_is_not_called_certain(share, said):
    assert chance(share) == said
