//! The files of the other ways to run pgweir: image, service of systemd, module of Terraform.

use crate::support::driver::python;
use crate::support::{absent, on_path, repository, run};
use pgweir::config::{Config, SecretSource};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// The variables of all settings; of an entry of a list, with `#` for its number.
fn settings() -> BTreeSet<String> {
    let mut section = String::new();
    let mut found = BTreeSet::new();
    for line in read("config/reference.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_matches(['[', ']']).clone_into(&mut section);
        }
        let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") else { continue };
        if key.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            let section = section.replace("proxy.auth", "proxy.auth.#").replace('.', "_");
            found.insert(format!("PGWEIR_{section}_{key}").to_ascii_uppercase());
        }
    }
    found
}

/// Every variable that a text names.
fn variables(text: &str) -> BTreeSet<String> {
    let text = text.replace("${index}", "0");
    let mut found = BTreeSet::new();
    for part in text.split("PGWEIR_").skip(1) {
        let end = part.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        let name = format!("PGWEIR_{}", &part[..end.unwrap_or(part.len())]);
        let numbered = name.split('_').map(|word| match word.parse::<u16>() {
            Ok(_) => "#",
            Err(_) => word,
        });
        // `PGWEIR_` and `PGWEIR_...` stand for all of them.
        if name != "PGWEIR_" {
            found.insert(numbered.collect::<Vec<_>>().join("_"));
        }
    }
    found
}

