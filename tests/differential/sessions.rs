//! Random sessions, played through pools of each size.
//!
//! - `DIFFERENTIAL_SCRIPTS`: how many scripts for each size of the pool.
//! - `DIFFERENTIAL_SEED`: the first script's seed; each next one's is one more.
//! - `DIFFERENTIAL_GROUPS`: what is in them, as names of [`Group`] separated by commas; several such lists are
//!   separated by slashes, and each script is made from one of them.
//! - `DIFFERENTIAL_FAILURES`: how many different failures are reported before a test ends.

use super::generator::{Group, generate};
use super::player::{Discrepancy, play};
use super::script::Script;
use super::shrink::shrink;
use super::world::World;
use std::fmt::Write as _;
use std::time::Instant;

/// What holds already.
const GROUPS: &str = "queries,blocks,savepoints,local,statements,portals,copy,cursors,settings,prepare,\
                      temporary,locks,hold,discard,leaving/\
                      queries,blocks,savepoints,local,statements,portals,copy,cursors,startup,settings,discard,\
                      leaving/\
                      queries,blocks,savepoints,statements,settings,sequences,custom,role,discard,leaving/\
                      queries,blocks,savepoints,local,statements,copy,settings,leaving,listen,ddl";

/// Scripts for each size of the pool, unless told otherwise.
const SCRIPTS: u64 = 700;

/// Most plays to make a failing script small.
const SHRINK_TRIES: u32 = 400;

/// A pgweir that has seen this many scripts is replaced, so that a failure that needs what others
/// left behind can be played again from the seed of the first of them.
const SCRIPTS_EACH: u64 = 50;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

#[test]
fn random_sessions_through_one_server() {
    play_random(1);
}

#[test]
fn random_sessions_through_two_servers() {
    play_random(2);
}

#[test]
fn random_sessions_through_three_servers() {
    play_random(3);
}

fn groups_named(names: &str) -> Vec<Group> {
    let group = |name: &str| Group::named(name).unwrap_or_else(|| panic!("no group {name}"));
    names.split(',').map(|name| group(name.trim())).collect()
}

fn play_random(servers: u32) {
    let scripts = from_environment("DIFFERENTIAL_SCRIPTS", SCRIPTS);
    // Others for each size.
    let first = from_environment("DIFFERENTIAL_SEED", 1) + u64::from(servers - 1) * scripts;
    let names = std::env::var("DIFFERENTIAL_GROUPS").unwrap_or_else(|_| GROUPS.to_owned());
    let lists: Vec<Vec<Group>> = names.split('/').map(groups_named).collect();
    let failures_max = usize::try_from(from_environment("DIFFERENTIAL_FAILURES", 1)).unwrap();
    let mut world = World::new(servers);
    let begun = Instant::now();
    let (mut report, mut failures, mut kinds) = (String::new(), 0, Vec::new());
    for number in 0..scripts {
        if number % SCRIPTS_EACH == 0 && number > 0 {
            world.restart();
        }
        let seed = first + number;
        let groups = &lists[usize::try_from(seed).unwrap() % lists.len()];
        let script = generate(seed, groups);
        let Err(discrepancy) = play(&mut world, &script) else { continue };
        failures += 1;
        let kind = discrepancy.kind();
        if kinds.contains(&kind) {
            let _ = writeln!(report, "\nSeed {seed}: again {kind:?}");
            world.restart();
            continue;
        }
        kinds.push(kind);
        let told = make_small(&mut world, script, &discrepancy);
        let _ = writeln!(report, "\nSeed {seed} with {servers} servers:\n{told}");
        if kinds.len() >= failures_max {
            break;
        }
    }
    eprintln!("{scripts} scripts from seed {first} in {:?}", begun.elapsed());
    assert!(failures == 0, "{failures} scripts failed\n{report}");
}

/// Plays a script that failed again, and ever smaller ones, and tells of the smallest.
fn make_small(world: &mut World, script: Script, discrepancy: &Discrepancy) -> String {
    let mut smallest = None;
    let mut fails = |script: &Script| {
        world.restart();
        match play(world, script) {
            Ok(()) => false,
            Err(found) => {
                // A different fault must not replace the one that was found.
                let same = found.kind() == discrepancy.kind();
                if same {
                    smallest = Some(found);
                }
                same
            }
        }
    };
    if !fails(&script) {
        world.restart();
        return format!("(only after what was played before it)\n{script}\n{discrepancy}");
    }
    let small = shrink(script, SHRINK_TRIES, &mut fails);
    world.restart();
    match smallest {
        Some(found) => format!("{small}\n{found}"),
        None => format!("{small}\n{discrepancy}"),
    }
}
