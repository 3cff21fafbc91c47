//! What the settings that are text may contain.

use super::value::Text;

/// Longest DNS name, in characters (RFC 1035, 2.3.4).
const HOST_MAX: usize = 253;

/// Longest name of a secret, in characters; an ARN has a little more before it.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>
const SECRET_MAX: usize = 1024;

/// Longest `init_query`, in bytes.
const QUERY_MAX: usize = 65_536;

/// Longest name of a fleet: PostgreSQL cuts `application_name` at 63 bytes, and more stands in it.
pub(super) const FLEET_MAX: usize = 32;

/// Longest namespace and longest value of a dimension that CloudWatch takes.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html>
const NAMESPACE_MAX: usize = 255;
const DIMENSION_MAX: usize = 1024;

/// The name of a fleet.
pub(super) const FLEET: Text = Text {
    allowed: "letters, digits, \"-\", \"_\" and \".\", 32 at most, or nothing",
    check: fleet,
};

/// A namespace of CloudWatch.
pub(super) const NAMESPACE: Text = Text {
    allowed: "letters, digits and any of \".-_/#:\", 255 at most, not beginning with \"AWS/\"",
    check: namespace,
};

/// The value of a dimension of CloudWatch.
pub(super) const DIMENSION: Text =
    Text { allowed: "printable ASCII, 1024 at most", check: dimension };

/// A host to connect to over TCP.
pub(super) const HOST: Text = Text { allowed: "a host name or an IP address", check: host };

/// A secret of Secrets Manager.
pub(super) const SECRET: Text = Text {
    allowed: "an ARN as arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME, or the name of a secret",
    check: secret,
};

/// A database user.
pub(super) const USERNAME: Text =
    Text { allowed: "the name of a database user, at most 63 bytes", check: username };

/// SQL.
pub(super) const QUERY: Text = Text { allowed: "SQL of at most 64KiB", check: query };

fn host(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.contains("://") {
        return Err("is a URL");
    }
    if text.starts_with('/') {
        return Err("is a Unix socket, which is not supported");
    }
    let is_address = text.parse::<std::net::Ipv6Addr>().is_ok();
    if text.contains(':') && !is_address {
        return Err("has a port or brackets (the port is target.port)");
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || is_address;
    if text.len() > HOST_MAX || !text.chars().all(fits) {
        return Err("is not a host name");
    }
    Ok(())
}

fn secret(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || ":/_+=.@-!".contains(c);
    if text.len() > SECRET_MAX || !text.chars().all(fits) {
        return Err("is neither an ARN nor a name (a secret's content does not belong here)");
    }
    if !text.starts_with("arn:") {
        return if text.contains(':') { Err("is neither an ARN nor a name") } else { Ok(()) };
    }
    let parts: Vec<_> = text.splitn(7, ':').collect();
    match parts.as_slice() {
        [_, partition, "secretsmanager", region, account, "secret", name]
            if [partition, region, account, name].iter().all(|part| !part.is_empty()) =>
        {
            Ok(())
        }
        _ => Err("is not the ARN of a secret"),
    }
}

fn fleet(text: &str) -> Result<(), &'static str> {
    if text.len() > FLEET_MAX {
        return Err("is too long");
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.chars().all(fits) { Ok(()) } else { Err("has a character that is not allowed") }
}

fn namespace(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > NAMESPACE_MAX {
        return Err("is too long");
    }
    if text.starts_with("AWS/") {
        return Err("is reserved for AWS");
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_/#:".contains(c);
    if text.chars().all(fits) { Ok(()) } else { Err("has a character that is not allowed") }
}

fn dimension(text: &str) -> Result<(), &'static str> {
    if text.trim().is_empty() {
        return Err("is empty");
    }
    if text.starts_with(':') {
        return Err("begins with a colon");
    }
    if text.len() > DIMENSION_MAX {
        return Err("is too long");
    }
    let fits = |c: char| c.is_ascii_graphic() || c == ' ';
    if text.chars().all(fits) { Ok(()) } else { Err("has a character that is not allowed") }
}

fn username(text: &str) -> Result<(), &'static str> {
    /// PostgreSQL's `NAMEDATALEN` less its zero byte.
    const NAME_MAX: usize = 63;
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > NAME_MAX || text.chars().any(char::is_control) {
        return Err("is not the name of a database user");
    }
    Ok(())
}

fn query(text: &str) -> Result<(), &'static str> {
    if text.contains('\0') {
        return Err("contains a zero byte");
    }
    if text.len() > QUERY_MAX {
        return Err("is too long");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses() {
        for text in
            ["localhost", "10.0.0.1", "::1", "fe80::1", "db_1.example.com", "db.example.com."]
        {
            assert_eq!(host(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "db:5432",
            "[::1]",
            "postgres://db",
            "/run/postgresql",
            "a b",
            "a\nb",
            "b\u{fc}cher",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
        assert!(host(&"a".repeat(HOST_MAX + 1)).is_err());
    }

    #[test]
    fn secrets_are_arns_and_names() {
        for text in [
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app/user-AbCdEf",
            "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:rds!db-1234",
            "prod/app-user",
        ] {
            assert_eq!(secret(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "arn:aws:s3:::bucket",
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:",
            "arn:aws:secretsmanager::123456789012:secret:name",
            "arn:aws:rds:eu-central-1:123456789012:db:name",
            "{\"password\": \"x\"}",
            "user:password",
            "a b",
        ] {
            assert!(secret(text).is_err(), "{text}");
        }
        assert!(secret(&"a".repeat(SECRET_MAX + 1)).is_err());
    }

    #[test]
    fn a_fleet_has_a_short_plain_name_or_none() {
        for text in ["", "orders", "orders-eu.1_b", &"a".repeat(FLEET_MAX)] {
            assert_eq!(fleet(text), Ok(()), "{text}");
        }
        for text in ["a:b", "a b", "a'b", "\u{fc}", "a/b", &"a".repeat(FLEET_MAX + 1)] {
            assert!(fleet(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_for_cloudwatch_are_those_that_it_takes() {
        for text in ["pgweir", "My/App:1#x_y.z-0", &"a".repeat(NAMESPACE_MAX)] {
            assert_eq!(namespace(text), Ok(()), "{text}");
        }
        for text in ["", "AWS/RDS", "a b", "a\nb", &"a".repeat(NAMESPACE_MAX + 1)] {
            assert!(namespace(text).is_err(), "{text}");
        }
        assert_eq!(dimension("orders proxy (eu)"), Ok(()));
        for text in ["", " ", ":a", "a\tb", "\u{fc}", &"a".repeat(DIMENSION_MAX + 1)] {
            assert!(dimension(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_query_has_a_bound_and_no_zero_byte() {
        assert_eq!(query(""), Ok(()));
        assert_eq!(query("SET a = 1;\nSET b = 2"), Ok(()));
        assert!(query("SELECT 1\0").is_err());
        assert!(query(&" ".repeat(QUERY_MAX + 1)).is_err());
    }
}
