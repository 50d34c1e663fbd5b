"""Every file of a campaign's folder has one name, in one place."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from atomsets_core.campaigns import layout
from atomsets_core.models import file_names

ROOT = Path(__file__).resolve().parents[3]

NAMES = (
    *layout.OUTPUTS,
    *layout.MODEL_FILES,
    layout.ASKED,
    layout.PROGRESS,
    layout.STANDING,
    layout.CARD,
    layout.CHECKPOINT,
    layout.PAGES,
    *(name.rpartition("/")[2] for name in (layout.LABELLED, layout.CONFRONTED, layout.REGISTRY)),
)
"""That are the same in every campaign."""

FOLDERS = ("structures/", "models/", "discovery/", "predictions/", "duels/", "history/")
"""Whose files are named after keys: what begins so is the name of one of them."""

WHERE = {
    **dict.fromkeys((*NAMES, *FOLDERS), "atomsets_core/campaigns/layout.py"),
    **dict.fromkeys((file_names.ARRAYS, file_names.CONFIG), "atomsets_core/models/file_names.py"),
}

ELSEWHERE = {("models/", "flows/commands/train.py")}
"""Where `atomsets train` puts a model by default, which belongs to no campaign."""

KEY = "0123456789abcdef"


def names_in(text: str) -> Iterator[str]:
    """The strings of a file that may be names of files.

    A docstring stands by itself as a statement; a message to people has blanks in it. What is left over after these is
    a name, or a part of one. What is put into an f-string counts as one character.
    """
    tree = ast.parse(text)
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in told or id(node) in inside:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values]
            string = "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            string = node.value
        else:
            continue
        if not re.search(r"\s", string):
            yield string.replace("\\.", ".")


def spelled(text: str) -> set[str]:
    """Which of the names a file spells."""
    plain = text.replace("\\.", ".")
    names, folders = ([name for name in some if name in plain] for some in (NAMES, FOLDERS))
    found = set()
    for string in names_in(text) if names or folders else ():
        found |= {name for name in names if re.search(rf"(^|[/*|(]){re.escape(name)}($|[/|)])", string)}
        found |= {folder for folder in folders if string.startswith(folder)}
    return found


def test_every_name_is_spelled_in_one_file():
    files = defaultdict(set)
    for folder in ("atomsets_core", "tasks", "flows"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            for name in spelled(path.read_text()):
                if (name, file) not in ELSEWHERE:
                    files[name].add(file)
    assert {name: found for name, found in files.items() if found != {WHERE[name]}} == {}
    # Two of the folders have a constant of their own, of which the names in them are made.
    assert set(WHERE) - set(files) == {"models/", "history/"}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ('store.read_json("summary.json")', {"summary.json"}),
        ('store.read_table(f"{folder}/out_of_fold.parquet")', {"out_of_fold.parquet"}),
        ('OUTPUTS = ("ranking.csv", "report.html")', {"ranking.csv", "report.html"}),
        ('name = f"predictions/{model}/{key}.parquet"', {"predictions/"}),
        (r'_RESULT = re.compile(r"models/[0-9a-f]{16}/(model\.json|model\.safetensors)")',
         {"models/", "model.json", "model.safetensors"}),
        ('def f():\n    """Write summary.json."""\n    A = 1\n    """summary.json"""', set()),
        ('fail(2, f"{folder}/out_of_fold.parquet was changed: start anew")', set()),
        ('raw["model"]["features"]; store.names("queue"); "structures.parquet"', set()),
    ],
)  # fmt: skip
def test_names_are_told_from_docstrings_and_messages(code, names):
    assert spelled(code) == names


def test_every_name_of_a_campaign_is_known():
    model = layout.model_folder(KEY)
    for name in (
        *layout.OUTPUTS,
        *layout.STRUCTURES,
        *layout.model_files(model),
        f"{model}/{layout.CARD}",
        f"{model}/{layout.CHECKPOINT}",
        f"{layout.PAGES}/{KEY}/page-000001.parquet",
        layout.ahead_name("candidates"),
        layout.queue_name("training"),
        layout.discovery_name(KEY, 12),
        layout.predictions_name(model, 2 * KEY),
        layout.duel_name(KEY, KEY),
        layout.duel_name(KEY, KEY, "folds"),
        layout.duel_name(KEY, KEY, "seed-3"),
        layout.ranking_name(7),
        layout.record_name(123456),
        f"checksums/{layout.SUMMARY}.sha256",
    ):
        assert layout.is_known(name), name
    for name in (
        "notes.txt",
        "summary.csv",
        "models/mine/model.json",
        "history/run.json",
        "checksums/notes.txt.sha256",
    ):
        assert not layout.is_known(name), name


def test_what_is_sealed_and_what_passes():
    model = layout.model_folder(KEY)
    assert all(map(layout.is_result, layout.model_files(model)))
    assert layout.is_result(layout.discovery_name(KEY, 0))
    assert layout.is_result(layout.predictions_name(model, 2 * KEY))
    assert not layout.is_result(f"{model}/{layout.CARD}")
    assert not layout.is_result(layout.REGISTRY)
    assert layout.is_passing(layout.queue_name("candidates"))
    assert layout.is_passing(f"{model}/.model.json.0123abcd.tmp")
    assert not layout.is_passing(layout.SUMMARY)


def test_names_of_campaigns_that_were_are_found():
    """A name that changes would have every campaign done again."""
    assert layout.OUTPUTS == (
        "ranking.parquet", "ranking.csv", "failures.parquet", "summary.json", "evidence.json", "map.parquet",
        "report.html", "changes.json",
    )  # fmt: skip
    assert layout.STRUCTURES == (
        "structures/training.parquet", "structures/training.json", "structures/candidates.parquet",
        "structures/candidates.json", "structures/labelled.parquet",
    )  # fmt: skip
    model = layout.model_folder(KEY)
    assert layout.model_files(model) == [
        f"models/{KEY}/{name}" for name in ("model.json", "model.safetensors", "out_of_fold.parquet")
    ]
    assert layout.predictions_name(model, "k") == f"predictions/{KEY}/k.parquet"
    assert layout.discovery_name(KEY, 1) == f"discovery/{KEY}-seed-1.json"
    assert layout.duel_name("a", "b") == "duels/a-against-b.json"
    assert layout.duel_name("a", "b", "seed-2") == "duels/a-against-b-seed-2.json"
    assert (layout.ranking_name(3), layout.record_name(3)) == (
        "history/ranking-00003.parquet",
        "history/run-00003.json",
    )
