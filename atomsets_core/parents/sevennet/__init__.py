"""SevenNet's two networks (Park et al., J. Chem. Theory Comput. 20, 4857, 2024): weights, forward passes, parents."""
