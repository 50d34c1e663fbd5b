"""The data sets that come with the package, with units, citations and licence.

All are computed by density-functional theory (PBE) and were taken from the source distribution of matminer 0.4.0 by
`scripts/build_embedded_data.py`.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from importlib import resources

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.sources.base import Pulled, SourceError, pulled_from_arrow
from atomsets_core.structures import as_compositions


@dataclass(frozen=True)
class Dataset:
    """An embedded data set.

    Attributes:
        name: after "embedded:" in a campaign file.
        file: in atomsets_core/data.
        title: one line.
        units: column -> unit ("" for a pure number).
        citation: of the publication.
        doi: of the publication.
        licence: of the data.
        bibtex: fields of the publication's entry, with "entry", its kind, and "key".
        formulas: whether it holds formulas and no structures.
    """

    name: str
    file: str
    title: str
    units: dict[str, str]
    citation: str
    doi: str
    licence: str
    bibtex: dict[str, str]
    formulas: bool = False


DE_JONG = {
    "entry": "article",
    "key": "dejong2015",
    "author": "de Jong, Maarten and others",
    "title": "Charting the complete elastic properties of inorganic crystalline compounds",
    "journal": "Scientific Data",
    "volume": "2",
    "pages": "150009",
    "year": "2015",
}
"""BibTeX fields of the publication of the elastic tensors."""

DATASETS = {
    "elastic": Dataset(
        name="elastic",
        file="elastic_tensor_2015.parquet",
        title="1,181 elastic tensors of inorganic crystals (Materials Project, DFT-PBE)",
        units={
            "K_VRH": "GPa",
            "G_VRH": "GPa",
            "K_Voigt": "GPa",
            "K_Reuss": "GPa",
            "G_Voigt": "GPa",
            "G_Reuss": "GPa",
            "elastic_anisotropy": "",
            "poisson_ratio": "",
            "space_group": "",
        },
        citation="M. de Jong et al., Charting the complete elastic properties of inorganic crystalline compounds, "
        "Sci. Data 2, 150009 (2015)",
        doi="10.1038/sdata.2015.9",
        licence="CC BY 4.0, Materials Project",
        bibtex=DE_JONG,
    ),
    "dielectric": Dataset(
        name="dielectric",
        file="dielectric_constant_2017.parquet",
        title="1,056 dielectric tensors of inorganic crystals (Materials Project, DFPT-PBE)",
        units={"band_gap": "eV", "n": "", "poly_electronic": "", "poly_total": "", "space_group": ""},
        citation="I. Petousis et al., High-throughput screening of inorganic compounds for the discovery of novel "
        "dielectric and optical materials, Sci. Data 4, 160134 (2017)",
        doi="10.1038/sdata.2016.134",
        licence="CC BY 4.0, Materials Project",
        bibtex={
            "entry": "article",
            "key": "petousis2017",
            "author": "Petousis, Ioannis and others",
            "title": "High-throughput screening of inorganic compounds for the discovery of novel dielectric and "
            "optical materials",
            "journal": "Scientific Data",
            "volume": "4",
            "pages": "160134",
            "year": "2017",
        },
    ),
    "moduli": Dataset(
        name="moduli",
        file="bulk_moduli_of_formulas.csv",
        title="206 formulas with the bulk modulus of the most stable crystal known (Materials Project, DFT-PBE)",
        units={"K_VRH": "GPa", "e_above_hull": "eV/atom"},
        citation="M. de Jong et al., Charting the complete elastic properties of inorganic crystalline compounds, "
        "Sci. Data 2, 150009 (2015)",
        doi="10.1038/sdata.2015.9",
        licence="CC BY 4.0, Materials Project",
        bibtex=DE_JONG,
        formulas=True,
    ),
    "flla": Dataset(
        name="flla",
        file="flla_2015.parquet",
        title="3,938 crystal structures with energy above hull (Materials Project, DFT-PBE)",
        units={"e_above_hull": "eV/atom", "formation_energy_per_atom": "eV/atom"},
        citation="F. Faber, A. Lindmaa, O. A. von Lilienfeld, R. Armiento, Crystal structure representations for "
        "machine learning models of formation energies, Int. J. Quantum Chem. 115, 1094 (2015)",
        doi="10.1002/qua.24917",
        licence="CC BY 4.0, Materials Project",
        bibtex={
            "entry": "article",
            "key": "faber2015",
            "author": "Faber, Felix and Lindmaa, Alexander and von Lilienfeld, O. Anatole and Armiento, Rickard",
            "title": "Crystal structure representations for machine learning models of formation energies",
            "journal": "International Journal of Quantum Chemistry",
            "volume": "115",
            "pages": "1094--1101",
            "year": "2015",
        },
    ),
}


def load_dataset(name: str) -> Pulled:
    """An embedded data set: structures or compositions, columns in the units of `DATASETS[name].units`, provenance.

    Raises:
        SourceError: no data set has this name.
    """
    if name not in DATASETS:
        raise SourceError(f"no embedded data set {name!r}; there are {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    place = resources.files("atomsets_core").joinpath("data", dataset.file)
    data = place.read_bytes()
    provenance = {
        "name": f"embedded:{name}",
        "title": dataset.title,
        "citation": dataset.citation,
        "doi": dataset.doi,
        "licence": dataset.licence,
        "bibtex": dataset.bibtex,
        "units": dataset.units,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    if not dataset.formulas:
        return pulled_from_arrow(pq.read_table(pa.BufferReader(data)), provenance)
    table = pd.read_csv(io.BytesIO(data))
    batch = as_compositions(table["formula"].tolist(), table["material_id"].tolist())
    return Pulled(batch, table.drop(columns=["material_id", "formula"]), [], provenance)


def load_elastic() -> Pulled:
    """1,181 elastic tensors (de Jong et al. 2015): K_VRH, G_VRH and relatives in GPa, anisotropy, Poisson ratio."""
    return load_dataset("elastic")


def load_dielectric() -> Pulled:
    """1,056 dielectric tensors (Petousis et al. 2017): PBE band gap in eV, refractive index, dielectric constants.

    `poly_electronic` and `poly_total` are the average eigenvalues without and with the ions' share.
    """
    return load_dataset("dielectric")


def load_flla() -> Pulled:
    """3,938 structures (Faber et al. 2015) with e_above_hull and formation_energy_per_atom in eV/atom."""
    return load_dataset("flla")
