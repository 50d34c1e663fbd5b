"""What pw.x prints of two iron atoms, as far as readers look at it: the start with its energy, and a step after it."""

PW_START = """
     Program PWSCF v.7.2 starts on  1Mar2024 at 12: 0: 0

     bravais-lattice index     =            1
     lattice parameter (alat)  =      18.8973  a.u.
     number of atoms/cell      =            2
     celldm(1)=  18.897261  celldm(2)=   0.000000  celldm(3)=   0.000000

     crystal axes: (cart. coord. in units of alat)
               a(1) = (   1.000000   0.000000   0.000000 )
               a(2) = (   0.000000   1.000000   0.000000 )
               a(3) = (   0.000000   0.000000   1.000000 )

   Cartesian axes

     site n.     atom                  positions (alat units)
         1           Fe  tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2           Fe  tau(   2) = (   0.5000000   0.5000000   0.5000000  )

!    total energy              =     -10.00000000 Ry
"""

PW_STEP = """
     Forces acting on atoms (cartesian axes, Ry/au):

     atom    1 type  1   force =     0.00000000    0.00000000    0.01000000
     atom    2 type  1   force =     0.00000000    0.00000000   -0.01000000

     Total force =     0.014142     Total SCF correction =     0.000001

     Computing stress (Cartesian axis) and pressure

          total   stress  (Ry/bohr**3)                   (kbar)     P=       10.00
   0.00006798   0.00000000   0.00000000           10.00        0.00        0.00
   0.00000000   0.00006798   0.00000000            0.00       10.00        0.00
   0.00000000   0.00000000   0.00006798            0.00        0.00       10.00

CELL_PARAMETERS (angstrom)
   9.000000000   0.000000000   0.000000000
   0.000000000   9.000000000   0.000000000
   0.000000000   0.000000000   9.000000000

ATOMIC_POSITIONS (angstrom)
Fe            0.0000000000        0.0000000000        0.0000000000
Fe            4.5000000000        4.5000000000        4.6000000000

!    total energy              =     -11.00000000 Ry
"""
