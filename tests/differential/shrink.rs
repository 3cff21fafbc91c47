//! Makes a failing script small: whatever can go while it still fails, goes.

use super::script::{Item, Script, Step};

/// The smallest script found for which `fails` still holds, in at most `tries` plays.
pub fn shrink(script: Script, mut tries: u32, mut fails: impl FnMut(&Script) -> bool) -> Script {
    let mut best = script;
    loop {
        let before = best.clone();
        for candidate in smaller_scripts(&best) {
            let Some(left) = tries.checked_sub(1) else { return best };
            tries = left;
            if fails(&candidate) {
                best = candidate;
                break;
            }
        }
        if best == before {
            return best;
        }
    }
}

/// Smaller scripts, the smallest first.
fn smaller_scripts(script: &Script) -> impl Iterator<Item = Script> + use<> {
    let mut candidates = Vec::new();
    for client in script.clients() {
        let mut smaller = script.clone();
        smaller.steps.retain(|(owner, _)| *owner != client);
        smaller.startup.retain(|(owner, ..)| *owner != client);
        candidates.push(smaller);
    }
    let mut length = script.steps.len() / 2;
    while length > 0 {
        // What came last is least likely to matter, but for the very last.
        for from in (0..script.steps.len()).step_by(length).rev() {
            let mut smaller = script.clone();
            smaller.steps.drain(from..usize::min(from + length, script.steps.len()));
            candidates.push(smaller);
        }
        length /= 2;
    }
    for at in 0..script.startup.len() {
        let mut smaller = script.clone();
        smaller.startup.remove(at);
        candidates.push(smaller);
    }
    for (at, (_, step)) in script.steps.iter().enumerate() {
        for smaller_step in smaller_steps(step) {
            let mut smaller = script.clone();
            smaller.steps[at].1 = smaller_step;
            candidates.push(smaller);
        }
    }
    candidates.into_iter().filter(|script| !script.steps.is_empty())
}

fn smaller_steps(step: &Step) -> Vec<Step> {
    let Step::Send(items) = step else { return Vec::new() };
    let mut smaller = Vec::new();
    if items.len() > 1 {
        for at in 0..items.len() {
            let mut fewer = items.clone();
            fewer.remove(at);
            smaller.push(Step::Send(fewer));
        }
    }
    for (at, item) in items.iter().enumerate() {
        let mut changed = items.clone();
        match item {
            Item::Query(sql) if sql.contains(';') => {
                for part in sql.split(';').filter(|part| !part.trim().is_empty()) {
                    changed[at] = Item::Query(part.trim().to_owned());
                    smaller.push(Step::Send(changed.clone()));
                }
            }
            Item::Copy { lines, .. } if !lines.is_empty() => {
                if let Item::Copy { lines, .. } = &mut changed[at] {
                    lines.pop();
                }
                smaller.push(Step::Send(changed));
            }
            _ => {}
        }
    }
    smaller.retain(Step::is_whole);
    smaller
}

#[test]
fn only_what_matters_is_left() {
    let script = Script::parse(
        r"a with work_mem = 5MB
        a: SELECT 1
        b: SELECT 2
        a: \parse s SELECT 3 \bind - s \execute - 0 \sync \query SELECT 4
        c: \copy COPY t FROM STDIN \data 1 \data 2 \done
        b: SELECT 5; SELECT 6",
    );
    let shrunk = shrink(script, 1000, |script| {
        let text = script.to_string();
        text.contains("SELECT 3") && text.contains("SELECT 6")
    });
    assert_eq!(shrunk.to_string(), "a: \\parse s SELECT 3 \\query SELECT 4\nb: SELECT 6\n");
}
