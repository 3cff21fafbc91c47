"""Checks the commands of deploy/README.md without running any: bash reads them, and the models of AWS' APIs say what
there is.

    python3 commands.py

Of each `aws` command: its operation, its options and the words in them, whether `--query` finds something in what the
operation answers, and whether the templates have the parameters that are given. Prints what it saw, as JSON; fails at
the first that is wrong.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import botocore.session
import jmespath
import yaml
from botocore import xform_name

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"

# Commands that the CLI has and the APIs do not: what they need, and what else they take.
OF_THE_CLI = {
    ("cloudformation", "deploy"): (
        {"stack-name", "template-file"},
        {"capabilities", "parameter-overrides", "disable-rollback", "no-fail-on-empty-changeset"},
    ),
    ("cloudformation", "package"): ({"template-file", "s3-bucket"}, {"output-template-file", "s3-prefix"}),
    ("ecr", "get-login-password"): (set(), set()),
    ("logs", "tail"): (set(), {"since", "follow", "format"}),
    ("s3", "mb"): (set(), set()),
    ("s3", "rb"): (set(), {"force"}),
}
# Options of the CLI that take no part in the API, with each command.
OF_EACH_COMMAND = {"query", "output", "region", "cli-binary-format"}

# Nothing is in the path, so that only `aws` is more than a word: it notes what it was given.
PREAMBLE = r"""
PATH=
command_not_found_handle() { return 0; }
aws() { printf '%s\x1f' "$@" >>"$RECORD"; printf '\x1e' >>"$RECORD"; echo given; }
"""


def blocks(text):
    """The shell's blocks, and commands in the running text."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    # A name of an operation alone is no command.
    inline = [words for words in re.findall(r"`(aws [^`]+)`", rest) if " --" in words]
    return [body for language, body in fences if language == "sh"] + inline


def recorded(text):
    """The words of each `aws` command, as bash understands the text."""
    with tempfile.TemporaryDirectory() as empty:
        record = pathlib.Path(empty) / "record"
        record.touch()
        script = PREAMBLE + "\n".join(blocks(text))
        environment = {"RECORD": str(record)}
        done = subprocess.run(
            ["bash", "-c", script], cwd=empty, env=environment, capture_output=True, text=True, check=False
        )
        assert "syntax error" not in done.stderr, done.stderr
        commands = record.read_text().split("\x1e")[:-1]
    return [command.split("\x1f")[:-1] for command in commands]


def split(words):
    """What stands before the options, and the options with their values."""
    options, before = {}, []
    values = before
    for word in words:
        if word.startswith("--"):
            values = options.setdefault(word[2:], [])
        else:
            values.append(word)
    return before, options


def sample(shape, depth=0):
    """What the shape's values look like, with everything there."""
    if shape.type_name == "structure":
        return {name: sample(member, depth + 1) for name, member in shape.members.items()} if depth < 8 else {}
    if shape.type_name == "list":
        return [sample(shape.member, depth + 1)]
    if shape.type_name == "map":
        return {"key": sample(shape.value, depth + 1)}
    return {"boolean": True, "integer": 1, "long": 1, "float": 1.0, "double": 1.0}.get(shape.type_name, "text")


def holes(value, path="it"):
    """Where a query found nothing."""
    if value is None or value == []:
        return [path]
    if isinstance(value, dict):
        return [hole for name, each in value.items() for hole in holes(each, f"{path}.{name}")]
    if isinstance(value, list):
        return [hole for index, each in enumerate(value) for hole in holes(each, f"{path}[{index}]")]
    return []


def check_query(command, query, output):
    # A filter by the value of a name finds nothing in a sample.
    query = re.sub(r"\[\?(\w+)=='\w+'\]", r"[?\1]", query)
    missing = holes(jmespath.search(query, sample(output)))
    assert not missing, f"{command}: the query finds nothing for {missing}"


def check_short_form(command, option, value, shape):
    """`Name=a,Values=b,c`: the names are there."""
    structure = shape.member if shape.type_name == "list" else shape
    if structure.type_name != "structure" or value.startswith(("file://", "{", "[")) or not value:
        return
    names = re.findall(r"(?:^|,)(\w+)=", value)
    assert names, f"{command}: --{option} {value} names nothing"
    unknown = set(names) - set(structure.members)
    assert not unknown, f"{command}: --{option} has no {unknown}"


def check_operation(session, command, service, operation, options):
    model = session.get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    assert operation in names, f"{command}: there is no such operation"
    found = model.operation_model(names[operation])
    members = found.input_shape.members if found.input_shape else {}
    shapes = {xform_name(name, "-"): shape for name, shape in members.items()}
    known = set(shapes) | {f"no-{name}" for name, shape in shapes.items() if shape.type_name == "boolean"}
    unknown = set(options) - known - OF_EACH_COMMAND
    assert not unknown, f"{command}: there is no option {unknown}"
    required = {xform_name(name, "-") for name in (found.input_shape.required_members if found.input_shape else [])}
    assert required <= set(options), f"{command}: it needs {required - set(options)}"
    for option, values in options.items():
        if option in shapes:
            for value in values:
                check_short_form(command, option, value, shapes[option])
    if "query" in options:
        check_query(command, options["query"][0], found.output_shape)


def check_waiter(session, command, service, waiter, options):
    model = session.get_waiter_model(service)
    names = {xform_name(name, "-"): name for name in model.waiter_names}
    assert waiter in names, f"{command}: there is no such waiter"
    operation = xform_name(model.get_waiter(names[waiter]).operation, "-")
    check_operation(session, command, service, operation, options)


def parameters(template):
    """Names of a template's parameters, and of those without a default."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("!", lambda *_: None)
    declared = yaml.load(template.read_text(), loader)["Parameters"]
    return set(declared), {name for name, parameter in declared.items() if "Default" not in parameter}


def check_parameters(command, options, packaged):
    file = pathlib.Path(options["template-file"][0])
    template = packaged.get(file.name, DEPLOY.parent / file)
    declared, needed = parameters(template)
    given = {word.split("=", 1)[0] for word in options["parameter-overrides"]}
    assert given <= declared, f"{command}: the template has no {given - declared}"
    assert needed <= given, f"{command}: the template needs {needed - given}"


def check(session, words, packaged):
    command = " ".join(["aws", *words])
    (service, operation, *rest), options = split(words)
    key = (service, operation)
    if operation == "wait":
        check_waiter(session, command, service, rest[0], options)
        return
    if key in OF_THE_CLI:
        needed, more = OF_THE_CLI[key]
        assert needed <= set(options) <= needed | more | OF_EACH_COMMAND, command
    else:
        check_operation(session, command, service, operation, options)
    if key == ("cloudformation", "package"):
        packaged[options["output-template-file"][0]] = DEPLOY.parent / options["template-file"][0]
    if key == ("cloudformation", "deploy"):
        check_parameters(command, options, packaged)


def main():
    text = (pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DEPLOY / "README.md").read_text()
    session = botocore.session.Session()
    commands, packaged = recorded(text), {}
    for words in commands:
        check(session, words, packaged)
    print(json.dumps([" ".join(words[:2]) for words in commands]))


if __name__ == "__main__":
    main()
