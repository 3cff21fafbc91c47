//! From a given value to a checked one: each type of setting, what it takes, and where it goes.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::settings::{AuthScheme, Choice, FleetShare, Pem, PinningFilters};
use super::units::{self, ByteSize, InWords};

/// A value as it was given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Integer(i64),
    Flag(bool),
    /// Words, with commas between them.
    List(&'a str),
    /// From the environment, where all is text.
    Variable(&'a str),
    /// A type of TOML that no setting has; named.
    Unfit(&'static str),
}

/// A value as it was given, and the directory that relative paths in it start from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    pub value: Value<'a>,
    pub directory: &'a Path,
}

impl<'a> Given<'a> {
    fn text(&self) -> Result<&'a str, String> {
        match self.value {
            Value::Text(text) | Value::Variable(text) => Ok(text),
            _ => Err(self.unfit()),
        }
    }

    fn integer(&self) -> Result<i64, String> {
        match self.value {
            Value::Integer(number) => Ok(number),
            Value::Variable(text) => text.parse().map_err(|_| "is not an integer".to_owned()),
            _ => Err(self.unfit()),
        }
    }

    /// A quantity with units: `of` reads its text, and a plain integer is taken as if it were text.
    fn quantity<T>(&self, of: fn(&str) -> Option<T>, what: &str) -> Result<T, String> {
        let read = match self.value {
            Value::Integer(number) => of(&number.to_string()),
            _ => of(self.text()?),
        };
        read.ok_or_else(|| format!("is not a {what}"))
    }

    fn flag(&self) -> Result<bool, String> {
        match self.value {
            Value::Flag(flag) => Ok(flag),
            Value::Variable("true" | "1" | "on") => Ok(true),
            Value::Variable("false" | "0" | "off") => Ok(false),
            Value::Variable(_) => Err("is neither true nor false".to_owned()),
            _ => Err(self.unfit()),
        }
    }

    fn unfit(&self) -> String {
        let kind = match self.value {
            Value::Text(_) | Value::Variable(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Flag(_) => "a boolean",
            Value::List(_) => "a list",
            Value::Unfit(kind) => kind,
        };
        format!("is {kind}")
    }
}

/// A type that a setting can have.
pub(super) trait Setting: Clone + PartialEq + 'static {
    /// What is allowed of the type; differs from key to key.
    type Bounds: Sync + 'static;

    /// What would be right, as the end of "expected ...".
    fn allowed(bounds: &Self::Bounds) -> String;

    /// The range or the words to choose from, for the reference; empty where the type says it all.
    fn range(_bounds: &Self::Bounds) -> String {
        String::new()
    }

    /// # Errors
    /// What is wrong with the value, as the end of "it ..."; does not repeat the value.
    fn read(given: &Given<'_>, bounds: &Self::Bounds) -> Result<Self, String>;
}

/// Smallest and largest value allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between<T>(pub T, pub T);

impl<T: PartialOrd> Between<T> {
    fn check(&self, value: T) -> Result<T, String> {
        if value < self.0 {
            Err("is too small".to_owned())
        } else if value > self.1 {
            Err("is too large".to_owned())
        } else {
            Ok(value)
        }
    }
}

macro_rules! integer {
    ($($name:ty),+) => { $(
        impl Setting for $name {
            type Bounds = Between<Self>;

            fn allowed(bounds: &Self::Bounds) -> String {
                format!("an integer from {}", Self::range(bounds))
            }

            fn range(Between(least, most): &Self::Bounds) -> String {
                format!("{least} to {most}")
            }

            fn read(given: &Given<'_>, bounds: &Self::Bounds) -> Result<Self, String> {
                let number = given.integer()?;
                let Between(least, most) = *bounds;
                // Clamped first, so that the conversion cannot fail for what the bounds allow.
                Between(i64::from(least), i64::from(most)).check(number)?;
                Self::try_from(number).map_err(|_| "is too large".to_owned())
            }
        }
    )+ };
}
integer!(u8, u16, u32);

impl Setting for bool {
    type Bounds = ();

    fn allowed((): &()) -> String {
        "true or false".to_owned()
    }

    fn read(given: &Given<'_>, (): &()) -> Result<Self, String> {
        given.flag()
    }
}

impl Setting for Duration {
    type Bounds = Between<Self>;

    fn allowed(bounds: &Self::Bounds) -> String {
        format!("a duration from {}", Self::range(bounds))
    }

    fn range(Between(least, most): &Self::Bounds) -> String {
        format!("{} to {}", InWords(*least), InWords(*most))
    }

    fn read(given: &Given<'_>, bounds: &Self::Bounds) -> Result<Self, String> {
        bounds.check(given.quantity(units::duration, "duration such as \"30s\" or \"1h30m\"")?)
    }
}

impl Setting for ByteSize {
    type Bounds = Between<Self>;

    fn allowed(bounds: &Self::Bounds) -> String {
        format!("a size from {}", Self::range(bounds))
    }

    fn range(Between(least, most): &Self::Bounds) -> String {
        format!("{least} to {most}")
    }

    fn read(given: &Given<'_>, bounds: &Self::Bounds) -> Result<Self, String> {
        bounds.check(given.quantity(units::size, "size such as \"64KiB\" or \"1GiB\"")?)
    }
}

impl Setting for SocketAddr {
    type Bounds = ();

    fn allowed((): &()) -> String {
        "an IP address and a port such as \"0.0.0.0:5432\" or \"[::]:5432\"".to_owned()
    }

    fn read(given: &Given<'_>, (): &()) -> Result<Self, String> {
        let text = given.text()?;
        text.parse().map_err(|_| "is not an IP address with a port".to_owned())
    }
}

/// `"off"` or nothing stands for `None`.
impl Setting for Option<SocketAddr> {
    type Bounds = ();

    fn allowed((): &()) -> String {
        "an IP address and a port such as \"127.0.0.1:9127\", or \"off\"".to_owned()
    }

    fn read(given: &Given<'_>, (): &()) -> Result<Self, String> {
        match given.text()? {
            "" | "off" => Ok(None),
            _ => SocketAddr::read(given, &()).map(Some),
        }
    }
}

/// What a text must be; the function says what is wrong with one.
pub(super) struct Text {
    pub allowed: &'static str,
    pub check: fn(&str) -> Result<(), &'static str>,
}

impl Setting for String {
    type Bounds = Text;

    fn allowed(bounds: &Text) -> String {
        bounds.allowed.to_owned()
    }

    fn read(given: &Given<'_>, bounds: &Text) -> Result<Self, String> {
        let text = given.text()?;
        (bounds.check)(text)?;
        Ok(text.to_owned())
    }
}

impl Setting for FleetShare {
    /// Most connections.
    type Bounds = u32;

    fn allowed(most: &u32) -> String {
        format!("\"equal\", a percentage such as \"25%\", or an integer from 1 to {most}")
    }

    fn read(given: &Given<'_>, most: &u32) -> Result<Self, String> {
        let connections = |number: i64| {
            Between(1, i64::from(*most)).check(number)?;
            let connections = u32::try_from(number).ok().and_then(NonZeroU32::new);
            connections.map(Self::Connections).ok_or_else(|| "is too small".to_owned())
        };
        if let Value::Integer(number) = given.value {
            return connections(number);
        }
        let text = given.text()?;
        if text == "equal" {
            return Ok(Self::Equal);
        }
        if let Some(number) = text.strip_suffix('%') {
            let percent = number.parse().map_err(|_| "is not a percentage".to_owned())?;
            return Between(1, 100).check(percent).map(Self::Percent);
        }
        match given.value {
            Value::Variable(_) => connections(given.integer()?),
            _ => Err("is neither \"equal\" nor a percentage".to_owned()),
        }
    }
}

impl Setting for PinningFilters {
    type Bounds = ();

    fn allowed((): &()) -> String {
        "a list of: \"EXCLUDE_VARIABLE_SETS\"".to_owned()
    }

    fn range((): &()) -> String {
        "EXCLUDE_VARIABLE_SETS".to_owned()
    }

    fn read(given: &Given<'_>, (): &()) -> Result<Self, String> {
        let (Value::List(words) | Value::Variable(words)) = given.value else {
            return Err(given.unfit());
        };
        let mut filters = Self::default();
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "EXCLUDE_VARIABLE_SETS" => filters.variable_sets = true,
                _ => return Err("has a word that is not allowed".to_owned()),
            }
        }
        Ok(filters)
    }
}

