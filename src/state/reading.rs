//! How a server reads texts, and what is done about texts that were prepared when it was told otherwise.
//!
//! With `standard_conforming_strings` off, a backslash escapes in plain strings: the same bytes are another statement
//! then. What a client has prepared stays what it was, also where a server lacks it and must be told it again. And a
//! text behind a change of this is looked at when it is known what came of that.
//!
//! Source: <https://www.postgresql.org/docs/current/runtime-config-compatible.html#GUC-STANDARD-CONFORMING-STRINGS>

use super::aside;
use super::pin::PinReason;
use super::pipeline::Undo;
use super::server_side::ServerSide;
use super::session::Session;
use super::statement::{Effects, Options};
use super::transaction::TransactionStatus;
use memchr::{memchr, memmem};

/// What of the client's may change it, if it names one of the settings.
pub(super) const REREADS: Effects = Effects::SET_SESSION
    .and(Effects::SET_LOCAL)
    .and(Effects::SET_CONFIG)
    .and(Effects::DO)
    .and(RESETS);

/// What does so without naming one.
const RESETS: Effects = Effects::RESET_ALL.and(Effects::DISCARD_ALL);

/// Whether the server reads the client's next text as it was told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reading {
    #[default]
    Known,
    /// As long as the block is not rolled back in which it was changed.
    InBlock,
    /// It is told when what was sent is answered.
    Unknown,
}

impl Reading {
    /// What has changed in the block may be taken back.
    pub(super) fn may_revert(&mut self) {
        if *self == Self::InBlock {
            *self = Self::Unknown;
        }
    }

    /// All that was sent is answered.
    pub(super) fn answered(&mut self, status: TransactionStatus) {
        *self = match (*self, status) {
            (Self::Known, _) | (_, TransactionStatus::Idle) => Self::Known,
            _ => Self::InBlock,
        };
    }
}

impl Options {
    /// True if `text` is the same under both.
    fn read_alike(self, other: Self, text: &[u8]) -> bool {
        (self.standard_conforming_strings == other.standard_conforming_strings
            || !has_escapes(text))
            && (self.ascii_safe_encoding == other.ascii_safe_encoding || text.is_ascii())
    }
}

impl Session {
    /// Takes note of a statement with these effects that may change how the next texts are read. True if its text, or
    /// a value that is bound to it, says so.
    pub(super) fn note_reading(
        &mut self,
        effects: Effects,
        text: &[u8],
        values: Option<&[u8]>,
    ) -> bool {
        if !effects.intersects(REREADS) {
            return false;
        }
        let changes = changes_reading(text, values);
        if changes || effects.intersects(RESETS) {
            self.reading = Reading::Unknown;
            self.settings_touched = true;
        }
        changes
    }

    /// True if it is not known yet how the server will read `text`: it is given again. What cannot be known before the
    /// end of its own batch stays on the server that reads it.
    pub(super) fn awaits_reading(&mut self, text: &[u8], server: &ServerSide) -> bool {
        if self.reading != Reading::Unknown || (text.is_ascii() && !has_escapes(text)) {
            return false;
        }
        let waits = server.pipeline.awaits_outcome();
        if waits {
            self.channels.wait();
        } else {
            self.pin_for_good(PinReason::Uncertain);
        }
        waits
    }

    /// The effects of a text that was prepared under `options`, where it is looked at now.
    pub(super) fn as_read_now(&self, effects: Effects, options: Options, text: &[u8]) -> Effects {
        if options == self.options || options.read_alike(self.options, text) {
            effects
        } else {
            effects.and(Effects::UNCERTAIN)
        }
    }

    /// How the server reads texts, if that is known.
    pub(super) fn reading(&self) -> Option<Options> {
        (self.reading != Reading::Unknown).then_some(self.options)
    }
}

/// Has `parse` tell the server `text`, which was prepared under `options`, so that it is what it was then. `now` is how
/// the server reads texts otherwise.
pub(super) fn read_as(
    options: Options,
    now: Option<Options>,
    text: &[u8],
    server: &mut ServerSide,
    out: &mut Vec<u8>,
    parse: impl FnOnce(&mut ServerSide, &mut Vec<u8>),
) {
    const BACK: &[u8] = b"SELECT pg_catalog.set_config('standard_conforming_strings', \
        pg_catalog.current_setting('pgweir.strings'), true)";
    let wanted = options.standard_conforming_strings;
    let same = now.is_some_and(|now| now.standard_conforming_strings == wanted);
    if same || !has_escapes(text) {
        return parse(server, out);
    }
    // It is reported when the batch is over: of this, nothing. If something fails on the way, PostgreSQL takes it back.
    let to_wanted = format!(
        "SELECT pg_catalog.set_config('pgweir.strings', \
         pg_catalog.current_setting('standard_conforming_strings'), true), \
         pg_catalog.set_config('standard_conforming_strings', '{}', true)",
        if wanted { "on" } else { "off" }
    );
    aside::run(server, to_wanted.as_bytes(), &[], Undo::Nothing, || Undo::Nothing, out);
    parse(server, out);
    aside::run(server, BACK, &[], Undo::Nothing, || Undo::Nothing, out);
}

/// True if there is something in `text` that `standard_conforming_strings` may give another meaning.
fn has_escapes(text: &[u8]) -> bool {
    memchr(b'\\', text).is_some() || memmem::find(text, b"&'").is_some()
}

/// True if a text, or a value that is bound to it, may change how the next ones are read.
fn changes_reading(text: &[u8], values: Option<&[u8]>) -> bool {
    const SETTINGS: [&[u8]; 2] = [b"standard_conforming_strings", b"client_encoding"];
    let names = |text: &[u8], names: &[&[u8]]| {
        let folded = text.to_ascii_lowercase();
        names.iter().any(|name| memmem::find(&folded, name).is_some())
    };
    names(text, &SETTINGS)
        || names(text, &[b"names"])
        || values.is_some_and(|values| names(values, &SETTINGS))
}

/// How the server reads texts, once it has reported that `name` is `value`.
pub(super) fn read_by(mut options: Options, name: &str, value: &str) -> Options {
    const UNSAFE_ENCODINGS: [&str; 8] =
        ["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "EUC_JIS_2004"];
    match name {
        "standard_conforming_strings" => options.standard_conforming_strings = value != "off",
        "client_encoding" => options.ascii_safe_encoding = !UNSAFE_ENCODINGS.contains(&value),
        _ => {}
    }
    options
}
