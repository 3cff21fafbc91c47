//! Scripts written by hand, for each thing that a session may do.

use super::player::play;
use super::script::Script;
use super::world::World;

#[path = "cases/channels.rs"]
mod channels;
#[path = "cases/functions.rs"]
mod functions;
#[path = "cases/resets.rs"]
mod resets;
#[path = "cases/settings.rs"]
mod settings;
#[path = "cases/statements.rs"]
mod statements;
#[path = "cases/stays.rs"]
mod stays;
#[path = "cases/transactions.rs"]
mod transactions;

/// Plays scripts with each size of the pool. They must be printed as they can be read, too.
fn same(scripts: &[&str]) {
    for servers in 1..=3 {
        let mut world = World::new(servers);
        for text in scripts {
            let script = Script::parse(text);
            assert_eq!(Script::parse(&script.to_string()), script);
            if let Err(discrepancy) = play(&mut world, &script) {
                panic!("\n{discrepancy}");
            }
        }
    }
}