impl Setting for PathBuf {
    type Bounds = ();

    fn allowed((): &()) -> String {
        "the name of a file".to_owned()
    }

    /// A name only: whether the file is there is found out by who reads it.
    fn read(given: &Given<'_>, (): &()) -> Result<Self, String> {
        let text = given.text()?;
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.contains(|c: char| c.is_control())
            || text.starts_with('{')
            || text.starts_with("-----")
        {
            return Err("is a file's content, not its name".to_owned());
        }
        Ok(given.directory.join(text))
    }
}

/// In a variable it may be the text itself, which has no place in a configuration file.
impl Setting for Pem {
    type Bounds = ();

    fn allowed((): &()) -> String {
        PathBuf::allowed(&())
    }

    fn read(given: &Given<'_>, (): &()) -> Result<Self, String> {
        match given.value {
            Value::Variable(text) if text.trim_start().starts_with("-----BEGIN ") => {
                Ok(Self::Text(text.to_owned().into()))
            }
            _ => PathBuf::read(given, &()).map(Self::File),
        }
    }
}

macro_rules! optional {
    ($($name:ty),+) => { $(
        /// `None` only where nothing is given.
        impl Setting for Option<$name> {
            type Bounds = <$name as Setting>::Bounds;

            fn allowed(bounds: &Self::Bounds) -> String {
                <$name>::allowed(bounds)
            }

            fn range(bounds: &Self::Bounds) -> String {
                <$name>::range(bounds)
            }

            fn read(given: &Given<'_>, bounds: &Self::Bounds) -> Result<Self, String> {
                <$name>::read(given, bounds).map(Some)
            }
        }
    )+ };
}
optional!(u32, String, PathBuf, Pem, AuthScheme);

