"""Validates lines of CloudWatch's embedded metric format, read from a file, by a schema."""

import json
import sys

from jsonschema import Draft202012Validator

LINE_MAX = 256 * 1024


def main(schema_file: str, lines_file: str) -> None:
    with open(schema_file, encoding="utf-8") as file:
        schema = json.load(file)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    # A validator that takes anything would show nothing.
    assert not validator.is_valid({"_aws": {"Timestamp": 1}})
    with open(lines_file, encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert lines, "no line to validate"
    for line in lines:
        assert len(line.encode()) <= LINE_MAX
        event = json.loads(line)
        validator.validate(event)
        # What a schema cannot say: each target of a reference is there, and of the right type.
        for directive in event["_aws"]["CloudWatchMetrics"]:
            for metric in directive["Metrics"]:
                assert not isinstance(event[metric["Name"]], str), metric
            for dimensions in directive["Dimensions"]:
                for dimension in dimensions:
                    assert isinstance(event[dimension], str), dimension
    print(f"{len(lines)} lines are valid")


main(*sys.argv[1:])
