//! The templates of CloudFormation: lint, what moto makes of them, and whether pgweir takes what they tell it.

use crate::moto::Moto;
use crate::support::driver::{program_of_python, python};
use crate::support::{repository, run};
use pgweir::config::{AuthScheme, Config, IamAuth, MaxConnections, Pem, SecretSource};
use serde_json::Value;
use std::sync::OnceLock;

/// What the stacks came to; `None` where the tools are absent.
fn stacks() -> Option<&'static Value> {
    static STACKS: OnceLock<Option<Value>> = OnceLock::new();
    let made = STACKS.get_or_init(|| {
        let mut script = python(&repository().join("tests/deploy/stacks.py"))?;
        let moto = Moto::start();
        let said = run(script.env("AWS_ENDPOINT_URL", moto.endpoint()));
        Some(serde_json::from_str(&said).unwrap())
    });
    made.as_ref()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// `name` and `value` of a container's variables, and for its secrets `name` and what the secret holds.
fn environment(container: &Value) -> Vec<(String, String)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    // A variable that its condition leaves out has no name in moto.
    let given = container["environment"].as_array().unwrap().iter();
    let given = given.filter(|entry| entry["name"].is_string());
    let mut all: Vec<_> = given.map(|entry| (text(entry, "name"), text(entry, "value"))).collect();
    for entry in container["secrets"].as_array().into_iter().flatten() {
        assert!(text(entry, "valueFrom").starts_with("arn:aws:secretsmanager:"));
        all.push((text(entry, "name"), "-----BEGIN X-----\n-----END X-----\n".to_owned()));
    }
    all
}

