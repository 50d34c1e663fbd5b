"""What changed, in words and tables: the same sentences in the artifact, the report and the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atomsets_core.campaigns import KEPT, Event, Registry, short
from atomsets_core.report.words import NONE, counted, listed, minus, number, percent, scale_name

SHOWN = 15
"""Rows of a table in the artifact."""
RUNS = 12
"""Runs in the table of the history."""

Row = tuple[str, ...]


def headline(record: Mapping[str, Any]) -> str:
    """One sentence on what a run changed."""
    if record["candidates"] is None:
        return f"the first run: {counted(record['ranked'], 'candidate')} ranked, nothing to compare with"
    candidates, shortlist = record["candidates"], record["shortlist"]["counts"]
    parts = [
        f"{counted(candidates['new'], 'new candidate')}, {candidates['gone']:,} gone",
        f"{shortlist['entered']:,} entered the shortlist, {shortlist['left']:,} left it",
    ]
    known = record["confronted"]["now"]
    if known["n"]:
        how = "told apart by 0.5" if "class" in record else "inside the interval"
        parts.append(f"{counted(known['n'], 'prediction')} met a value: {known['inside']:,} {how}")
    if model_changed(record):
        parts.append(f"model {short(record['model']['before'])} was replaced by {short(record['model']['folder'])}")
    return "; ".join(parts)


def model_changed(record: Mapping[str, Any]) -> bool:
    """Whether another model predicts than in the last run."""
    before = record["model"]["before"]
    return before is not None and before != record["model"]["folder"]


def change_sentences(record: Mapping[str, Any]) -> list[str]:
    """What a reader should know about this run, a sentence or two each; the first is the headline."""
    said = [_sentence(headline(record))]
    labels = record["labels"]
    if any(labels[name] for name in ("new", "changed", "withdrawn")):
        told = [f"{labels[name]:,} {name}" for name in ("new", "changed", "withdrawn") if labels[name]]
        said.append(
            f"The model learned from {counted(labels['learned_from'], 'value')}; since then {listed(told)}. "
            "`atomsets retrain` makes a challenger of today's."
        )
    if record["duel"]:
        outcome = "took over from" if record["duel"]["promote"] else "did not take over from"
        names = (short(record["duel"][who]) for who in ("challenger", "champion"))
        said.append(f"{next(names)}, trained on today's labels, {outcome} {next(names)}: {record['duel']['why']}.")
    if model_changed(record) and record["predictions"]:
        moved = record["predictions"]
        if moved["compared"]:
            said.append(
                f"With the other model the predictions of {counted(moved['compared'], 'unchanged structure')} moved by "
                f"{number(moved['mean_absolute_shift'])} {scale_name(record)} on average "
                f"(mean {number(moved['mean_shift'])}, rank correlation {number(moved['spearman'])})."
            )
    return [*said, *drift_findings(record), *confronted_findings(record)]


def drift_findings(record: Mapping[str, Any]) -> list[str]:
    """Whether newcomers resemble the others."""
    found = record["drift"]
    if not found or not found["n_new"]:
        return []
    outside = found["outside_domain"]
    said = (
        f"{percent(outside['new'])} of {counted(found['n_new'], 'newcomer')} lie outside the applicability domain, "
        f"{percent(outside['others'])} of the others do."
    )
    if found["quantities"] is None:
        return [f"{said} They are too few for a comparison of distributions."]
    shifted = [(name, part) for name, part in found["quantities"].items() if part["shifted"]]
    if shifted:
        told = [f"{name} (index {number(part['psi'], 2)})" for name, part in shifted]
        said += f" They differ from the others in {listed(told)}: more than chance explains."
    else:
        said += " In prediction, distance to the training data and size they are like the others."
    elements = found["elements"]
    if elements["never_before"]:
        said += f" No candidate before held {listed(elements['never_before'])}."
    return [said]


def confronted_findings(record: Mapping[str, Any]) -> list[str]:
    """How predictions fared against values that came later."""
    every = record["confronted"]["all"]
    if not every["n"]:
        return []
    if "class" in record:
        return [_confronted_classes(every)]
    scale = scale_name(record)
    said = (
        f"{counted(every['n'], 'prediction')} met a value so far: {percent(every['coverage'])} of the values lie "
        f"inside their interval ({percent(record['confronted']['coverage_asked'])} asked for); the mean error is "
        f"{number(every['mae'])} {scale} (out of fold {number(every['mae_out_of_fold'])}), the bias "
        f"{number(every['bias'])}."
    )
    if every["drifted"]:
        said += (
            f" So few inside are no chance (p = {number(every['coverage_p'], 2)}): the model promises more than it "
            "holds for what is measured now. Retrain it."
        )
    elif every["drifted"] is None:
        said += " They are too few to judge by."
    return [said]


def _confronted_classes(every: Mapping[str, Any]) -> str:
    """How probabilities fared against classes that became known."""
    said = (
        f"{counted(every['n'], 'probability', 'probabilities')} met a class so far: 0.5 told "
        f"{percent(every['coverage'])} apart; the log loss is {number(every['log_loss'])} (out of fold "
        f"{number(every['log_loss_out_of_fold'])}), and the probabilities were "
        f"{number(abs(every['bias']))} too {'high' if every['bias'] > 0 else 'low'} on average."
    )
    if every["drifted"]:
        said += (
            f" So large errors are no chance (p = {number(every['coverage_p'], 2)}): the model is surer than it may be "
            "for what is measured now. Retrain it."
        )
    elif every["drifted"] is None:
        said += " They are too few to judge by."
    return said


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


MOVES = ("material", "formula", "rank", "before", "predicted", "interval", "why")
CONFRONTED = ("material", "formula", "rank", "predicted", "interval", "value", "right?")
LINES = ("run", "finished", "ranked", "new", "gone", "entered", "outside domain", "met a value", "inside", "model")


def move_rows(moves: Sequence[Mapping[str, Any]], most: int = SHOWN) -> list[Row]:
    """A list of changes as text, columns `MOVES`."""
    return [
        (
            move["material_id"],
            move["formula"],
            _rank(move["rank"]),
            _rank(move["rank_before"]),
            number(move["predicted"]),
            f"{number(move['lower'])} to {number(move['upper'])}{'' if move['in_domain'] else ', outside domain'}",
            move["why"],
        )
        for move in moves[:most]
    ]


def confronted_rows(record: Mapping[str, Any], most: int = SHOWN) -> list[Row]:
    """Predictions that met a value in this run as text, columns `CONFRONTED`."""
    return [
        (
            row["material_id"],
            row["formula"],
            _rank(row["rank"]),
            number(row["predicted"]),
            f"{number(row['lower'])} to {number(row['upper'])}",
            number(row["value"]),
            _judged(row["inside"], "class" in record),
        )
        for row in record["confronted"]["rows"][:most]
    ]


def _judged(right: bool | None, of_class: bool) -> str:
    if of_class:
        return "yes" if right else "no"
    return "no interval" if right is None else "inside" if right else "outside"


def history_rows(history: Sequence[Mapping[str, Any]], most: int = RUNS) -> list[Row]:
    """The latest runs as text, the last first, columns `LINES`."""
    return [
        (
            str(line["run"]),
            line["finished"][:16].replace("T", " "),
            f"{line['ranked']:,}",
            _count(line["new"]),
            _count(line["gone"]),
            _count(line["entered_shortlist"]),
            percent(line["outside_domain"]),
            _count(line["confronted_all"]),
            percent(line["coverage_all"]),
            short(line["model"]),
        )
        for line in reversed(history[-most:])
    ]


def markdown(record: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """The artifact."""
    unit = f" ({record['unit']})" if record["unit"] else ""
    lines = [f"# {record['campaign']}: what changed in run {record['run']}", ""]
    lines += [f"{text}\n" for text in change_sentences(record)]
    for title, moves in sections(record):
        lines += [f"## {title}", "", *_table(MOVES, move_rows(moves), unit), ""]
    if record["confronted"]["rows"]:
        lines += ["## Values that became known", "", *_table(CONFRONTED, confronted_rows(record), unit), ""]
    if len(history) > 1:
        lines += ["## Runs", "", *_table(LINES, history_rows(history)), ""]
    if record["why"]:
        lines += [f"It ran because: {_escape('; '.join(record['why'][:8]))}.", ""]
    return "\n".join(lines)


def sections(record: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Title and moves of each list of changes that isn't empty."""
    if record["shortlist"] is None:
        return []
    titles = (
        ("New on the shortlist", "shortlist", "entered"),
        ("No longer on the shortlist", "shortlist", "left"),
        ("Moved on the shortlist", "shortlist", "moved"),
        ("New among the first ten", "top", "entered"),
    )
    return [(title, record[where][what]) for title, where, what in titles if record[where][what]]


