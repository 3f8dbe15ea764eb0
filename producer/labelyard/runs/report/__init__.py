"""Report of a run: one HTML page with which a person decides whether the labels work."""

from labelyard.runs.report.report import WrittenReport, write_report

__all__ = ["WrittenReport", "write_report"]
