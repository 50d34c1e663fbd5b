"""MEGNet's formation-energy network (Chen et al., Chem. Mater. 31, 3564, 2019): weights, forward passes, the parent."""
