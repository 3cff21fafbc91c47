//! Label values: always from enums, so that their number is known before the first client comes.
//!
//! The enums live in the layers that know their meaning (a pin reason in `state`, a close reason in
//! `server`). This layer sees them through [`Label`] and is given the lists once, as [`Labels`].

use std::any::TypeId;

/// The closed set of values of one metric label.
pub trait Label: Copy + 'static {
    /// Every value, in the order in which they are shown; `ALL[i].index() == i`.
    const ALL: &'static [Self];

    /// The value as it stands in the metric: `lower_snake_case`.
    fn as_label(self) -> &'static str;

    /// The position in [`Self::ALL`].
    fn index(self) -> usize;
}

/// The values of one [`Label`] type, its type forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSet {
    pub(super) owner: Option<TypeId>,
    pub(super) values: Vec<&'static str>,
}

impl LabelSet {
    /// The values of `L`.
    #[must_use]
    pub fn of<L: Label>() -> Self {
        let values: Vec<_> = L::ALL.iter().map(|label| label.as_label()).collect();
        debug_assert!(
            L::ALL.iter().enumerate().all(|(position, label)| label.index() == position),
            "index() must be the position in ALL: {values:?}",
        );
        debug_assert!(
            values
                .iter()
                .enumerate()
                .all(|(at, value)| !values.iter().take(at).any(|v| v == value)),
            "two labels with one name: {values:?}",
        );
        Self { owner: Some(TypeId::of::<L>()), values }
    }

    /// No values: whatever is counted is shown as `other`.
    #[must_use]
    pub const fn none() -> Self {
        Self { owner: None, values: Vec::new() }
    }
}

/// The label lists of the families whose reasons are defined in higher layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Why a client is pinned.
    pub pins: LabelSet,
    /// Why a server connection was closed.
    pub server_closes: LabelSet,
    /// Why a client was not let in.
    pub login_rejections: LabelSet,
}

impl Labels {
    /// No lists: for tests and benchmarks that do not look at reasons.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            pins: LabelSet::none(),
            server_closes: LabelSet::none(),
            login_rejections: LabelSet::none(),
        }
    }
}

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryProtocol {
    /// One Query message, however many statements its text has.
    Simple,
    /// One Execute message.
    Extended,
}
