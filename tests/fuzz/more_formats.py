"""Good files of further formats, small, from which damaged ones are made: what a name ends in, and the files."""

from __future__ import annotations

import json

from tests.fuzz.malformed import SALT
from tests.pw_output import PW_START, PW_STEP

CIF_BY_SYMBOL = """data_x
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
_space_group_name_Hall '-F 4 2 3'
_chemical_formula_sum 'Na Cl'
_cell_formula_units_Z 4
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
_atom_site_calc_flag
Na1 0 0 0 1 d
Cl1 0.5 0.5 0.5 1 d
X1 0.25 0.25 0.25 1 dum
"""
AIMS = (
    "lattice_vector 5.64 0 0\nlattice_vector 0 5.64 0\nlattice_vector 0 0 5.64\natom 0 0 0 Na\natom_frac .5 .5 .5 Cl\n"
)
XSF = "CRYSTAL\nPRIMVEC\n5.64 0 0\n0 5.64 0\n0 0 5.64\nPRIMCOORD\n2 1\n11 0 0 0\nCl 2.82 2.82 2.82\n"
CASTEP = (
    "%BLOCK LATTICE_ABC\nang\n5.64 5.64 5.64\n90 90 90\n%ENDBLOCK LATTICE_ABC\n"
    "%BLOCK POSITIONS_FRAC\nNa 0 0 0\nCl .5 .5 .5\n%ENDBLOCK POSITIONS_FRAC\n"
)
SHELX = (
    "TITL x\nCELL 0.71 5.64 5.64 5.64 90 90 90\nLATT 1\nSYMM -x,-y,z\nSFAC Na Cl\nUNIT 1 1\nFVAR 1 0.5\n"
    "Na1 1 0 0 0 10.25 0.02 =\n 0.01\nCl1 2 .5 .5 .5 10.25\nHKLF 4\nEND\n"
)
PHONOPY = (
    "physical_unit:\n  length: au\nunit_cell:\n  lattice: [[9, 0, 0], [0, 9, 0], [0, 0, 9]]\n  points:\n"
    "  - {symbol: Na, coordinates: [0, 0, 0]}\n  - {symbol: Cl, coordinates: [0.5, 0.5, 0.5]}\n"
)
VASPRUN = """<?xml version="1.0"?>
<modeling><generator><i name="version" type="string">6.3.0</i></generator>
<kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>
<atominfo><atoms> 2 </atoms>
<array name="atoms"><set><rc><c>Na</c><c>1</c></rc><rc><c>Cl</c><c>2</c></rc></set></array></atominfo>
<structure name="initialpos"><crystal>
<varray name="basis"><v>5.64 0 0</v><v>0 5.64 0</v><v>0 0 5.64</v></varray></crystal>
<varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray></structure>
<calculation><structure><crystal><varray name="basis"><v>5.64 0 0</v><v>0 5.64 0</v><v>0 0 5.64</v></varray></crystal>
<varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray></structure>
<varray name="forces"><v>0 0 0</v><v>0 0 0.1</v></varray>
<varray name="stress"><v>1 0 0</v><v>0 1 0</v><v>0 0 1</v></varray>
<scstep><energy><i name="e_fr_energy">-7.1</i><i name="e_0_energy">-7.0</i></energy></scstep>
<energy><i name="e_fr_energy">-7.1</i><i name="e_0_energy">-7.0</i></energy></calculation></modeling>
"""
MAGNETIC = """data_x
_cell_length_a 2.9
_cell_length_b 2.9
_cell_length_c 2.9
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_space_group_symop_magn_operation.id
_space_group_symop_magn_operation.xyz
1 x,y,z,+1
2 -x,-y,-z,+1
loop_
_space_group_symop_magn_centering.id
_space_group_symop_magn_centering.xyz
1 x,y,z,+1
2 x+1/2,y+1/2,z+1/2,-1
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Cr1 Cr 0 0 0
loop_
_atom_site_moment.label
_atom_site_moment.crystalaxis_x
_atom_site_moment.crystalaxis_y
_atom_site_moment.crystalaxis_z
Cr1 0 0 0.59(2)
"""
XDATCAR = (
    "salt\n1.0\n5.64 0 0\n0 5.64 0\n0 0 5.64\nNa Cl\n1 1\nDirect configuration=     1\n0 0 0\n.5 .5 .5\n"
    "salt\n1.0\n5.7 0 0\n0 5.7 0\n0 0 5.7\nNa Cl\n1 1\nDirect configuration=     2\n0 0 0\n.5 .5 .51\n"
)
PW_INPUT = (
    "&control\n calculation = 'scf'\n/\n&system\n ibrav = 0, nat = 2, ntyp = 2\n/\n&electrons\n/\nATOMIC_SPECIES\n"
    "Na 22.99 Na.upf\nCl 35.45 Cl.upf\nK_POINTS gamma\nCELL_PARAMETERS angstrom\n5.64 0 0\n0 5.64 0\n0 0 5.64\n"
    "ATOMIC_POSITIONS angstrom\nNa 0 0 0\nCl 2.82 2.82 2.82\n"
)
RECORD = {"material_id": "a", "structure": SALT.as_dict(), "bulk_modulus": {"vrh": 25.0}}
OPTIMADE = {
    "lattice_vectors": SALT.lattice.matrix.tolist(),
    "cartesian_site_positions": SALT.cart_coords.tolist(),
    "species_at_sites": ["Na", "Cl"],
    "nsites": 2,
    "dimension_types": [1, 1, 1],
}
JARVIS = {"lattice_mat": SALT.lattice.matrix.tolist(), "coords": SALT.frac_coords.tolist(), "elements": ["Na", "Cl"]}
NOMAD = {
    "entry_id": "a",
    "archive": {
        "run": [
            {
                "system": [
                    {
                        "atoms": {
                            "labels": ["Na", "Cl"],
                            "positions": [[0, 0, 0], [2.8e-10, 2.8e-10, 2.8e-10]],
                            "lattice_vectors": [[5.6e-10, 0, 0], [0, 5.6e-10, 0], [0, 0, 5.6e-10]],
                            "periodic": [True, True, True],
                        }
                    }
                ],
                "calculation": [
                    {
                        "system_ref": "#/run/0/system/0",
                        "energy": {"total": {"value": -1e-18}},
                        "forces": {"total": {"value": [[0, 0, 1e-11], [0, 0, 0]]}},
                    }
                ],
            }
        ]
    },
}

