"""Creates the stacks of deploy/cloudformation in moto, as `aws cloudformation package` and `deploy` do in AWS.

    AWS_ENDPOINT_URL=http://127.0.0.1:5000 python3 stacks.py

moto makes what it knows and leaves out the rest (rules of what may go out, autoscaling, alarms), and a few things it
gets wrong are changed in the text for it, each of which must be there. Prints what it made, as JSON.
"""

import ast
import io
import json
import pathlib
import re
import zipfile

import boto3
import yaml

REGION = "eu-central-1"
TEMPLATES = pathlib.Path(__file__).parents[2] / "deploy" / "cloudformation"
BUCKET = "packages"
IMAGE = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/pgweir:test"
SECRETS = [f"arn:aws:secretsmanager:{REGION}:123456789012:secret:{name}-AbCdEf" for name in ("rds!db-1", "b", "tls")]
TOPIC = f"arn:aws:sns:{REGION}:123456789012:alarms"


def client(name):
    return boto3.client(name, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")


def changed(name, changes):
    text = (TEMPLATES / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name}: {old}"
        text = text.replace(old, new)
    return text


def proxy_template():
    # Each load balancer is one of HTTP there, which refuses other listeners.
    listener = "      Protocol: TCP\n      Port: 5432\n      DefaultActions:"
    return changed("pgweir.yaml", {listener: listener.replace("TCP", "HTTP")})


def example_template():
    """The example without its nested stack, whose outputs moto does not know, and with the function's code uploaded."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        for file in sorted((TEMPLATES / "../lambda/node").glob("*.js")):
            archive.write(file, file.name)
    s3 = client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=BUCKET, Key="code.zip", Body=code.getvalue())
    text = changed("example.yaml", {
        "Code: ../lambda/node": f"Code: {{ S3Bucket: {BUCKET}, S3Key: code.zip }}",
        "!GetAtt Proxy.Outputs.Endpoint": "proxy.example.com",
        "!GetAtt Proxy.Outputs.ClientSecurityGroupId": "!Ref ApiSecurityGroup",
        # Its instances have no such attribute.
        "!GetAtt Database.MasterUserSecret.SecretArn": SECRETS[0],
        # The short form is cut at each point.
        "!GetAtt Database.Endpoint.Address": "{ Fn::GetAtt: [Database, Endpoint.Address] }",
    })
    before, rest = text.split("  # --- pgweir. ---")
    nested, after = rest.split("  # --- A function that uses it. ---")
    assert "TemplateURL: pgweir.yaml" in nested
    return before + after


class Template(yaml.SafeLoader):
    """YAML with the short forms of functions, each as the function's name and what it is given."""


def function(loader, name, node):
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_scalar(node)}


Template.add_multi_constructor("!", function)


def parsed(name):
    return yaml.load((TEMPLATES / name).read_text(), Template)  # noqa: S506, it is a SafeLoader


def alarms(template):
    """What each alarm looks at, and for how long what value must be seen; moto makes none from a template."""
    found = {}
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::CloudWatch::Alarm":
            alarm = resource["Properties"]
            metrics = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]
            found[name] = {
                "metrics": [metric["MetricName"] for metric in metrics or [alarm]],
                "expressions": [query["Expression"] for query in alarm.get("Metrics", []) if "Expression" in query],
                "threshold": alarm["Threshold"],
                "minutes": alarm["EvaluationPeriods"],
            }
    return found


def names(value):
    """The words in a resource's references to others."""
    if isinstance(value, list):
        return {name for each in value for name in names(each)}
    if not isinstance(value, dict):
        return set()
    references = {"Ref", "GetAtt", "Sub", "DependsOn"} & set(value)
    return {name for key in references for name in re.findall(r"\w+", str(value[key]))} | names(list(value.values()))


def late(template):
    """Rules of the tasks' group, and rights, that may be made after the service has started tasks."""
    resources = template["Resources"]
    before, found = set(), {"Service"}
    while found:
        before |= found
        found = {name for each in found for name in names(resources[each])} & set(resources) - before
    rules = [name for name, each in resources.items() if each["Properties"].get("GroupId") == {"Ref": "TaskSecurityGroup"}]
    rights = [name for name, each in resources.items() if each["Type"] in ("AWS::IAM::Policy", "AWS::IAM::Role")]
    assert len(rules) > 3 and len(rights) > 1, (rules, rights)
    return sorted({*rules, *rights} - before)


