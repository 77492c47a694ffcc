"""The report of a data folder: one HTML page, made from the finished files alone."""

from __future__ import annotations

from posttrain.data.report.page import write_report

__all__ = ["write_report"]
