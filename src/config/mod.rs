//! Layer 0. The configuration: parsed once from TOML and the environment, into types that need no further check.
//!
//! [`Config::load`] reads the file and [`Config::parse`] does the rest, which is pure. All that is wrong is reported
//! at once. What a key is called, means, takes and is by default stands in one table, `keys`; nothing here opens the
//! files that a configuration names, resolves a host or knows the time.
//!
//! Left to others: reading secrets and certificates (`credentials`, `net`), and acting on SIGHUP (`app`).

mod check;
mod draft;
mod entry_keys;
mod environment;
mod errors;
mod file;
mod key;
mod keys;
mod reference;
mod reload;
mod rules;
mod settings;
mod suggest;
#[cfg(test)]
mod tests;
mod units;
mod value;

use std::io::{self, Read as _};
use std::path::Path;

use draft::Draft;

pub use environment::CONFIG_VARIABLE;
pub use errors::{ConfigErrors, Origin, Problem};
pub use settings::{
    Admin, Auth, AuthScheme, ClientPasswordAuthType, Config, DefaultAuthScheme, Fleet, FleetShare,
    IamAuth, Log, LogFormat, LogLevel, MaxConnections, Metrics, Pem, PinningFilters, Proxy,
    Runtime, SecretSource, Target, TargetTls, TlsFiles,
};
pub use units::ByteSize;

/// Largest configuration file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The environment of this process, without what is not UTF-8: no setting of pgweir's is.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

impl Config {
    /// Reads the file, if there is one, and lets the environment have its say.
    ///
    /// `env` is the whole environment; variables that do not begin with `PGWEIR_` are ignored. (`std::env::vars`
    /// panics when any variable is not UTF-8: use `vars_os` and leave those out.)
    ///
    /// # Errors
    /// The file cannot be read, is larger than 1 MiB or is not UTF-8; and see [`Self::parse`].
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let Some(path) = path else {
            return Self::parse("", None, env);
        };
        match read_text(path) {
            Ok(text) => Self::parse(path, Some(&text), env),
            Err(error) => Err(ConfigErrors::new(vec![Problem {
                origin: Origin::File { name: path.to_owned(), line: None, column: None },
                key: None,
                wrong: format!("cannot be read: {error}"),
                right: "name the configuration file with --config".to_owned(),
            }])),
        }
    }

    /// Makes the configuration of a file's text and the environment, which beats the file. Reads nothing else.
    ///
    /// `file_name` is for messages, and its directory is where relative paths in the text start; those in the
    /// environment start from the working directory. Without `text`, all must come from the environment.
    ///
    /// # Errors
    /// All problems there are, of all kinds at once; after a syntax error, only those of the syntax and of the
    /// environment, because what the file would have said is not known.
    pub fn parse(
        file_name: impl AsRef<Path>,
        text: Option<&str>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let name = file_name.as_ref();
        let mut draft = Draft::new();
        let not_toml = text.map_or(Ok(()), |text| file::read(name, text, &mut draft));
        environment::read(env, &mut draft);
        if let Err(mut problems) = not_toml {
            problems.append(&mut draft.problems);
            return Err(ConfigErrors::new(problems));
        }
        let nowhere = match text {
            Some(_) => Origin::File { name: name.to_owned(), line: None, column: None },
            None => Origin::Environment,
        };
        draft.finish(&nowhere)
    }

    /// The text of `config/reference.toml`: every key with its default and one line of meaning.
    #[must_use]
    pub fn reference() -> String {
        reference::render()
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large; a device or pipe may have no length to ask for.
    std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        io::Error::other(format!("line {line} is not UTF-8"))
    })
}
