"""What can be saved from the page: the shortlist as CSV, its structures as CIFs, the references as BibTeX.

All of it is in the page itself, as data URIs: it works from a file, without network and without scripts.
"""

from __future__ import annotations

import base64
import io
import re
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atomsets_core.report import methods
from atomsets_core.report.candidates.crystals import cif, conventional_cif, with_crystals
from atomsets_core.report.columns import download_columns
from atomsets_core.report.results import Results
from atomsets_core.storage import csv_text

MOST_BYTES = 600_000
"""Size of the zip of CIFs in the page at most."""

UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class Download:
    """A link that saves a file.

    Attributes:
        text: of the link.
        name: of the file.
        url: data URI.
        note: what is in it.
    """

    text: str
    name: str
    url: str
    note: str


def downloads(results: Results) -> list[Download]:
    """Every file there are data for."""
    name = safe_name(results.summary["campaign"])
    made = []
    if len(results.shortlist):
        shortlist = with_crystals(results.shortlist, results.crystals)
        table = csv_text(shortlist[download_columns(shortlist)])
        made.append(Download("Shortlist (CSV)", f"{name}-shortlist.csv", data_uri("text/csv", table.encode()), ""))
    found = [results.evidence[m] for m in results.shortlist["material_id"] if m in results.evidence]
    structures = [row for row in found if "lattice" in row]  # of formulas there are none
    if structures:
        data, kept = cif_zip(structures)
        note = "" if kept == len(structures) else f"the first {kept:,} of {len(structures):,}"
        made.append(Download("Structures (CIFs)", f"{name}-cifs.zip", data_uri("application/zip", data), note))
    text = bibtex([*methods.references(results.summary), *data_sets(results.summary["sources"])])
    made.append(Download("References (BibTeX)", f"{name}.bib", data_uri("text/x-bibtex", text.encode()), ""))
    return made


def data_uri(kind: str, data: bytes) -> str:
    """A file as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def safe_name(text: str) -> str:
    """A file name from any text; never empty, never hidden, never a path."""
    return UNSAFE.sub("-", str(text)).strip("-.")[:80] or "unnamed"


def cif_zip(structures: Sequence[Mapping[str, Any]], most: int = MOST_BYTES) -> tuple[bytes, int]:
    """A zip with two CIFs a structure, best first, and how many structures fitted.

    In primitive/ they are as they were ranked, in P1; in conventional/ they have the conventional cell and symmetry.

    Args:
        structures: as in evidence.json.
        most: bytes of the zip; what would not fit is left out.
    """
    sink, kept = io.BytesIO(), 0
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, row in enumerate(structures, start=1):
            texts = {"primitive": cif(row), "conventional": conventional_cif(row)}
            if sink.tell() + sum(len(text or "") for text in texts.values()) // 2 > most:
                break
            for folder, text in texts.items():
                if text is None:
                    continue
                # A fixed date: the same results give the same bytes.
                name = f"{folder}/{number:03d}-{safe_name(row['material_id'])}.cif"
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, text)
            kept = number
    return sink.getvalue(), kept


def bibtex(references: Sequence[Mapping[str, Any]]) -> str:
    """The references as BibTeX, of the kind they are: what is known apart as fields, else the citation as a note.

    Args:
        references: citation, doi, and "bibtex" with the fields of the entry, also "entry" (its kind) and "key".
    """
    entries, keys = [], set()
    for source in references:
        fields = dict(source.get("bibtex") or {"note": source["citation"]})
        kind = _word(fields.pop("entry", "")) or ("article" if "journal" in fields else "misc")
        key = base = _word(fields.pop("key", "")) or _key(source)
        letters = iter("bcdefghijklmnopqrstuvwxyz")
        while key in keys:
            key = base + next(letters)
        keys.add(key)
        if source.get("doi"):
            fields["doi"] = source["doi"]
        body = ",\n".join(f"  {name} = {{{_tex(str(text))}}}" for name, text in fields.items())
        entries.append(f"@{kind}{{{key},\n{body}\n}}\n")
    return "\n".join(entries)


def data_sets(sources: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """An entry of kind "dataset" for each published data set of a campaign: title, version or digest, licence."""
    found: dict[str, dict[str, Any]] = {}
    for source in sources.values():
        name, licence = str(source.get("name") or ""), str(source.get("licence") or "")
        if not licence or name in found:
            continue
        fields = {"entry": "dataset", "key": f"data{_word(name)}", "title": str(source.get("title") or name)}
        if source.get("db_version"):
            fields["version"] = str(source["db_version"])
        digest = f"sha256 {source['sha256']}; " if source.get("sha256") else ""
        fields["note"] = f"{digest}licence: {licence}"
        found[name] = {"citation": name, "bibtex": fields}
    return list(found.values())


def _key(source: Mapping[str, Any]) -> str:
    """Last name of the first author and year, e.g. chen2021; "reference" where the citation has neither."""
    text = unicodedata.normalize("NFKD", str(source["citation"])).encode("ascii", "ignore").decode()
    names, years = re.findall(r"[A-Z][a-z]{2,}", text.partition(",")[0]), re.findall(r"\((\d{4})\)", text)
    return (names[-1].lower() if names else "reference") + (years[-1] if years else "")


def _word(text: object) -> str:
    """The letters and digits of a text."""
    return re.sub(r"[^A-Za-z0-9]", "", str(text))


def _tex(text: str) -> str:
    """Text in which nothing ends the field or is a command."""
    return re.sub(r"([&%$#_])", r"\\\1", re.sub(r"[{}\\]", "", text))
