"""Prints what AWS' provider for Terraform says of the resources and data sources that deploy/terraform uses, as JSON.

    npm pack @cdktf/provider-aws@21.22.1 && tar xzf cdktf-provider-aws-21.22.1.tgz
    python3 terraform_schema.py package > terraform_schema.json

The package holds classes that were generated from the provider's schema. It has 37 MB, so that what is needed of it is
kept beside this: for each name whether it is required, optional or computed; of a block also whether there may be
several, and what is in it.
"""

import json
import pathlib
import re
import sys

import hcl2

MODULE = pathlib.Path(__file__).parents[2] / "deploy" / "terraform"


def wanted():
    """The kinds of resource and data source, such as `aws_lb` and `data aws_region`."""
    found = set()
    for file in MODULE.glob("*.tf"):
        parsed = hcl2.loads(file.read_text())
        for block in parsed.get("resource", []):
            found |= {kind.strip('"') for kind in block}
        for block in parsed.get("data", []):
            found |= {"data " + kind.strip('"') for kind in block}
    return sorted(found)


class Package:
    """The source of one kind, as text."""

    def __init__(self, root, kind):
        name = kind.removeprefix("data ").removeprefix("aws_").replace("_", "-")
        folder = f"data-aws-{name}" if kind.startswith("data ") else name
        self.source = (root / "lib" / folder / "index.js").read_text()

    def classes(self):
        return dict(re.findall(r"^class (\w+) extends .*?\{\n(.*?)^\}", self.source, re.MULTILINE | re.DOTALL))

    def main(self):
        (body,) = re.findall(
            r"^class \w+ extends cdktf\.Terraform(?:Resource|DataSource) \{\n(.*?)^\}",
            self.source,
            re.MULTILINE | re.DOTALL,
        )
        return self.block(body, body)

    def nested(self, name):
        """The block of a class's name."""
        body = self.classes()[f"{name}OutputReference"]
        function = name[0].lower() + name[1:] + "ToHclTerraform"
        written = re.search(rf"^function {function}\(.*?^\}}", self.source, re.MULTILINE | re.DOTALL)
        return self.block(body, written[0] if written else "")

    def block(self, body, written):
        """What the function `written` sets, and what else there is of the class `body` to be read."""
        entry = r"^ +(\w+): \{\s+value: [^\n]+\s+isBlock: (\w+),"
        found = {}
        for name, is_block in re.findall(entry, written, re.MULTILINE):
            # What may be left out can be unset.
            reset = "reset" + "".join(word.capitalize() for word in name.split("_")) + "()"
            found[name] = "optional" if reset in body else "required"
            if is_block == "true":
                member = re.search(rf"= new (\w+?)(OutputReference|List)\(this, \"{name}\"", body)
                found[name] = {"is": found[name], "several": member[2] == "List", "block": self.nested(member[1])}
        for name in re.findall(r"// (\w+) - computed: true", body):
            found.setdefault(name, "computed")
        return found


def main():
    root = pathlib.Path(sys.argv[1])
    schema = {kind: Package(root, kind).main() for kind in wanted()}
    lines = [f"{json.dumps(kind)}: {json.dumps(block, separators=(',', ':'))}" for kind, block in schema.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
