"""What parents were trained on, who made them, and what that means for a score."""

from __future__ import annotations

from typing import Any

from atomsets_core.parents.trained import is_parent_folder, overlap_of

CARRIERS = {"chgnet": "chgnet", "sevennet": "sevenn", "sevennet-l3i5": "sevenn"}
"""Package that carries the weights of a parent, besides those of `PACKAGES`."""

OVERLAP = {
    **dict.fromkeys(
        ("megnet", "megnet-bf16"),
        "The MEGNet parent was trained on the formation energies of 133,420 Materials Project structures "
        "(mp-2019.4.1). It may have seen these structures, with their formation energies; it never saw any other "
        "property. Scores for formation energy itself would be flattered by that.",
    ),
    **dict.fromkeys(
        [f"{name}{of}" for name in CARRIERS for of in ("", "-response")],
        "The parent was trained on MPtrj: energies, forces and stresses of 1.58 million relaxation steps of 146,000 "
        "Materials Project structures. It may have seen these structures, with their energies, and never saw any other "
        "property but magnetic moments (CHGNet). Scores for energies would be flattered by that.",
    ),
    "composition": "The parent of compositions was trained on formation energies, PBE gaps and volumes of 37,664 "
    "Materials Project crystals (mp-2018.6.1), one of each composition. It may have seen these compositions, with "
    "these three. Scores for computed formation energies or gaps would be flattered by that.",
}
"""What the labels and structures of a parent's training share with the user's, by parent."""


def overlap(parent: str) -> str:
    """The sentence of `OVERLAP` for a parent, or one from the card of a parent that was trained here."""
    return overlap_of(parent) if is_parent_folder(parent) else OVERLAP.get(parent, "")


PARENTS: dict[str, dict[str, Any]] = {
    "megnet": {
        "name": "MEGNet",
        "bibtex": {
            "author": "Chen, Chi and Ye, Weike and Zuo, Yunxing and Zheng, Chen and Ong, Shyue Ping",
            "title": "Graph networks as a universal machine learning framework for molecules and crystals",
            "journal": "Chemistry of Materials",
            "volume": "31",
            "pages": "3564--3572",
            "year": "2019",
        },
        "citation": "C. Chen, W. Ye, Y. Zuo, C. Zheng, S. P. Ong, Graph networks as a universal machine learning "
        "framework for molecules and crystals, Chem. Mater. 31, 3564 (2019)",
        "doi": "10.1021/acs.chemmater.9b01294",
    },
    "chgnet": {
        "name": "CHGNet",
        "bibtex": {
            "author": "Deng, Bowen and Zhong, Peichen and Jun, KyuJung and Riebesell, Janosh and Han, Kevin and "
            "Bartel, Christopher J. and Ceder, Gerbrand",
            "title": "CHGNet as a pretrained universal neural network potential for charge-informed atomistic "
            "modelling",
            "journal": "Nature Machine Intelligence",
            "volume": "5",
            "pages": "1031--1041",
            "year": "2023",
        },
        "citation": "B. Deng, P. Zhong, K. Jun, J. Riebesell, K. Han, C. J. Bartel, G. Ceder, CHGNet as a pretrained "
        "universal neural network potential for charge-informed atomistic modelling, Nat. Mach. Intell. 5, 1031 (2023)",
        "doi": "10.1038/s42256-023-00716-3",
    },
    "sevennet": {
        "name": "SevenNet-0",
        "bibtex": {
            "author": "Park, Yutack and Kim, Jaesun and Hwang, Seungwoo and Han, Seungwu",
            "title": "Scalable parallel algorithm for graph neural network interatomic potentials in molecular "
            "dynamics simulations",
            "journal": "Journal of Chemical Theory and Computation",
            "volume": "20",
            "pages": "4857--4868",
            "year": "2024",
        },
        "citation": "Y. Park, J. Kim, S. Hwang, S. Han, Scalable parallel algorithm for graph neural network "
        "interatomic potentials in molecular dynamics simulations, J. Chem. Theory Comput. 20, 4857 (2024)",
        "doi": "10.1021/acs.jctc.4c00190",
    },
}
