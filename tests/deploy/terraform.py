"""Prints what the module of deploy/terraform declares, as JSON; fails if it cannot be parsed."""

import json
import pathlib

import hcl2

MODULE = pathlib.Path(__file__).parents[2] / "deploy" / "terraform"


def unquoted(text):
    return text.strip('"')


def main():
    declared = {"variable": {}, "output": {}, "resource": {}}
    for file in sorted(MODULE.glob("*.tf")):
        parsed = hcl2.loads(file.read_text())
        for kind in ("variable", "output"):
            for block in parsed.get(kind, []):
                for name, body in block.items():
                    declared[kind][unquoted(name)] = unquoted(body.get("description", ""))
        for block in parsed.get("resource", []):
            for kind, named in block.items():
                declared["resource"].setdefault(unquoted(kind), []).extend(map(unquoted, named))
    print(json.dumps(declared))


if __name__ == "__main__":
    main()
