"""The report of a campaign: one HTML file that explains the answer and needs no network."""

from atomsets_core.report.page import write_report

__all__ = ["write_report"]
