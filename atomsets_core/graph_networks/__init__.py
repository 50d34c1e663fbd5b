"""Graph networks that are trained here: MEGNet from scratch, MEGNet fine-tuned, and new parents."""

from atomsets_core.graph_networks.graph_set import GraphSet, build_graphs
from atomsets_core.graph_networks.network import MEGNetNetwork
from atomsets_core.graph_networks.regressor import MEGNetRegressor

__all__ = ["GraphSet", "MEGNetNetwork", "MEGNetRegressor", "build_graphs"]
