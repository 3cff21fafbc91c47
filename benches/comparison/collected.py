"""Everything that a run found out, and its JSON form."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field

from .idle import IdleMemory
from .large_results import Growth
from .load import Result
from .poolers import Contestant
from .syscalls import SystemCalls


@dataclass
class Collected:
    """Results by row (workload or case) and column (contestant)."""

    machine: dict[str, str]
    settings: dict[str, object]
    columns: list[Contestant]
    notes: list[str] = field(default_factory=list)
    # One result for each round that worked.
    loads: dict[str, dict[str, list[Result]]] = field(default_factory=dict)
    idle: dict[str, dict[str, IdleMemory]] = field(default_factory=dict)
    growth: dict[str, dict[str, Growth]] = field(default_factory=dict)
    syscalls: dict[str, dict[str, SystemCalls]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add_load(self, row: str, column: str, result: Result) -> None:
        """Files the result of one round."""
        self.loads.setdefault(row, {}).setdefault(column, []).append(result)

    def load(self, row: str, column: str, figure: str) -> float | None:
        """The median over the rounds of one figure of `Result`."""
        values = self.load_values(row, column, figure)
        return statistics.median(values) if values else None

    def load_values(self, row: str, column: str, figure: str) -> list[float]:
        """One figure of `Result` in all rounds."""
        values = [getattr(result, figure) for result in self.loads.get(row, {}).get(column, [])]
        return [value for value in values if value is not None]

    def errors(self, row: str, column: str) -> int:
        """Failed transactions and aborted clients in all rounds."""
        return sum(result.errors for result in self.loads.get(row, {}).get(column, []))

    def to_json(self) -> str:
        """All results of all rounds."""
        document = {
            "machine": self.machine,
            "settings": self.settings,
            "notes": self.notes,
            "failures": self.failures,
            "loads": {
                row: {column: [result.to_json() for result in results] for column, results in columns.items()}
                for row, columns in self.loads.items()
            },
        }
        for name, table in (("idle", self.idle), ("growth", self.growth), ("syscalls", self.syscalls)):
            document[name] = {
                row: {column: result.to_json() for column, result in columns.items()}
                for row, columns in table.items()
            }
        return json.dumps(document, indent=2) + "\n"