_SALT = (
    '{"lattice": {"matrix": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]]}, "sites": ['
    '{"species": [{"element": "Na", "occu": 1}],'
    ' "abc": [0, 0, 0]}, {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5]}]}'
)
_JSON_LAYOUTS = [
    f'{{"results": [{{"_id": {{"$oid": "5f"}}, "final_structure": {_SALT}, "gap": 1}}], "count": 1}}',
    f'{{"structures": [{_SALT}, {_SALT}], "labels": {{"gaps": [1, 2.5]}}}}',
    f'{{"mp-1": {{"mp-1-0": {{"structure": {_SALT}, "e": 1}}}}}}',
    f'[{{"id": "a", "structure": {_SALT}, "K": 1}}, {{"id": "a", "structure": {_SALT}, "K": "2.5(1)"}}]',
]

MORE: dict[str, tuple[str, list[str]]] = {
    "CIF by symbol": ("x.cif", [CIF_BY_SYMBOL, CIF_BY_SYMBOL.replace("-F 4 2 3", 'R -3 2"').replace("'F m", "'R")]),
    "JSON by other names": ("y.json", _JSON_LAYOUTS),
    "FHI-aims": ("geometry.in", [AIMS]),
    "XSF": ("x.xsf", [XSF]),
    "CASTEP": ("x.cell", [CASTEP, CASTEP.replace("FRAC", "ABS")]),
    "SHELX": ("x.res", [SHELX]),
    "phonopy": ("phonopy.yaml", [PHONOPY]),
    "vasprun": ("vasprun.xml", [VASPRUN]),
    "magnetic CIF": ("x.mcif", [MAGNETIC]),
    "XDATCAR": ("XDATCAR", [XDATCAR]),
    "Quantum ESPRESSO input": ("x.pwi", [PW_INPUT]),
    "Quantum ESPRESSO output": ("x.pwo", [PW_START + PW_STEP]),
    "NOMAD archive": ("n.json", [json.dumps({"data": [NOMAD]})]),
    "JSON lines": ("x.jsonl", [f"{json.dumps(RECORD)}\n{json.dumps(RECORD | {'material_id': 'b'})}\n"]),
    "records": (
        "r.json",
        [
            json.dumps([{"jid": "a", "atoms": JARVIS}]),
            json.dumps({"data": [{"id": "a", "attributes": OPTIMADE}]}),
            json.dumps({"entries": [{"entry_id": "a", "energy": -1.0, "structure": SALT.as_dict(), "data": {"x": 1}}]}),
        ],
    ),
    "dicts and POSCARs in a CSV": (
        "c.csv",
        [f'id,structure\n1,"{SALT.as_dict()}"\n2,"{SALT.to(fmt="poscar")}"\n'],
    ),
}
"""Name of a reader -> name of its files, and good ones."""
