"""Hooks of the documentation site: pages made from the code, and links that leave the documentation.

The pages for the command line and the campaign file are written here from the same objects that are run, so that they
can't tell something else; the page of results is written from the files in benchmarks/results.
"""

from __future__ import annotations

import json
import re
import sys
import typing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages that are made from the code."""
    from mkdocs.structure.files import File

    for name, content in (
        ("reference/cli.md", command_line()),
        ("reference/campaign.md", campaign_file()),
        ("results.md", results()),
    ):
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """A link to a file of the repository becomes its path: the site may stand anywhere."""
    docs = Path(config["docs_dir"])

    def replace(match: re.Match[str]) -> str:
        target = (docs / page.file.src_uri).parent / match[2].partition("#")[0]
        inside = target.resolve()
        if inside.is_relative_to(docs) or not inside.exists():
            return match[0]
        path = str(inside.relative_to(ROOT))
        return f"`{path}`" if match[1].strip("`").endswith(path.rpartition("/")[2]) else f"{match[1]} (`{path}`)"

    return OUTSIDE.sub(replace, markdown)


def command_line() -> str:
    """Every command with its help, arguments and options."""
    import typer

    from atomsets_flows.cli import app

    group = typer.main.get_command(app)
    out = [
        "# Command line",
        "",
        "Progress and messages go to stderr. Exit 0: done; 1: the run failed; 2: the request was wrong, and the "
        "message says what to change. `--json` prints one JSON object as the last line of stdout. "
        "`atomsets --install-completion` makes the shell complete commands and options.",
        "",
    ]
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        text, _, examples = (command.help or "").partition("Examples:")
        arguments = " ".join(
            (p.metavar or p.name or "").upper() if p.required else f"[{(p.metavar or p.name or '').upper()}]"
            for p in command.params
            if p.param_type_name == "argument"
        )
        out += [f"## atomsets {name}", "", f"    atomsets {name} {arguments}".rstrip(), "", _clean(text), ""]
        if examples.strip():
            out += ["```sh", *(line.strip() for line in examples.strip().splitlines()), "```", ""]
        out += ["| option | meaning |", "|---|---|"]
        for parameter in command.params:
            told = ", ".join(f"`{o}`" for o in parameter.opts) if parameter.param_type_name == "option" else ""
            label = told or f"`{(parameter.name or '').upper()}`"
            default = parameter.default
            shown = (
                f" Default: `{default}`." if default not in (None, False, "", (), []) and not callable(default) else ""
            )
            out.append(f"| {label} | {_cell(getattr(parameter, 'help', '') or '')}{_cell(shown)} |")
        out.append("")
    return "\n".join(out)


def campaign_file() -> str:
    """Every option of the campaign file, from the model that reads it."""
    from atomsets_flows.campaign import Campaign

    out = [
        "# Campaign file",
        "",
        "A TOML file; `--set section.key=value` on the command line overrides any of it. A wrong key or value ends the "
        "run at once with a sentence that says what to change.",
        "",
    ]
    _section(out, "", Campaign)
    return "\n".join(out)


def _section(out: list[str], prefix: str, model: Any) -> None:
    from pydantic import BaseModel

    nested = []
    out += [f"## [{prefix}]" if prefix else "## At the top", "", _clean(model.__doc__ or ""), ""]
    rows = []
    for name, field in model.model_fields.items():
        inner = next((a for a in _types(field.annotation) if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if inner is not None and not str(field.annotation).startswith("dict"):
            nested.append((f"{prefix}.{name}".lstrip("."), inner))
            continue
        default = "needed" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
        rows.append(f"| `{name}` | {_cell(field.description or '')} | {default} |")
    if rows:
        out += ["| key | meaning | default |", "|---|---|---|", *rows, ""]
    for name, inner in nested:
        _section(out, name, inner)


def _types(annotation: Any) -> list[Any]:
    inside = [found for part in typing.get_args(annotation) for found in _types(part)]
    return [annotation, *inside]


def _plain(value: Any) -> str:
    return "none" if value is None else json.dumps(value, default=str)


def _clean(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def results() -> str:
    """What each stored result was measured with, by which command."""
    out = [
        "# Stored results",
        "",
        "Every figure of these pages comes from a file below `benchmarks/results`, written by the command beside it. "
        "This page lists what each of them says of its own making.",
        "",
        "| file | command | processor | versions | seed |",
        "|---|---|---|---|---|",
    ]
    folder = ROOT / "benchmarks" / "results"
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text())
        about = content if isinstance(content, dict) else {}
        machine = about.get("machine") or about.get("hardware") or {}
        versions = about.get("versions") or machine.get("versions", {}) if isinstance(machine, dict) else {}
        told = ", ".join(f"{k} {v}" for k, v in list(versions.items())[:4]) if isinstance(versions, dict) else ""
        processor = machine.get("processor") or machine.get("cpu") or "" if isinstance(machine, dict) else str(machine)
        command = about.get("command", "")
        command = f"`{_cell(str(command))}`" if command else ""
        seed = about.get("seed", about.get("seeds", ""))
        out.append(
            f"| `{path.relative_to(folder)}` | {command} | {_cell(str(processor))} | {told} | {_cell(str(seed))} |"
        )
    return "\n".join(out) + "\n"