/// The configuration that a task runs with.
fn configuration(container: &Value) -> Config {
    Config::parse("", None, environment(container).into_iter())
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_templates_are_clean() {
    let Some(mut lint) = program_of_python("cfn-lint") else { return };
    let said = run(lint.current_dir(repository()).arg("deploy/cloudformation/*.yaml"));
    assert_eq!(said, "");
}

#[test]
fn only_functions_reach_pgweir_and_only_pgweir_the_database() {
    let Some(stacks) = stacks() else { return };
    let expected =
        ["balancer 5432 client", "database 5432 task", "task 5432 balancer", "task 9127 balancer"];
    assert_eq!(texts(&stacks["ingress"]), expected);
}

/// moto knows no rules of this kind, so the text is read.
#[test]
fn nothing_is_let_out_to_everywhere_but_where_a_gateway_is_the_only_way() {
    let text =
        std::fs::read_to_string(repository().join("deploy/cloudformation/pgweir.yaml")).unwrap();
    let resources: Vec<&str> = text.split("\n\n").collect();
    let open: Vec<_> = resources.iter().filter(|part| part.contains("0.0.0.0/0")).collect();
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(open[0].contains("Condition: HasNoApiGroup"), "{open:?}");
    let groups = resources.iter().filter(|part| part.contains("Type: AWS::EC2::SecurityGroup\n"));
    for group in groups {
        assert!(group.contains("CidrIp: 127.0.0.1/32"), "lets everything out: {group}");
    }
}

#[test]
fn a_task_may_read_its_secrets_and_nothing_else() {
    let Some(stacks) = stacks() else { return };
    let secret = "arn:aws:secretsmanager:eu-central-1:123456789012:secret";
    let read = |name: &str| format!("secretsmanager:GetSecretValue {secret}:{name}");
    let user = "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-ABC";
    let connect = |name: &str| format!("rds-db:connect {user}/{name}");
    assert_eq!(texts(&stacks["task_policies"]), [read("rds!db-1-AbCdEf")]);
    let all = [
        "kms:Decrypt arn:aws:kms:eu-central-1:123456789012:key/1".to_owned(),
        connect("app"),
        connect("b"),
        connect("c"),
        read("b-AbCdEf"),
        read("rds!db-1-AbCdEf"),
    ];
    assert_eq!(texts(&stacks["full_task_policies"]), all);
    let iam = [connect("app"), connect("b"), connect("c")];
    assert_eq!(texts(&stacks["iam_task_policies"]), iam);
    let start = texts(&stacks["full_execution_policies"]);
    for right in
        [read("tls-AbCdEf").as_str(), "kms:Decrypt arn:aws:kms:eu-central-1:123456789012:key/2"]
    {
        assert!(start.contains(&right), "{right} is not in {start:?}");
    }
}

#[test]
fn no_task_starts_before_it_has_its_rights_and_its_way_to_what_it_needs() {
    let Some(stacks) = stacks() else { return };
    assert_eq!(texts(&stacks["late"]), Vec::<&str>::new());
}

/// Each stack with one thing missing or out of place that would end its tasks, or would keep them from logging in.
#[test]
fn the_template_refuses_what_pgweir_could_not_start_or_log_in_with() {
    let Some(stacks) = stacks() else { return };
    let said: Vec<Vec<&str>> = stacks["refusals"].as_array().unwrap().iter().map(texts).collect();
    let expected = [
        "DefaultAuthScheme NONE needs SecretArn.",
        "RequireTLS needs TlsSecretArn.",
        "SecretArn3 or IamDatabaseUser3 needs SecretArn2 or IamDatabaseUser2.",
        "SecretArn4 or IamDatabaseUser4 needs SecretArn3 or IamDatabaseUser3.",
        "ApiSecurityGroupId needs S3PrefixListId, where ECR has the image's layers.",
        "FleetUser needs SecretArn2 or IamDatabaseUser2, as clients have a user too.",
        "IAM needs DatabaseResourceId.",
        "IAM needs TargetTls verify-full, as tokens go to nobody but the database.",
        "Clients with IAM tokens need TlsSecretArn.",
        "IAM needs IamDatabaseUser.",
        "IAM needs IamDatabaseUser2 for the user of SecretArn2.",
        "Clients with IAM tokens need TlsSecretArn.",
        "SecretArn3 or IamDatabaseUser3 needs SecretArn2 or IamDatabaseUser2.",
    ];
    assert_eq!(said, expected.map(|text| vec![text]));
}

#[test]
fn pgweir_takes_what_a_task_tells_it() {
    let Some(stacks) = stacks() else { return };
    let config = configuration(&stacks["container"]);
    assert!(config.target.host.ends_with(".eu-central-1.rds.amazonaws.com"));
    assert_eq!(config.proxy.tls, None);
    assert_eq!(config.proxy.auth.len(), 1);
    assert_eq!(config.fleet.user, None);
    assert_eq!(config.target.max_connections, MaxConnections::Percent(100));

    let config = configuration(&stacks["full_container"]);
    assert!(config.proxy.require_tls);
    assert!(config.proxy.tls.is_some_and(|tls| matches!(tls.private_key, Pem::Text(_))));
    assert_eq!(config.target.init_query.as_str(), "SET statement_timeout = '30s'");
    let second = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:b-AbCdEf".to_owned();
    assert_eq!(config.proxy.auth[1].source, SecretSource::SecretsManager { arn: second });
    assert_eq!(config.proxy.auth[2].source, SecretSource::Nowhere { username: "c".to_owned() });
    assert!(config.proxy.auth.iter().all(|auth| auth.iam_auth == IamAuth::Required));
    assert_eq!(config.fleet.user.as_deref(), Some("c"));

    let config = configuration(&stacks["iam_container"]);
    let names = ["app", "b", "c"].map(|name| SecretSource::Nowhere { username: name.to_owned() });
    assert!(config.proxy.auth.iter().map(|auth| &auth.source).eq(&names));
    assert!(config.proxy.auth.iter().all(|auth| auth.auth_scheme == AuthScheme::IamAuth));
}

/// What the template lets through as a parameter must not be refused by each task that starts with it.
#[test]
fn pgweir_takes_the_least_and_the_most_that_the_template_allows() {
    let Some(stacks) = stacks() else { return };
    assert_eq!(configuration(&stacks["least_container"]).proxy.max_client_connections, 1);
    let most = configuration(&stacks["most_container"]);
    assert_eq!(most.proxy.idle_client_timeout.as_secs(), 8 * 60 * 60);
    // The balancer has 55,000 connections to each task; and each client takes a descriptor, as each server does.
    let files = stacks["most_container"]["ulimits"][0]["softLimit"].as_u64().unwrap();
    assert!(files >= 65_536, "{files}");
    assert!(most.proxy.max_client_connections <= 50_000);
    assert_eq!(most.proxy.max_client_lifetime.as_secs(), 365 * 24 * 60 * 60);
    assert_eq!(most.metrics.cloudwatch_proxy_name.len(), 32);
}

/// Alarms, dashboard and autoscaling look for the proxy's name.
#[test]
fn the_metrics_bear_the_name_that_is_looked_for() {
    let Some(stacks) = stacks() else { return };
    let metrics = configuration(&stacks["most_container"]).metrics;
    assert!(metrics.cloudwatch_emf);
    assert_eq!(metrics.cloudwatch_namespace, "pgweir");
    assert_eq!(metrics.cloudwatch_proxy_name, format!("orders-{}", "x".repeat(25)));
}

/// The wait for a connection is known only of clients that got one in the end.
#[test]
fn there_is_an_alarm_where_no_client_gets_a_connection_any_more() {
    let Some(stacks) = stacks() else { return };
    let alarm = &stacks["alarms"]["BusyAlarm"];
    let borrowed = ["DatabaseConnectionsCurrentlyBorrowed", "MaxDatabaseConnectionsAllowed"];
    assert_eq!(texts(&alarm["metrics"]), borrowed);
    assert_eq!(texts(&alarm["expressions"]), ["100 * borrowed / allowed"]);
    assert_eq!((&alarm["threshold"], &alarm["minutes"]), (&80.into(), &5.into()));
    // What the README counts.
    let metrics = stacks["alarms"].as_object().unwrap().values();
    let metrics: usize = metrics.map(|alarm| texts(&alarm["metrics"]).len()).sum();
    let readme = std::fs::read_to_string(repository().join("deploy/README.md")).unwrap();
    assert!(readme.contains(&format!("| alarms: {metrics} metrics, ")), "{metrics} metrics");
}

/// An update of a fleet that has grown would cut it down to that number.
#[test]
fn the_number_of_tasks_is_left_to_autoscaling() {
    let Some(stacks) = stacks() else { return };
    assert_eq!(stacks["service"]["LaunchType"], "FARGATE");
    assert!(stacks["service"]["DesiredCount"].is_null());
    let module = std::fs::read_to_string(repository().join("deploy/terraform/service.tf")).unwrap();
    assert!(module.contains("ignore_changes = [desired_count]"));
}

/// A further task takes connections from the clients that are there, who do not move to it.
#[test]
fn it_is_scaled_late_by_clients() {
    let Some(stacks) = stacks() else { return };
    let default = |name: &str| stacks["defaults"][name].as_u64().unwrap();
    assert_eq!(default("ConnectionsPerTask") * 10, default("MaxClientConnections") * 8);
    let lifetime = configuration(&stacks["container"]).proxy.max_client_lifetime;
    assert_eq!(lifetime.as_secs(), default("MaxClientLifetime"));
}

#[test]
fn a_task_stops_after_its_transactions_and_tells_its_health() {
    let Some(stacks) = stacks() else { return };
    let container = &stacks["container"];
    let stop = container["stopTimeout"].as_u64().unwrap();
    let drain = configuration(container).proxy.shutdown_timeout;
    assert!(drain.as_secs() < stop, "{drain:?} of draining, killed after {stop} s");
    assert_eq!(container["readonlyRootFilesystem"], true);
    let command = texts(&container["healthCheck"]["command"]);
    assert_eq!(command, ["CMD", "/usr/local/bin/pgweir", "health"]);
}

#[test]
fn the_example_holds_what_a_closed_network_needs() {
    let Some(stacks) = stacks() else { return };
    let made = texts(&stacks["resources"]);
    for resource in [
        "S3Endpoint",
        "SecretsManagerEndpoint",
        "EcrApiEndpoint",
        "EcrDockerEndpoint",
        "LogsEndpoint",
        "Database",
        "Function",
        "Service",
        "Listener",
        "Dashboard",
    ] {
        assert!(made.contains(&resource), "{resource} is not in {made:?}");
    }
    // Of two stacks before two databases, each has its own metrics.
    assert_eq!(stacks["nested"]["ProxyName"]["Ref"], "AWS::StackName");
    assert_eq!(stacks["function"]["DB_HOST"], "proxy.example.com");
    // With a certificate, its name is what the function connects to, and it is what the function verifies.
    assert_eq!(stacks["tls_function"]["DB_HOST"], "pgweir.internal");
    let authority = stacks["tls_function"]["DB_SSL_CA"].as_str().unwrap();
    assert!(authority.ends_with(":secret:tls-AbCdEf:SecretString:certificate}}"), "{authority}");
}
