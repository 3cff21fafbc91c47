//! Steps that are not played where they come up: what is known to differ still, and what PostgreSQL itself cannot take.
//!
//! Each is a debt. Whoever pays it removes the rule here.

use super::holding::texts;
use super::script::{Item, Step};
use crate::support::postgres::all_newest;

/// Why `step` is left out for a client whose block has this status; `None` if it is played. `astray`: it may not find
/// the tables any more that it prepared statements over.
pub fn left_out(step: &Step, block: Option<char>, astray: bool) -> Option<&'static str> {
    let Step::Send(items) = step else { return None };
    let failed = block == Some('E');
    let in_block = block.is_some() || texts(step).any(begins_block);
    if runs_portal_of_failed_block(items, failed, in_block) {
        return Some("PostgreSQL 15 crashes when a portal of a failed block is executed");
    }
    if all_newest() && has_query_in_a_pipeline(items) {
        return Some(
            "PostgreSQL 18 forgets to end the transaction of a pipeline with a simple query in its middle",
        );
    }
    if chooses_isolation_behind_a_parse(items) {
        return Some("a Parse of what the server has already takes no snapshot there");
    }
    if uses_what_may_be_lost(items, failed, in_block) {
        return Some(
            "in a failed block, a statement that the server lost is refused before its values are counted",
        );
    }
    if astray
        && (uses_what_may_be_lost(items, true, in_block)
            || texts(step).any(|sql| sql.contains("EXECUTE")))
    {
        return Some(
            "where its tables are not found, a statement that the server lacks is refused before its values are counted",
        );
    }
    None
}

/// True if a client may not find all tables behind this, who was `astray` before, and in a block or not.
pub fn leads_astray(step: &Step, astray: bool, in_block: bool) -> bool {
    let leads = texts(step).any(|sql| sql.contains("search_path") && sql.contains("''"));
    let leads_back = || {
        let resets = ["RESET search_path", "RESET ALL", "DISCARD ALL"];
        matches!(step, Step::Send(items) if matches!(items.as_slice(),
            [Item::Query(sql)] if resets.contains(&sql.as_str())))
    };
    leads || (astray && (in_block || !leads_back()))
}

/// A simple query in the middle of a batch that begins with something else.
fn chooses_isolation_behind_a_parse(items: &[Item]) -> bool {
    let mut parsed = false;
    items.iter().any(|item| {
        match item {
            Item::Parse { .. } => parsed = true,
            Item::Sync => parsed = false,
            _ => {}
        }
        parsed && matches!(item, Item::Query(sql) if sql.to_ascii_uppercase().contains("ISOLATION"))
    })
}

fn has_query_in_a_pipeline(items: &[Item]) -> bool {
    let mut executed = false;
    items.iter().any(|item| {
        match item {
            Item::Execute { .. } | Item::Copy { extended: true, .. } => executed = true,
            Item::Sync => executed = false,
            _ => {}
        }
        executed && matches!(item, Item::Query(_) | Item::Copy { extended: false, .. })
    })
}

/// True if a block may be open behind `items` without anybody having been told so, `begun` if one was before.
pub fn may_have_begun(items: &[Item], begun: bool) -> bool {
    let is_told = matches!(items.last(), Some(Item::Sync | Item::Query(_)));
    let begins = |item: &Item| matches!(item, Item::Parse { sql, .. } if begins_block(sql));
    !is_told && (begun || items.iter().any(begins))
}

fn begins_block(sql: &str) -> bool {
    let upper = sql.to_ascii_uppercase();
    upper.contains("BEGIN") || upper.contains("START") || upper.contains("CHAIN")
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

/// A statement is bound or described that was prepared in an earlier batch, and may not be prepared again since:
/// because the block has failed, for one.
fn uses_what_may_be_lost(items: &[Item], failed: bool, in_block: bool) -> bool {
    let mut may_have_failed = failed;
    let mut parsed: Vec<&str> = Vec::new();
    for item in items {
        match item {
            // The same of one that exists, by a text that is not refused for the block.
            Item::Parse { name, sql }
                if may_have_failed
                    && !name.is_empty()
                    && ["", "COMMIT"].contains(&sql.as_str()) =>
            {
                return true;
            }
            Item::Parse { name, .. } => parsed.push(name),
            Item::Bind { statement: name, .. } | Item::Describe { kind: 'S', name }
                if may_have_failed && !parsed.contains(&name.as_str()) =>
            {
                return true;
            }
            Item::Sync | Item::Query(_) => {
                parsed.clear();
                may_have_failed |= in_block;
            }
            _ => {}
        }
    }
    false
}