impl<T: Choice> Setting for T {
    type Bounds = ();

    fn allowed((): &()) -> String {
        let words: Vec<_> = words::<T>().map(|word| format!("\"{word}\"")).collect();
        format!("one of {}", words.join(", "))
    }

    fn range((): &()) -> String {
        words::<T>().collect::<Vec<_>>().join(" | ")
    }

    fn read(given: &Given<'_>, (): &()) -> Result<Self, String> {
        let text = given.text()?;
        T::CHOICES
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, choice)| *choice)
            .ok_or_else(|| "is not one of the words allowed".to_owned())
    }
}

fn words<T: Choice>() -> impl Iterator<Item = &'static str> {
    T::CHOICES.iter().map(|(word, _)| *word)
}

/// The place of a setting in its owner `O`.
pub(super) trait Place<O>: Sync {
    /// See [`Setting::allowed`].
    fn allowed(&self) -> String;

    /// See [`Setting::range`].
    fn range(&self) -> String;

    /// Reads a value into its place, which is left as it was on an error.
    ///
    /// # Errors
    /// See [`Setting::read`].
    fn put(&self, owner: &mut O, given: &Given<'_>) -> Result<(), String>;

    /// Whether two owners differ in this place.
    fn differs(&self, a: &O, b: &O) -> bool;

    /// Takes the value of this place over from another owner.
    fn copy(&self, from: &O, to: &mut O);
}

/// The place of a setting of type `T`.
pub(super) struct At<O, T: Setting> {
    pub get: fn(&O) -> &T,
    pub get_mut: fn(&mut O) -> &mut T,
    pub bounds: T::Bounds,
}

impl<O, T: Setting> Place<O> for At<O, T> {
    fn allowed(&self) -> String {
        T::allowed(&self.bounds)
    }

    fn range(&self) -> String {
        T::range(&self.bounds)
    }

    fn put(&self, owner: &mut O, given: &Given<'_>) -> Result<(), String> {
        *(self.get_mut)(owner) = T::read(given, &self.bounds)?;
        Ok(())
    }

    fn differs(&self, a: &O, b: &O) -> bool {
        (self.get)(a) != (self.get)(b)
    }

    fn copy(&self, from: &O, to: &mut O) {
        (self.get)(from).clone_into((self.get_mut)(to));
    }
}