def refusals(parameters):
    """What the rules of the template say to these parameters; moto knows no rules."""
    template = parsed("pgweir.yaml")
    values = {name: str(declared.get("Default", "")) for name, declared in template["Parameters"].items()} | parameters

    def holds(condition):
        ((name, given),) = condition.items()
        match name:
            case "Equals":
                left, right = (values[each["Ref"]] if isinstance(each, dict) else each for each in given)
                return left == right
            case "Not":
                return not holds(given[0])
            case "And":
                return all(map(holds, given))
            case "Or":
                return any(map(holds, given))

    said = []
    for rule in template["Rules"].values():
        if "RuleCondition" not in rule or holds(rule["RuleCondition"]):
            said += [each["AssertDescription"] for each in rule["Assertions"] if not holds(each["Assert"])]
    return said


def create(name, text, parameters):
    """The outputs of the stack, and the ids of its resources, by their names in the template."""
    cloudformation = client("cloudformation")
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    cloudformation.create_stack(StackName=name, TemplateBody=text, Capabilities=["CAPABILITY_IAM"], Parameters=given)
    (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    resources = cloudformation.list_stack_resources(StackName=name)["StackResourceSummaries"]
    # Of what it does not know, it tells no name.
    ids = {made["LogicalResourceId"]: made.get("PhysicalResourceId") for made in resources}
    return outputs, {name: id for name, id in ids.items() if id}


def ingress(groups):
    """What may come in, as `to port from`, with the names that `groups` has for ids."""
    names = {id: name for name, id in groups.items()}
    found = []
    for group in client("ec2").describe_security_groups(GroupIds=list(names))["SecurityGroups"]:
        for permission in group["IpPermissions"]:
            peers = [pair["GroupId"] for pair in permission.get("UserIdGroupPairs", [])]
            peers += [block["CidrIp"] for block in permission.get("IpRanges", [])]
            found += [
                f"{names[group['GroupId']]} {permission.get('FromPort')} {names.get(peer, peer)}" for peer in peers
            ]
    return sorted(found)


def listed(value):
    return [value] if isinstance(value, str) else [each for each in value if each]


def policies(role_arn):
    """Each action that the role allows, with what on."""
    iam, role = client("iam"), role_arn.split("/")[-1]
    found = []
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        # That of a policy inside the role is a text of Python there, and `AWS::NoValue` in a list is null.
        assert isinstance(document, str), f"{name} is beside its role: tasks may start before they have it"
        for statement in filter(None, ast.literal_eval(document)["Statement"]):
            assert statement["Effect"] == "Allow"
            found += [f"{action} {on}" for action in listed(statement["Action"]) for on in listed(statement["Resource"])]
    return sorted(found)


def container(family):
    ecs = client("ecs")
    (container,) = ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]["containerDefinitions"]
    return container


def extremes(word):
    """Each number that has a `MinValue`, or a `MaxValue`, with it."""
    text = (TEMPLATES / "pgweir.yaml").read_text()
    found = re.findall(rf"^  (\w+):\n    Type: Number\n(?:    .*\n)*?    {word}: (\d+)$", text, re.MULTILINE)
    assert len(found) > 5, found
    return dict(found)