MODELS = ("", "model", "trained", "learned from", "error", "R²", "inside interval", "how it came")


def model_rows(registry: Registry, definition: str | None = None) -> list[Row]:
    """The models of a campaign as text, the latest last, columns `MODELS`; with a definition only those made for it."""
    rows: list[Row] = []
    for entry in registry.entries.values():
        if definition is not None and entry.definition != definition:
            continue
        mark = "champion" if registry.champions.get(entry.definition) == entry.folder else ""
        events = [event for event in registry.log if entry.folder in (event.model, event.other)]
        rows.append(
            (
                "set aside" if entry.set_aside else mark,
                short(entry.folder),
                entry.trained[:16].replace("T", " "),
                f"{entry.n_train:,}",
                _error(entry.scores),
                number(entry.scores.get("r2")),
                percent(entry.scores.get("coverage")),
                _came(entry.folder, events),
            )
        )
    return rows


def _error(scores: Mapping[str, Any]) -> str:
    """The out-of-fold error; of probabilities their log loss."""
    return f"log loss {number(scores['log_loss'])}" if "log_loss" in scores else number(scores.get("mae"))


def _came(folder: str, events: Sequence[Event]) -> str:
    """The last decision on a model, in words."""
    if not events:
        return "trained"
    last = events[-1]
    if last.model == folder:
        return KEPT_WORDS if last.what == KEPT else f"{last.what}, {last.at[:10]}"
    if last.what == KEPT:
        return f"turned down, {last.at[:10]}"
    return f"replaced by {short(last.model)}, {last.at[:10]}"


KEPT_WORDS = "kept its place against the last challenger"


def models_table(registry: Registry, definition: str | None = None) -> str:
    """The models of a campaign as a Markdown table."""
    return "\n".join(_table(MODELS, model_rows(registry, definition)))


def _table(header: Sequence[str], rows: Sequence[Row], unit: str = "") -> list[str]:
    named = [f"{name}{unit}" if name in ("predicted", "value") else name for name in header]
    return [
        f"| {' | '.join(named)} |",
        f"|{'---|' * len(named)}",
        *(f"| {' | '.join(_escape(cell) for cell in row)} |" for row in rows),
    ]


def _escape(text: str) -> str:
    """Text that stays text in a cell of a Markdown table."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def _rank(rank: int | None) -> str:
    return NONE if rank is None else f"{rank:,}"


def _count(n: int | None) -> str:
    return NONE if n is None else minus(f"{n:,}")