#[test]
fn every_variable_that_is_named_is_a_setting() {
    let settings = settings();
    assert!(settings.contains("PGWEIR_PROXY_AUTH_#_SECRET_ARN"), "{settings:?}");
    for file in [
        "deploy/README.md",
        "deploy/cloudformation/pgweir.yaml",
        "deploy/terraform/service.tf",
        "deploy/ecs/Dockerfile",
    ] {
        let unknown: Vec<_> =
            variables(&read(file)).into_iter().filter(|name| !settings.contains(name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn the_module_has_the_words_of_aws_db_proxy_and_explains_all() {
    let Some(mut script) = python(&repository().join("tests/deploy/terraform.py")) else { return };
    let declared: Value = serde_json::from_str(&run(&mut script)).unwrap();
    for kind in ["variable", "output"] {
        for (name, description) in declared[kind].as_object().unwrap() {
            assert_ne!(description, "", "{kind} {name} has no description");
        }
    }
    // An alias of the endpoint needs its zone.
    assert!(declared["output"]["endpoint_zone_id"].is_string());
    // All arguments of aws_db_proxy but role_arn, which the module makes; of its target group, and of its target.
    for name in [
        "name",
        "auth",
        "default_auth_scheme",
        "debug_logging",
        "engine_family",
        "idle_client_timeout",
        "require_tls",
        "vpc_security_group_ids",
        "vpc_subnet_ids",
        "tags",
        "connection_pool_config",
        "db_instance_identifier",
        "db_cluster_identifier",
        // Whose group may have its rules from elsewhere.
        "manage_database_ingress",
    ] {
        assert!(declared["variable"][name].is_string(), "there is no variable {name}");
    }
    for kind in ["aws_ecs_service", "aws_lb", "aws_appautoscaling_policy", "aws_iam_role"] {
        assert!(declared["resource"][kind].is_array(), "there is no {kind}");
    }
}

/// The program cannot be had from every registry that the tests install from, so its absence is no error.
#[test]
fn the_module_is_formatted() {
    if !on_path("terraform") {
        return eprintln!(
            "terraform is not here: its format is looked at by the job `module` only"
        );
    }
    let mut format = Command::new("terraform");
    format
        .args(["fmt", "-check", "-diff", "-recursive", "deploy/terraform"])
        .current_dir(repository());
    assert_eq!(run(&mut format), "");
}

/// Operations, options, queries and the templates' parameters, against the models of AWS' APIs.
#[test]
fn the_commands_that_the_readme_gives_exist() {
    let Some(mut script) = python(&repository().join("tests/deploy/commands.py")) else { return };
    let said: Vec<String> = serde_json::from_str(&run(&mut script)).unwrap();
    assert!(said.len() >= 20, "{said:?}");
    // A record needs its zone, which can be deleted when the record is.
    let dns: Vec<_> = said.iter().filter_map(|said| said.strip_prefix("route53 ")).collect();
    let change = "change-resource-record-sets";
    assert_eq!(dns, ["create-hosted-zone", change, change, "delete-hosted-zone"]);
}

#[test]
fn the_image_is_built_of_what_is_there() {
    let dockerfile = read("deploy/ecs/Dockerfile");
    let sent: Vec<String> = read(".dockerignore")
        .lines()
        .filter_map(|line| line.strip_prefix('!').map(ToOwned::to_owned))
        .collect();
    let copied: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|rest| !rest.starts_with("--from"))
        .flat_map(|rest| rest.split(' ').rev().skip(1))
        .collect();
    assert!(!copied.is_empty());
    for source in copied {
        assert!(repository().join(source).exists(), "there is no {source}");
        assert!(sent.iter().any(|name| name == source), "{source} is not sent to the build");
    }
    // What Cargo wants to see of each target that the manifest names.
    assert!(sent.iter().any(|name| name == "benches") == read("Cargo.toml").contains("[[bench]]"));
    // Where a task looks for the authorities of RDS.
    for told in ["deploy/cloudformation/pgweir.yaml", "deploy/terraform/service.tf"] {
        assert!(read(told).contains("/etc/pgweir/rds-global-bundle.pem"), "{told}");
    }
    assert!(dockerfile.contains(" /image/etc/pgweir/rds-global-bundle.pem\n"));
    assert!(dockerfile.contains("\nUSER nonroot\n"));
    assert!(dockerfile.contains(r#"CMD ["/usr/local/bin/pgweir", "health"]"#));
}

/// Installs below a directory.
fn install(root: &Path) {
    let mut script = Command::new(repository().join("deploy/ec2/install.sh"));
    run(script.arg(env!("CARGO_BIN_EXE_pgweir")).env("DESTDIR", root));
}

#[test]
fn an_installation_leaves_the_configuration_of_an_older_one_alone() {
    let root = tempfile::tempdir().unwrap();
    install(root.path());
    let file = root.path().join("etc/pgweir/pgweir.toml");
    // As it comes, it lacks nothing but the names of the secret and of the database.
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("REGION:ACCOUNT", "eu-central-1:123456789012");
    let config = Config::parse(&file, Some(&text), std::iter::empty()).unwrap();
    assert!(matches!(config.proxy.auth[0].source, SecretSource::SecretsManager { .. }));
    assert!(config.admin.listen.unwrap().ip().is_loopback());
    assert_eq!(config.target.tls_ca, Some(root.path().join("etc/pgweir/rds-global-bundle.pem")));

    std::fs::write(&file, "mine").unwrap();
    install(root.path());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert!(root.path().join("usr/local/bin/pgweir").exists());
    assert!(!root.path().join("usr/local/bin/pgweir.new").exists());
}

#[test]
fn the_unit_is_clean_and_closed() {
    if !on_path("systemd-analyze") {
        absent("systemd-analyze");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    // The program has to be where the unit says.
    let unit = read("deploy/ec2/pgweir.service")
        .replace("/usr/local/bin/pgweir", env!("CARGO_BIN_EXE_pgweir"));
    let path = root.path().join("pgweir.service");
    std::fs::write(&path, unit).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{said}");
    assert!(!said.contains("pgweir.service"), "{said}");
    // Exposure in tenths of a point, of 100; a unit without any hardening has 96.
    let mut security = Command::new("systemd-analyze");
    run(security.args(["security", "--offline=true", "--threshold=15"]).arg(&path));
    let stop = unit_seconds("TimeoutStopSec=");
    assert!(
        Config::parse("", Some(MINIMAL), std::iter::empty())
            .unwrap()
            .proxy
            .shutdown_timeout
            .as_secs()
            < stop
    );
}

const MINIMAL: &str = "[[proxy.auth]]\nsecret_file = \"a\"\n[target]\nhost = \"a\"\n";

fn unit_seconds(key: &str) -> u64 {
    let unit = read("deploy/ec2/pgweir.service");
    let value = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    value.trim_end_matches('s').parse().unwrap()
}