def main():
    example = example_template()
    outputs, world = create("world", example, {"ImageUri": IMAGE, "S3PrefixListId": "pl-0123"})
    variables = client("lambda").get_function(FunctionName=outputs["FunctionName"])["Configuration"]["Environment"]
    tls_parameters = {"ImageUri": IMAGE, "S3PrefixListId": "pl-0123", "TlsSecretArn": SECRETS[2]}
    tls_outputs, _ = create("tls-world", example, tls_parameters)
    tls_variables = client("lambda").get_function(FunctionName=tls_outputs["FunctionName"])["Configuration"]["Environment"]
    parameters = {
        "VpcId": world["Vpc"],
        "SubnetIds": f"{world['SubnetA']},{world['SubnetB']}",
        "ApiSecurityGroupId": world["ApiSecurityGroup"],
        "S3PrefixListId": "pl-0123",
        "DatabaseHost": outputs["DatabaseEndpoint"],
        "DatabaseSecurityGroupId": world["DatabaseSecurityGroup"],
        "SecretArn": SECRETS[0],
        "ImageUri": IMAGE,
    }
    assert refusals(parameters) == []
    outputs, proxy = create("proxy", proxy_template(), parameters)
    groups = {
        "client": outputs["ClientSecurityGroupId"],
        "balancer": proxy["LoadBalancerSecurityGroup"],
        "task": outputs["TaskSecurityGroupId"],
        "database": world["DatabaseSecurityGroup"],
    }
    rules = ingress(groups)
    parameters |= {
        "SecretArn2": SECRETS[1],
        "SecretsKmsKeyArn": f"arn:aws:kms:{REGION}:123456789012:key/1",
        "DatabaseResourceId": "db-ABC",
        "IamDatabaseUser": "app",
        "IamDatabaseUser2": "b",
        "IamDatabaseUser3": "c",
        "IAMAuth": "REQUIRED",
        "FleetUser": "c",
        "RequireTLS": "true",
        "TlsSecretArn": SECRETS[2],
        "TlsSecretKmsKeyArn": f"arn:aws:kms:{REGION}:123456789012:key/2",
        "InitQuery": "SET statement_timeout = '30s'",
        "DebugLogging": "true",
        "AlarmTopicArn": TOPIC,
    }
    assert refusals(parameters) == []
    full_outputs, full = create("full", proxy_template(), parameters)
    # With IAM from end to end, and no secrets.
    iam = {name: value for name, value in parameters.items() if not name.startswith(("SecretArn", "Secrets", "IAMAuth"))}
    iam |= {"DefaultAuthScheme": "IAM_AUTH"}
    assert refusals(iam) == []
    iam_outputs, _ = create("iam", proxy_template(), iam)
    least = {"SecretArn": SECRETS[0]}
    wrong = [
        {},
        least | {"RequireTLS": "true"},
        least | {"SecretArn3": SECRETS[1]},
        least | {"SecretArn2": SECRETS[1], "SecretArn4": SECRETS[1]},
        least | {"ApiSecurityGroupId": "sg-1"},
        least | {"FleetUser": "pgweir_fleet"},
        parameters | {"DatabaseResourceId": ""},
        parameters | {"TargetTls": "require"},
        parameters | {"TlsSecretArn": "", "RequireTLS": "false"},
        parameters | {"IamDatabaseUser": ""},
        parameters | {"IamDatabaseUser2": ""},
        iam | {"TlsSecretArn": "", "RequireTLS": "false"},
        iam | {"IamDatabaseUser2": "", "FleetUser": ""},
    ]
    create("least", proxy_template(), parameters | extremes("MinValue") | {"ProxyName": "a"})
    create("most", proxy_template(), parameters | extremes("MaxValue") | {"ProxyName": "orders-" + "x" * 25})
    print(json.dumps({
        "resources": sorted({**world, **proxy}),
        "function": variables["Variables"],
        "tls_function": tls_variables["Variables"],
        "nested": parsed("example.yaml")["Resources"]["Proxy"]["Properties"]["Parameters"],
        "ingress": rules,
        "task_policies": policies(outputs["TaskRoleArn"]),
        "full_task_policies": policies(full_outputs["TaskRoleArn"]),
        "full_execution_policies": policies(full["ExecutionRole"]),
        "iam_task_policies": policies(iam_outputs["TaskRoleArn"]),
        "refusals": [refusals(each) for each in wrong],
        "defaults": {name: each.get("Default") for name, each in parsed("pgweir.yaml")["Parameters"].items()},
        "late": late(parsed("pgweir.yaml")),
        "alarms": alarms(parsed("pgweir.yaml")),
        "service": parsed("pgweir.yaml")["Resources"]["Service"]["Properties"],
        "container": container("proxy-pgweir"),
        "full_container": container("full-pgweir"),
        "iam_container": container("iam-pgweir"),
        "least_container": container("least-pgweir"),
        "most_container": container("most-pgweir"),
    }, default=str))


if __name__ == "__main__":
    main()
