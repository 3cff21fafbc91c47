//! The table of settings of an entry of `[[proxy.auth]]`, one database user. See [`super::keys`].

use super::draft::Entry;
use super::keys::{Example, Fallback, Key, at};
use super::rules;
use super::value::At;

/// Keys of an entry, in the order of the reference.
pub(super) static ENTRY_KEYS: &[Key<Entry>] = &[
    Key::new(
        "secret_file",
        Fallback::Absent(Example::Text("app-user.json")),
        "File with the user's name and password, {\"username\": \"...\", \"password\": \"...\"}; this or secret_arn",
        at!(Entry.secret_file),
    )
    .pgbouncer(&["auth_file"])
    .live()
    .secret(),
    Key::new(
        "secret_arn",
        Fallback::Absent(Example::Text(
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app-user-AbCdEf",
        )),
        "The same as a secret of AWS Secrets Manager",
        at!(Entry.secret_arn, rules::SECRET),
    )
    .live()
    .secret(),
    Key::new(
        "username",
        Fallback::Absent(Example::Text("app_user")),
        "The user's name where there is no secret: with iam_auth REQUIRED",
        at!(Entry.username, rules::USERNAME),
    )
    .live()
    .secret(),
    Key::new(
        "client_password_auth_type",
        Fallback::Text("POSTGRES_SCRAM_SHA_256"),
        "How clients prove that they know the password",
        at!(Entry.client_password_auth_type),
    )
    .pgbouncer(&["auth_type"])
    .live(),
    Key::new(
        "iam_auth",
        Fallback::Text("DISABLED"),
        "Whether clients log in with an RDS IAM token for the target instead of a password, and pgweir then too; needs TLS",
        at!(Entry.iam_auth),
    )
    .live(),
    Key::new(
        "auth_scheme",
        Fallback::Absent(Example::Text("IAM_AUTH")),
        "How servers are logged in to as this user; default IAM_AUTH with iam_auth REQUIRED, or else as default_auth_scheme says",
        at!(Entry.auth_scheme),
    )
    .live(),
];
