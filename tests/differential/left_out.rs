//! Steps that are not played where they come up: what is known to differ still, and what PostgreSQL itself cannot take.
//!
//! Each is a debt. Whoever pays it removes the rule here.

use super::holding::texts;
use super::script::{Item, Step};

/// Why `step` is left out for a client whose block has this status; `None` if it is played.
pub fn left_out(step: &Step, block: Option<char>) -> Option<&'static str> {
    let Step::Send(items) = step else { return None };
    let failed = block == Some('E');
    let in_block = block.is_some() || texts(step).any(begins_block);
    if runs_portal_of_failed_block(items, failed, in_block) {
        return Some("PostgreSQL 15 crashes when a portal of a failed block is executed");
    }
    if failed && items.iter().any(|item| uses_statement(item, true)) {
        return Some("in a failed block, statements that a server has already are not refused");
    }
    let first_end = items.iter().position(|item| matches!(item, Item::Sync | Item::Query(_)));
    let behind = first_end.map_or(&[][..], |at| &items[at..]);
    if in_block && behind.iter().any(|item| uses_statement(item, false)) {
        return Some("the same, where the block fails earlier in what is sent at once");
    }
    None
}

fn begins_block(sql: &str) -> bool {
    let upper = sql.to_ascii_uppercase();
    upper.contains("BEGIN") || upper.contains("START") || upper.contains("CHAIN")
}

/// A statement is prepared or used by a name that it may have on the server already.
fn uses_statement(item: &Item, named_only: bool) -> bool {
    match item {
        Item::Parse { name, .. } => !named_only || !name.is_empty(),
        Item::Bind { .. } | Item::Copy { extended: true, .. } => true,
        _ => false,
    }
}

/// Each portal must be bound in the batch that executes it, if the block may have failed before.
fn runs_portal_of_failed_block(items: &[Item], failed: bool, in_block: bool) -> bool {
    let mut may_have_failed = failed;
    let mut bound: Vec<&str> = Vec::new();
    for item in items {
        match item {
            Item::Bind { portal, .. } => bound.push(portal),
            Item::Execute { portal, .. } | Item::Describe { kind: 'P', name: portal }
                if may_have_failed && !bound.contains(&portal.as_str()) =>
            {
                return true;
            }
            Item::Sync | Item::Query(_) => {
                bound.clear();
                may_have_failed |= in_block;
            }
            _ => {}
        }
    }
    false
}
