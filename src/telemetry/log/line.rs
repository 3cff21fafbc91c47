//! From an event, and the spans around it, to one line.
//!
//! All fields stand on one level, whether they come from the event or from its spans; of two with
//! one name the inner one is shown. A value can neither end its line nor grow without bound.

use super::LogFormat;
use super::queue::Lines;
use serde_json::Value;
use std::error::Error;
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, Scope};

/// Writes each event as a line.
pub(super) struct LineLayer {
    format: LogFormat,
    lines: Lines,
}

impl LineLayer {
    pub(super) fn new(format: LogFormat, lines: Lines) -> Self {
        Self { format, lines }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                of_span.0.iter().for_each(|(name, value)| fields.set(name, value.clone()));
            }
        }
        // A span's field may be called like that too; the message is the event's own.
        fields.0.retain(|(name, _)| *name != MESSAGE);
        event.record(&mut fields);
        let metadata = event.metadata();
        self.lines.push(&line(self.format, *metadata.level(), metadata.target(), fields));
    }
}

/// The line that tells how many lines were lost because the reader of the log was too slow.
pub(super) fn dropped_line(format: LogFormat, dropped: u64) -> String {
    let mut fields = Fields::default();
    fields.set(MESSAGE, "log lines were dropped: their reader is too slow".into());
    fields.set("dropped", dropped.into());
    line(format, Level::WARN, module_path!(), fields)
}

/// The field under which `tracing` gives an event's message.
const MESSAGE: &str = "message";

fn line(format: LogFormat, level: Level, target: &str, mut fields: Fields) -> String {
    let message = match fields.take(MESSAGE) {
        Some(Value::String(message)) => message,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let mut line = match format {
        LogFormat::Text => text(level, target, &message, &fields),
        LogFormat::Json => json(level, target, &message, &fields),
    };
    line.push('\n');
    line
}

fn text(level: Level, target: &str, message: &str, fields: &Fields) -> String {
    let mut line = timestamp();
    // Writing to a String cannot fail.
    let _ = write!(line, " {level:>5} {target}: {}", Plain(message));
    for (name, value) in &fields.0 {
        let _ = match value {
            Value::String(text) if is_word(text) => write!(line, " {name}={text}"),
            other => write!(line, " {name}={}", Plain(&other.to_string())),
        };
    }
    line
}

fn json(level: Level, target: &str, message: &str, fields: &Fields) -> String {
    let mut line = String::from("{");
    let first = [
        ("timestamp", timestamp().into()),
        ("level", level.as_str().into()),
        ("target", target.into()),
        (MESSAGE, message.into()),
    ];
    for (name, value) in &first {
        member(&mut line, "", name, value);
    }
    for (name, value) in &fields.0 {
        let taken = first.iter().any(|(first, _)| first == name);
        member(&mut line, if taken { "field_" } else { "" }, name, value);
    }
    line.push('}');
    line
}

fn member(line: &mut String, prefix: &str, name: &str, value: &Value) {
    if line.len() > 1 {
        line.push(',');
    }
    // A Value is displayed as JSON, a string with its quotes and escapes.
    let _ = write!(line, "{}:{value}", Value::from(format!("{prefix}{name}")));
}

/// Now, in UTC, as RFC 3339 with microseconds.
fn timestamp() -> String {
    let mut text = String::with_capacity(128);
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// Whether a text stands in a line without quotes and cannot be taken for something else.
fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '=');
    !text.is_empty() && text.chars().all(plain)
}

/// A text without control characters: these could end the line or steer a terminal.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
        })
    }
}

/// Most bytes of one value; what is longer is cut.
pub(super) const VALUE_MAX: usize = 2048;

/// The fields of a span or an event, in the order in which they were first given.
#[derive(Debug, Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let position = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(position).1)
    }

    fn set_text(&mut self, field: &Field, text: &dyn fmt::Display) {
        let mut bounded = Bounded::default();
        let _ = write!(bounded, "{text}");
        self.set(field.name(), bounded.text.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set_text(field, &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_text(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }

    /// An error with its causes, each after a colon.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set_text(field, &Chain(value));
    }
}

/// Most causes of an error that are shown.
const CAUSES_MAX: usize = 8;

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        std::iter::successors(self.0.source(), |&error| error.source())
            .take(CAUSES_MAX)
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// Keeps the first [`VALUE_MAX`] bytes of what is written to it.
#[derive(Default)]
struct Bounded {
    text: String,
    full: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.full {
            return Err(fmt::Error);
        }
        let mut room = VALUE_MAX - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        while !more.is_char_boundary(room) {
            room -= 1;
        }
        self.text.push_str(more.get(..room).unwrap_or_default());
        self.text.push('…');
        self.full = true;
        // Whoever formats need not go on.
        Err(fmt::Error)
    }
}
