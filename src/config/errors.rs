//! What is wrong with a configuration: every problem at once, each with its place, its key and what would be right.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

/// Most problems kept: somebody who gave the wrong file wants to see that, not all of it.
pub(super) const PROBLEMS_MAX: usize = 100;

/// Longest piece of somebody's text repeated in a message, in characters.
const SHOWN_MAX: usize = 80;

/// Where a value was given, or should have been.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration file.
    File {
        /// Its name, as given.
        name: PathBuf,
        /// Counted from 1; `None` when no line is to blame.
        line: Option<usize>,
        /// In characters, counted from 1; only of syntax errors.
        column: Option<usize>,
    },
    /// An environment variable, by its name.
    Variable(String),
    /// The environment as a whole, when there is no file.
    Environment,
    /// The table of keys in this program.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column } => {
                escape(f, name.to_string_lossy().chars())?;
                [line, column].into_iter().flatten().try_for_each(|number| write!(f, ":{number}"))
            }
            Self::Variable(name) => write!(f, "environment variable {}", Plain(name)),
            Self::Environment => f.write_str("environment"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was found.
    pub origin: Origin,
    /// The setting, as `section.key`; `None` when it concerns the file as a whole.
    pub key: Option<String>,
    /// What is wrong.
    pub wrong: String,
    /// What would be right; may be empty.
    pub right: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(f, "{}: ", Plain(key))?;
        }
        f.write_str(&self.wrong)?;
        if self.right.is_empty() {
            return Ok(());
        }
        write!(f, "; {}", self.right)
    }
}

/// All that is wrong with a configuration; at least one problem. One line each when displayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
    /// How many there were beyond those kept.
    left_out: usize,
}

impl ConfigErrors {
    /// Orders the problems by where they are: the file's by line, then the environment's by variable.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| place(a).cmp(&place(b)));
        let left_out = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        Self { problems, left_out }
    }

    /// The problems, in the order of their places; the first 100 if there are more.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// A problem without a line comes after those that have one.
fn place(problem: &Problem) -> (bool, &Origin) {
    let whole_file = matches!(problem.origin, Origin::File { line: None, .. });
    (whole_file, &problem.origin)
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.left_out > 0 {
            write!(f, "\nand {} more", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Somebody's text inside a message: escaped, so that it stays on one line, and cut if it is long.
pub(super) struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.chars();
        escape(f, rest.by_ref().take(SHOWN_MAX))?;
        f.write_str(if rest.next().is_some() { "..." } else { "" })
    }
}

fn escape(f: &mut fmt::Formatter<'_>, mut text: impl Iterator<Item = char>) -> fmt::Result {
    text.try_for_each(|character| {
        if character.is_control() {
            write!(f, "{}", character.escape_default())
        } else {
            f.write_char(character)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(origin: Origin, key: &str) -> Problem {
        Problem {
            origin,
            key: Some(key.to_owned()),
            wrong: "is wrong".to_owned(),
            right: "write it right".to_owned(),
        }
    }

    fn file(line: Option<usize>) -> Origin {
        Origin::File { name: "pgweir.toml".into(), line, column: None }
    }

    #[test]
    fn problems_are_one_per_line_in_the_order_of_their_places() {
        let errors = ConfigErrors::new(vec![
            problem(Origin::Variable("PGWEIR_B".to_owned()), "b"),
            problem(file(None), "whole"),
            problem(file(Some(12)), "twelve"),
            problem(file(Some(2)), "two"),
        ]);
        assert_eq!(
            errors.to_string(),
            "pgweir.toml:2: two: is wrong; write it right\n\
             pgweir.toml:12: twelve: is wrong; write it right\n\
             environment variable PGWEIR_B: b: is wrong; write it right\n\
             pgweir.toml: whole: is wrong; write it right"
        );
    }

    #[test]
    fn of_endless_problems_the_first_are_kept_and_the_rest_counted() {
        let problems = (0..PROBLEMS_MAX + 7).map(|line| problem(file(Some(line)), "key"));
        let errors = ConfigErrors::new(problems.rev().collect());
        assert_eq!(errors.problems().len(), PROBLEMS_MAX);
        assert!(errors.to_string().starts_with("pgweir.toml:0: "));
        assert!(errors.to_string().ends_with("\nand 7 more"));
    }

    #[test]
    fn text_of_others_stays_on_its_line_and_is_cut() {
        assert_eq!(Plain("a\nb\u{1b}[0m").to_string(), "a\\nb\\u{1b}[0m");
        let long = "x".repeat(SHOWN_MAX + 1);
        assert_eq!(Plain(&long).to_string().len(), SHOWN_MAX + 3);
    }
}
