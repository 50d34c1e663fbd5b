"""The published tables of element vectors: the file of each, who made it, and from what.

What is said here of a table is what the package that carries them says of its source.
"""

from __future__ import annotations

from dataclasses import dataclass

from atomsets_core.parents.about import MP20, About, LevelAbout, Reference
from atomsets_core.parents.megnet.parent import REFERENCE as CHEN_2019

PACKAGE = "elementembeddings"

LEVEL = "vector"
"""Name of the one level of a table."""


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        file: in the package, below its folder of element representations.
        about: it.
    """

    file: str
    about: About


def _table(
    name: str,
    file: str,
    width: int,
    meaning: str,
    trained_on: str,
    overlap: str,
    references: tuple[Reference, ...] = (),
    uncited: str = "",
    described: str = "",
) -> Table:
    about = About(
        title=name,
        described=described or f"the published element vectors {name}",
        references=references,
        uncited=uncited,
        package=PACKAGE,
        extra="embeddings",
        licence="MIT (Materials Design Group), of the package; sources may have licences of their own",
        trained_on=trained_on,
        overlap=overlap,
        takes="the elements alone, those that the table has",
        levels={LEVEL: LevelAbout(width, "site", meaning, needs_coordinates=False)},
    )
    return Table(file, about)


def _article(
    key: str, authors: str, title: str, journal: tuple[str, str], volume: str, pages: str, cited: str, doi: str
) -> Reference:
    """A paper in a journal.

    Args:
        key: ends with the year.
        authors: as BibTeX has them.
        title: of the paper.
        journal: in full, and as it is abbreviated.
        volume: of the journal.
        pages: or the number of the article.
        cited: the authors in a line of text.
        doi: of the paper.
    """
    year, first = key[-4:], pages.partition("--")[0]
    fields = {"author": authors, "title": title, "journal": journal[0], "volume": volume, "pages": pages, "year": year}
    return Reference(key, f"{cited}, {title}, {journal[1]} {volume}, {first} ({year})", fields, doi)


def _preprint(key: str, authors: str, title: str, number: str, cited: str) -> Reference:
    """A paper on arXiv, whose DOIs all have one form."""
    year = key[-4:]
    fields = {"author": authors, "title": title, "year": year, "eprint": number, "archiveprefix": "arXiv"}
    return Reference(key, f"{cited}, {title}, arXiv:{number} ({year})", fields, f"10.48550/arXiv.{number}", "misc")


NPJ = ("npj Computational Materials", "npj Comput. Mater.")

PROPERTIES = (
    "The table {} holds properties of the elements themselves and was made without compounds: of these structures it "
    "can have seen no more than the elements among them."
)
TEXTS = (
    "The vectors {} were learned from the texts of papers, which may name these materials and say something of their "
    "properties. They saw neither structures nor values as such."
)
CRYSTALS = (
    "The vectors {} were learned from computed crystals, of which these structures may be some. {}Scores may be "
    "flattered by that."
)
ENERGIES = "They come from a network that learned energies and forces, and know of these. "

TABLES = {
    "magpie": _table(
        "magpie",
        "magpie.csv",
        22,
        "tabulated properties of the element",
        "nothing: a table of measured properties of the elements, and of computed ones of their ground states (OQMD)",
        PROPERTIES.format("magpie"),
        (
            _article(
                "ward2016",
                "Ward, Logan and Agrawal, Ankit and Choudhary, Alok and Wolverton, Christopher",
                "A general-purpose machine learning framework for predicting properties of inorganic materials",
                NPJ,
                "2",
                "16028",
                "L. Ward, A. Agrawal, A. Choudhary, C. Wolverton",
                "10.1038/npjcompumats.2016.28",
            ),
        ),
    ),
    "mat2vec": _table(
        "mat2vec",
        "mat2vec.csv",
        200,
        "word vector of the element",
        "texts of the literature on materials, without labels",
        TEXTS.format("mat2vec"),
        (
            _article(
                "tshitoyan2019",
                "Tshitoyan, Vahe and Dagdelen, John and Weston, Leigh and Dunn, Alexander and Rong, Ziqin and "
                "Kononova, Olga and Persson, Kristin A. and Ceder, Gerbrand and Jain, Anubhav",
                "Unsupervised word embeddings capture latent knowledge from materials science literature",
                ("Nature", "Nature"),
                "571",
                "95--98",
                "V. Tshitoyan, J. Dagdelen, L. Weston, A. Dunn, Z. Rong, O. Kononova, K. A. Persson, G. Ceder, A. Jain",
                "10.1038/s41586-019-1335-8",
            ),
        ),
    ),
    "matscholar": _table(
        "matscholar",
        "matscholar-embedding.json",
        200,
        "word vector of the element",
        "texts of the literature on materials, without labels",
        TEXTS.format("matscholar"),
        (
            _article(
                "weston2019",
                "Weston, Leigh and Tshitoyan, Vahe and Dagdelen, John and Kononova, Olga and Trewartha, Amalie and "
                "Persson, Kristin A. and Ceder, Gerbrand and Jain, Anubhav",
                "Named entity recognition and normalization applied to large-scale information extraction from the "
                "materials science literature",
                ("Journal of Chemical Information and Modeling", "J. Chem. Inf. Model."),
                "59",
                "3692--3702",
                "L. Weston, V. Tshitoyan, J. Dagdelen, O. Kononova, A. Trewartha, K. A. Persson, G. Ceder, A. Jain",
                "10.1021/acs.jcim.9b00470",
            ),
        ),
    ),
    "megnet16": _table(
        "megnet16",
        "megnet16.json",
        16,
        "element embedding of a MEGNet",
        # How many crystals, and which release, the package doesn't say.
        "formation energies of crystals, as the first weights of a MEGNet",
        CRYSTALS.format("megnet16", "They come from a network that learned formation energies, and know of these. "),
        (CHEN_2019,),
    ),
    "mod_petti": _table(
        "mod_petti",
        "mod_petti.json",
        103,
        "the element's place on the modified Pettifor scale, as one of n",
        "which elements replace each other in known crystals, without labels",
        "The scale mod_petti was found by data mining in known crystals, of which these structures may be some. It "
        "knows which elements replace each other in them, and never saw a property.",
        (
            _article(
                "glawe2016",
                "Glawe, Henning and Sanna, Antonio and Gross, E. K. U. and Marques, Miguel A. L.",
                "The optimal one dimensional periodic table: a modified Pettifor chemical scale from data mining",
                ("New Journal of Physics", "New J. Phys."),
                "18",
                "093011",
                "H. Glawe, A. Sanna, E. K. U. Gross, M. A. L. Marques",
                "10.1088/1367-2630/18/9/093011",
            ),
        ),
    ),
    "oliynyk": _table(
        "oliynyk",
        "oliynyk_preprocessed.csv",
        44,
        "tabulated properties of the element",
        "nothing: a table of properties of the elements",
        PROPERTIES.format("oliynyk"),
        (
            _article(
                "oliynyk2016",
                "Oliynyk, Anton O. and Antono, Erin and Sparks, Taylor D. and Ghadbeigi, Leila and Gaultois, Michael "
                "W. and Meredig, Bryce and Mar, Arthur",
                "High-throughput machine-learning-driven synthesis of full-Heusler compounds",
                ("Chemistry of Materials", "Chem. Mater."),
                "28",
                "7324--7331",
                "A. O. Oliynyk, E. Antono, T. D. Sparks, L. Ghadbeigi, M. W. Gaultois, B. Meredig, A. Mar",
                "10.1021/acs.chemmater.6b02724",
            ),
        ),
    ),
    "skipatom": _table(
        "skipatom",
        "skipatom_20201009_induced.csv",
        200,
        "vector of the element by its neighbours in crystals",
        # How many, the package doesn't say.
        "which atoms are neighbours in crystal structures, without labels",
        "The vectors skipatom were learned from crystal structures, of which these may be some. They know who "
        "neighbours whom in them, and never saw a property.",
        (
            _article(
                "antunes2022",
                "Antunes, Luis M. and Grau-Crespo, Ricardo and Butler, Keith T.",
                "Distributed representations of atoms and materials for machine learning",
                NPJ,
                "8",
                "44",
                "L. M. Antunes, R. Grau-Crespo, K. T. Butler",
                "10.1038/s41524-022-00729-3",
            ),
        ),
    ),
    "atomic": _table(
        "atomic",
        "atomic.json",
        119,
        "the atomic number, as one of n",
        "nothing: the atomic number",
        "Atomic numbers know nothing of these structures or labels.",
        uncited="it is the atomic number",
        described="the atomic number, as one of n",
    ),
    "crystallm": _table(
        "crystallm",
        "crystallm_v24c.dim512_atom_vectors.csv",
        512,
        "vector of the element in a language model of crystal structures",
        # How many, the package doesn't say.
        "crystal structures written as text, without labels",
        "The vectors crystallm were learned from crystal structures, of which these may be some. They never saw a "
        "property.",
        (
            _preprint(
                "antunes2023",
                "Antunes, Luis M. and Butler, Keith T. and Grau-Crespo, Ricardo",
                "Crystal structure generation with autoregressive large language modeling",
                "2307.04340",
                "L. M. Antunes, K. T. Butler, R. Grau-Crespo",
            ),
        ),
    ),
    "xenonpy": _table(
        "xenonpy",
        "xenonpy_element_features.csv",
        58,
        "tabulated properties of the element",
        "nothing: a table of measured and computed properties of the elements",
        PROPERTIES.format("xenonpy"),
        (
            _article(
                "liu2021",
                "Liu, Chang and Fujita, Erina and Katsura, Yukari and Inada, Yuki and Ishikawa, Asuka and Tamura, "
                "Ryuji and Kimura, Kaoru and Yoshida, Ryo",
                "Machine learning to predict quasicrystals from chemical compositions",
                ("Advanced Materials", "Adv. Mater."),
                "33",
                "2102507",
                "C. Liu, E. Fujita, Y. Katsura, Y. Inada, A. Ishikawa, R. Tamura, K. Kimura, R. Yoshida",
                "10.1002/adma.202102507",
            ),
            _article(
                "kusaba2022",
                "Kusaba, Minoru and Liu, Chang and Yoshida, Ryo",
                "Crystal structure prediction with machine learning-based element substitution",
                ("Computational Materials Science", "Comput. Mater. Sci."),
                "211",
                "111496",
                "M. Kusaba, C. Liu, R. Yoshida",
                "10.1016/j.commatsci.2022.111496",
            ),
            _article(
                "kusaba2023",
                "Kusaba, Minoru and Hayashi, Yoshihiro and Liu, Chang and Wakiuchi, Araki and Yoshida, Ryo",
                "Representation of materials by kernel mean embedding",
                ("Physical Review B", "Phys. Rev. B"),
                "108",
                "134107",
                "M. Kusaba, Y. Hayashi, C. Liu, A. Wakiuchi, R. Yoshida",
                "10.1103/PhysRevB.108.134107",
            ),
        ),
    ),
    "cgnf": _table(
        "cgnf",
        "cgnf.json",
        90,
        "element embedding of a crystal graph network",
        # Which crystals and labels, the package doesn't say.
        "crystals, as the node embedding of a crystal graph network that was pretrained to tell synthesizable ones",
        CRYSTALS.format("cgnf", ""),
        (
            _article(
                "jang2024",
                "Jang, Jidon and Noh, Juhwan and Zhou, Lan and Gu, Geun Ho and Gregoire, John M. and Jung, Yousung",
                "Synthesizability of materials stoichiometry using semi-supervised learning",
                ("Matter", "Matter"),
                "7",
                "2294--2312",
                "J. Jang, J. Noh, L. Zhou, G. H. Gu, J. M. Gregoire, Y. Jung",
                "10.1016/j.matt.2024.05.002",
            ),
        ),
    ),
    "mace_mp0": _table(
        "mace_mp0",
        "mace_mp0.csv",
        128,
        "invariant descriptors of MACE-MP-0 (medium), a mean for the element",
        f"energies, forces and stresses of Materials Project relaxations, as descriptors of MACE-MP-0 {MP20}",
        CRYSTALS.format("mace_mp0", ENERGIES),
        (
            _preprint(
                "batatia2024",
                "Batatia, Ilyes and Benner, Philipp and Chiang, Yuan and Elena, Alin M. and Kovács, Dávid P. and "
                "Riebesell, Janosh and others",
                "A foundation model for atomistic materials chemistry",
                "2401.00096",
                "I. Batatia, P. Benner, Y. Chiang, A. M. Elena, D. P. Kovács, J. Riebesell, et al.",
            ),
        ),
    ),
    "orb_v2": _table(
        "orb_v2",
        "orb_v2.csv",
        256,
        "node features of ORB-v2, a mean for the element",
        f"energies, forces and stresses of computed crystals, as node features of ORB-v2 {MP20}",
        CRYSTALS.format("orb_v2", ENERGIES),
        (
            _preprint(
                "neumann2024",
                "Neumann, Mark and Gin, James and Rhodes, Benjamin and Bennett, Steven and Li, Zhiyi and Choubisa, "
                "Hitarth and Hussey, Arthur and Godwin, Jonathan",
                "Orb: A Fast, Scalable Neural Network Potential",
                "2410.22570",
                "M. Neumann, J. Gin, B. Rhodes, S. Bennett, Z. Li, H. Choubisa, A. Hussey, J. Godwin",
            ),
        ),
    ),
    "matscibert": _table(
        "matscibert",
        "matscibert.csv",
        768,
        "token vector of the element's symbol",
        "texts of the literature on materials, without labels",
        TEXTS.format("matscibert"),
        (
            _article(
                "gupta2022",
                "Gupta, Tanishq and Zaki, Mohd and Krishnan, N. M. Anoop and Mausam",
                "MatSciBERT: A materials domain language model for text mining and information extraction",
                NPJ,
                "8",
                "102",
                "T. Gupta, M. Zaki, N. M. A. Krishnan, Mausam",
                "10.1038/s41524-022-00784-w",
            ),
        ),
    ),
    "chemeleon": _table(
        "chemeleon",
        "chemeleon.csv",
        512,
        "node features of Chemeleon-DNG, which generates crystals, a mean for the element",
        f"crystal structures, without labels, as node features of Chemeleon-DNG {MP20}",
        "The vectors chemeleon were learned from crystal structures, of which these may be some. They never saw a "
        "property.",
        (
            # The package has this DOI with another title and page.
            _article(
                "park2025",
                "Park, Hyunsoo and Onwuli, Anthony and Walsh, Aron",
                "Exploration of crystal chemical space using text-guided generative artificial intelligence",
                ("Nature Communications", "Nat. Commun."),
                "16",
                "4379",
                "H. Park, A. Onwuli, A. Walsh",
                "10.1038/s41467-025-59636-y",
            ),
        ),
    ),
    "random_200": _table(
        "random_200",
        "random_200_new.csv",
        200,
        "random numbers, the same for an element everywhere",
        "nothing: normally distributed random numbers, for comparison",
        "Random numbers know nothing of these structures or labels.",
        uncited="it is random numbers",
        described="random vectors of the elements",
    ),
}
"""Name of a table -> what it is. Those of CHGNet and SevenNet-0 are levels of our own parents."""
