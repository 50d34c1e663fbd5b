"""The few pieces of HTML that are made outside the template; everything from data is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from markupsafe import Markup, escape

MATERIALS_PROJECT_ID = re.compile(r"mp-[0-9a-z]+")
DOI = re.compile(r"10\.[0-9]{4,9}/\S+")
SMALL = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
SUBSCRIPT = re.compile(r"(?<=[A-Za-z)\]])([0-9]+(?:\.[0-9]+)?)")


def formula(text: str) -> Markup:
    """A formula with its numbers as subscripts."""
    parts = SUBSCRIPT.split(str(text))
    return Markup("").join(
        Markup("<sub>{}</sub>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def small_digits(text: str) -> str:
    """A formula in plain text, its numbers as the subscript digits of Unicode."""
    return SUBSCRIPT.sub(lambda match: match[0].translate(SMALL), text)


def material(name: str) -> Markup:
    """An identifier, linked to its page where it is one of the Materials Project."""
    if not MATERIALS_PROJECT_ID.fullmatch(str(name)):
        return escape(str(name))
    return _link(f"https://next-gen.materialsproject.org/materials/{name}", str(name))


def citation(source: Mapping[str, object]) -> Markup:
    """A reference: citation and DOI, linked where it looks like one."""
    text, doi = str(source.get("citation") or ""), str(source.get("doi") or "")
    parts = [escape(text)] if text else []
    if doi:
        parts.append(
            _link(f"https://doi.org/{quote(doi, safe='/')}", f"doi:{doi}") if DOI.fullmatch(doi) else escape(doi)
        )
    return Markup(", ").join(parts)


def script_json(text: str) -> Markup:
    """JSON in which nothing can end the script element it stands in."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  # no markup left in it


def _link(url: str, text: str) -> Markup:
    return Markup('<a href="{}" rel="noopener noreferrer">{}</a>').format(url, text)
