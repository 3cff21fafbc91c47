"""Checks the module of deploy/terraform against the provider's schema, as far as `terraform validate` would without the
types of values, and prints what the module declares, as JSON.

terraform_schema.py says where the schema comes from.
"""

import json
import pathlib
import re

import hcl2

HERE = pathlib.Path(__file__).parent
MODULE = HERE.parents[1] / "deploy" / "terraform"
# What Terraform itself takes in each resource and data source.
META = {"count", "depends_on", "for_each", "lifecycle", "provider"}


def unquoted(text):
    return text.strip('"')


def parse():
    """The module's files, and their text without comments."""
    files = sorted(MODULE.glob("*.tf"))
    text = "\n".join(re.sub(r"^\s*#.*$", "", file.read_text(), flags=re.MULTILINE) for file in files)
    # What something was called once is declared no more.
    text = re.sub(r"^  from = .*$", "", text, flags=re.MULTILINE)
    return [hcl2.loads(file.read_text()) for file in files], text


def named(parsed, kind):
    """Type, name and body of each resource or data source."""
    for block in parsed.get(kind, []):
        for type_name, bodies in block.items():
            for name, body in bodies.items():
                if not name.startswith("__"):
                    yield unquoted(type_name), unquoted(name), body


def contents(body):
    """The arguments of a block, and its blocks with their bodies; one that is repeated has as many as it needs."""
    arguments, blocks = set(), []
    for name, value in body.items():
        if name.startswith("__"):
            continue
        if name == "dynamic":
            for block in value:
                blocks += [(unquoted(of), each["content"][0], True) for of, each in block.items() if of[:2] != "__"]
        elif isinstance(value, list) and value and isinstance(value[0], dict) and "__is_block__" in value[0]:
            blocks += [(name, each, False) for each in value]
        else:
            arguments.add(name)
    return arguments, blocks


def check(where, body, schema, meta=frozenset()):
    arguments, blocks = contents(body)
    blocks = [block for block in blocks if block[0] not in meta]
    for name in arguments - meta:
        assert name in schema, f"{where} has no argument {name}"
        assert schema[name] in ("required", "optional"), f"{where}: {name} is a block, or cannot be set"
    names = [name for name, _, _ in blocks]
    for name, inside, repeated in blocks:
        assert "block" in schema.get(name, ""), f"{where} has no block {name}"
        assert schema[name]["several"] or (names.count(name) == 1 and not repeated), f"{where}: one {name} at most"
        check(f"{where} {name}", inside, schema[name]["block"])
    required = {name for name, kind in schema.items() if "required" in (kind, kind["is"] if "block" in kind else "")}
    missing = required - arguments - set(names)
    assert not missing, f"{where} lacks {missing}"


def check_references(text, schema, declared):
    """`aws_lb.this.arn` and `data.aws_subnet.first.vpc_id`: the resource is declared and has such an attribute."""
    found = re.findall(r"(data\.)?\b(aws_\w+)\.(\w+)(?:\[[^\]]*\])?(?:\.(\w+))?", text)
    assert len(found) > 50, found
    for data, kind, name, attribute in found:
        kind = f"data {kind}" if data else kind
        assert (kind, name) in declared, f"{kind} {name} is not declared"
        assert not attribute or attribute in schema[kind], f"{kind} has no attribute {attribute}"


def main():
    schema = json.loads((HERE / "terraform_schema.json").read_text())
    files, text = parse()
    declared = {"variable": {}, "output": {}, "resource": {}}
    known = set()
    for parsed in files:
        for kind in ("variable", "output"):
            for block in parsed.get(kind, []):
                for name, body in block.items():
                    declared[kind][unquoted(name)] = unquoted(body.get("description", ""))
        for kind, name, body in named(parsed, "resource"):
            declared["resource"].setdefault(kind, []).append(name)
            known.add((kind, name))
            check(f"{kind} {name}", body, schema[kind], META)
        for kind, name, body in named(parsed, "data"):
            known.add((f"data {kind}", name))
            check(f"data {kind} {name}", body, schema[f"data {kind}"], META)
    check_references(text, schema, known)
    for name in set(re.findall(r"\bvar\.(\w+)", text)):
        assert name in declared["variable"], f"there is no variable {name}"
    print(json.dumps(declared))


if __name__ == "__main__":
    main()
