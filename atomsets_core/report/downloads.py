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

import numpy as np
from pymatgen.core import Element, Lattice, Structure
from pymatgen.io.cif import CifWriter

from atomsets_core.report import methods
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
        table = csv_text(results.shortlist[download_columns(results.shortlist)])
        made.append(Download("Shortlist (CSV)", f"{name}-shortlist.csv", data_uri("text/csv", table.encode()), ""))
    found = [results.evidence[m] for m in results.shortlist["material_id"] if m in results.evidence]
    structures = [row for row in found if "lattice" in row]  # of formulas there are none
    if structures:
        data, kept = cif_zip(structures)
        note = "" if kept == len(structures) else f"the first {kept:,} of {len(structures):,}"
        made.append(Download("Structures (CIFs)", f"{name}-cifs.zip", data_uri("application/zip", data), note))
    text = bibtex(methods.references(results.summary))
    made.append(Download("References (BibTeX)", f"{name}.bib", data_uri("text/x-bibtex", text.encode()), ""))
    return made


def data_uri(kind: str, data: bytes) -> str:
    """A file as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def safe_name(text: str) -> str:
    """A file name from any text; never empty, never hidden, never a path."""
    return UNSAFE.sub("-", str(text)).strip("-.")[:80] or "unnamed"


def cif_zip(structures: Sequence[Mapping[str, Any]], most: int = MOST_BYTES) -> tuple[bytes, int]:
    """A zip with one CIF a structure, best first, and how many of them fitted.

    Args:
        structures: as in evidence.json.
        most: bytes of the zip; what would not fit is left out.
    """
    sink, kept = io.BytesIO(), 0
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, row in enumerate(structures, start=1):
            text = cif(row)
            if sink.tell() + len(text) // 2 > most:
                break
            # A fixed date: the same results give the same bytes.
            entry = zipfile.ZipInfo(f"{number:03d}-{safe_name(row['material_id'])}.cif", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
            kept = number
    return sink.getvalue(), kept


def structure(row: Mapping[str, Any]) -> Structure:
    """The structure of a row of evidence.json; elements on one place with partial occupancies are one site."""
    shares = row.get("occupancy") or [1.0] * len(row["numbers"])
    sites: dict[tuple[float, ...], dict[Element, float]] = {}
    for z, place, share in zip(row["numbers"], row["frac"], shares, strict=True):
        on_site = sites.setdefault(tuple(place), {})
        on_site[Element.from_Z(int(z))] = on_site.get(Element.from_Z(int(z)), 0.0) + float(share)
    return Structure(Lattice(np.array(row["lattice"])), list(sites.values()), list(sites))


def cif(row: Mapping[str, Any]) -> str:
    """A CIF (P1) of a row of evidence.json."""
    return str(CifWriter(structure(row)))


def bibtex(references: Sequence[Mapping[str, Any]]) -> str:
    """The references as BibTeX: what is known apart as fields, else the whole citation as a note.

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
