//! Plays a script to PostgreSQL and to pgweir, step by step, and compares every answer.

use super::holding::{Holding, has_ddl, may_pin, texts};
use super::left_out::{leads_astray, left_out, may_have_begun};
use super::script::{Client, Item, Script, Step};
use super::transcript::{Answers, Describer, Expectation, read_answers};
use super::world::{Side, World, crashes};
use crate::support::messages::frontend;
use crate::support::raw::RawClient;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Longest that a notification may take.
const HEARING_PATIENCE: Duration = Duration::from_secs(5);

/// The first answer that was not the same.
#[derive(Debug)]
pub struct Discrepancy {
    /// Everything that was done before, with the answers that were the same.
    pub story: String,
    /// Who did what that was answered differently.
    pub step: String,
    pub direct: Vec<String>,
    pub pooled: Vec<String>,
}

impl Discrepancy {
    /// The first lines that differ, by their first words.
    pub fn kind(&self) -> (String, String) {
        let differing = self.direct.iter().zip(&self.pooled).position(|(one, other)| one != other);
        let at = differing.unwrap_or_else(|| usize::min(self.direct.len(), self.pooled.len()));
        let words = |lines: &[String]| {
            let line = lines.get(at).map_or("", String::as_str);
            line.split(' ').take(2).collect::<Vec<_>>().join(" ")
        };
        (words(&self.direct), words(&self.pooled))
    }
}

impl fmt::Display for Discrepancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { story, step, direct, pooled } = self;
        write!(f, "{story}{step}\n  directly:\n")?;
        direct.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        writeln!(f, "  through pgweir:")?;
        pooled.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Plays a script once.
///
/// # Errors
/// [`Discrepancy`]. The world must be restarted before it is used again.
pub fn play(world: &mut World, script: &Script) -> Result<(), Box<Discrepancy>> {
    let mut story = String::new();
    let _ = writeln!(story, "With {} servers:", world.servers);
    let mut player = Player { world, seats: Vec::new(), story, now: String::new() };
    // A hang, or what is left behind, is told by a panic.
    let played = catch_unwind(AssertUnwindSafe(|| player.play(script)));
    let (story, step) = (player.story, player.now);
    match played {
        Ok(Ok(())) => Ok(()),
        Ok(Err((direct, pooled))) => Err(Box::new(Discrepancy { story, step, direct, pooled })),
        Err(panic) => {
            let words = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned()))
                .unwrap_or_default();
            let mut pooled = vec![format!("(the test gave up: {words})")];
            pooled.extend(crashes());
            Err(Box::new(Discrepancy { story, step, direct: Vec::new(), pooled }))
        }
    }
}

type Difference = (Vec<String>, Vec<String>);

struct Player<'a> {
    world: &'a mut World,
    /// In the order of their coming.
    seats: Vec<Seat>,
    story: String,
    now: String,
}

/// A client on both sides.
struct Seat {
    client: Client,
    connections: [RawClient; 2],
    expectations: [Expectation; 2],
    holding: Holding,
    /// It may have listened.
    listens: bool,
    /// It may not find all tables any more.
    astray: bool,
    /// A block may be open of which it was not told.
    begun: bool,
    /// The notifications that came so far.
    heard: [Vec<String>; 2],
}

impl Player<'_> {
    fn play(&mut self, script: &Script) -> Result<(), Difference> {
        self.world.reset();
        for (client, step) in &script.steps {
            let block = |seat: &Seat| seat.holding.block.or(seat.begun.then_some('T'));
            let seat = self.seat(*client).map(|seat| (block(seat), seat.astray));
            let (block, astray) = seat.unwrap_or_default();
            if left_out(step, block, astray).is_some() {
                continue;
            }
            match step {
                Step::Send(items) => {
                    // A server is set apart for listening before the step is answered.
                    self.world.listened |= texts(step).any(|sql| sql.contains("LISTEN"));
                    self.make_way(*client, script)?;
                    if self.seat(*client).is_none() && !self.connect(*client, script)? {
                        continue;
                    }
                    if texts(step).any(stops_listening) {
                        self.hear(*client)?;
                    }
                    self.send(*client, items, step)?;
                }
                Step::Quit | Step::Vanish => self.leave(*client, step),
            }
        }
        for client in self.seats.iter().map(|seat| seat.client).collect::<Vec<_>>() {
            self.make_way(client, script)?;
            self.hear(client)?;
        }
        "at the end".clone_into(&mut self.now);
        let own = self.seats.drain(..).map(|seat| seat.own_server()).collect();
        self.world.await_the_same_traces(own);
        let open = self.world.open_servers();
        assert!(open <= self.world.servers, "{open} servers are open");
        if self.world.ddl_seen {
            self.world.restart();
        }
        Ok(())
    }

    fn seat(&mut self, client: Client) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.client == client)
    }

    /// Yields whether the login succeeded, on both sides.
    fn connect(&mut self, client: Client, script: &Script) -> Result<bool, Difference> {
        let parameters = script.parameters(client);
        self.now = format!("{}: (logs in)", client.0);
        let describer = self.world.describer;
        let logins = [Side::Direct, Side::Pooled].map(|side| {
            let (connection, answer) = self.world.log_in(side, &parameters);
            let lines = match answer {
                Ok(()) => {
                    let mut lines = connection.parameters.clone();
                    lines.sort();
                    lines
                }
                Err(refusal) => vec![describer.line(&refusal)],
            };
            (connection, lines)
        });
        let [(direct, direct_said), (pooled, pooled_said)] = logins;
        if direct_said != pooled_said {
            return Err((direct_said, pooled_said));
        }
        if direct_said.iter().any(|line| line.starts_with("ErrorResponse")) {
            return Ok(false);
        }
        self.seats.push(Seat {
            client,
            connections: [direct, pooled],
            expectations: Default::default(),
            holding: Holding::default(),
            listens: false,
            astray: false,
            begun: false,
            heard: Default::default(),
        });
        Ok(true)
    }

    fn send(&mut self, client: Client, items: &[Item], step: &Step) -> Result<(), Difference> {
        self.now = format!("{}: {step}", client.0);
        self.world.ddl_seen |= has_ddl(step);
        let (ddl_seen, describer) = (self.world.ddl_seen, self.world.describer);
        let servers = self.world.servers;
        let Some(seat) = self.seat(client) else { return Ok(()) };
        let bytes: Vec<u8> = items.iter().flat_map(Item::bytes).collect();
        seat.holding.pinned |= texts(step).any(|sql| may_pin(sql, ddl_seen))
            || (ddl_seen && items.iter().any(|item| matches!(item, Item::Bind { .. })));
        let listens = texts(step).any(|sql| sql.contains("LISTEN"));
        seat.listens |= listens;
        seat.begun = may_have_begun(items, seat.begun);
        seat.astray = leads_astray(step, seat.astray, seat.holding.block.is_some());
        // With one server there is none left to listen for all.
        seat.holding.pinned |= listens && servers == 1;
        let [direct, pooled] = seat.say(items, &bytes, describer);
        if direct.lines != pooled.lines {
            return Err((direct.lines, pooled.lines));
        }
        let ends = seat.note(&direct, items);
        let _ = writeln!(self.story, "{}\n    {}", self.now, direct.lines.join("\n    "));
        if ends {
            self.seats.retain(|seat| seat.client != client);
        }
        Ok(())
    }

    /// Both sides of a client have heard the same, in the same order.
    fn hear(&mut self, client: Client) -> Result<(), Difference> {
        let describer = self.world.describer;
        let Some(seat) = self.seat(client) else { return Ok(()) };
        if !seat.listens || seat.holding.block.is_some() || seat.holding.unsynced {
            return Ok(());
        }
        let nothing = Item::Query(String::new());
        let begun = Instant::now();
        loop {
            // PostgreSQL has told all that it will before it answers this.
            let answers = seat.say(std::slice::from_ref(&nothing), &nothing.bytes(), describer);
            let [direct, pooled] = seat.heard.clone();
            if direct == pooled {
                return Ok(());
            }
            if begun.elapsed() > HEARING_PATIENCE || answers.iter().any(|answers| answers.closed) {
                self.now = format!("{}: (has heard)", client.0);
                return Err((direct, pooled));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn leave(&mut self, client: Client, step: &Step) {
        self.now = format!("{}: {step}", client.0);
        let Some(at) = self.seats.iter().position(|seat| seat.client == client) else { return };
        let mut seat = self.seats.remove(at);
        if *step == Step::Quit {
            for connection in &mut seat.connections {
                let _ = connection.try_send(&frontend::terminate());
                connection.until_closed();
            }
        }
        let own = vec![seat.own_server()];
        drop(seat);
        self.world.await_the_same_traces(own);
        let _ = writeln!(self.story, "{}", self.now);
    }

    /// Has other clients let go of servers, until there is one for `client`.
    fn make_way(&mut self, client: Client, script: &Script) -> Result<(), Difference> {
        let holds = self.seat(client).is_some_and(|seat| seat.holding.may_hold());
        if holds && !self.world.listened {
            return Ok(());
        }
        let mut servers = usize::try_from(self.world.servers).unwrap_or(usize::MAX);
        if self.world.listened && servers > 1 {
            // One of them listens.
            servers -= 1;
        }
        loop {
            let holders: Vec<Client> = self
                .seats
                .iter()
                .filter(|seat| seat.client != client && seat.holding.may_hold())
                .map(|seat| seat.client)
                .collect();
            if holders.len() < servers {
                return Ok(());
            }
            self.let_go(holders[0], script)?;
        }
    }

    /// Ends whatever `client` holds its server for.
    fn let_go(&mut self, client: Client, script: &Script) -> Result<(), Difference> {
        let Some(seat) = self.seat(client) else { return Ok(()) };
        let holding = seat.holding;
        let items = if holding.unsynced {
            vec![Item::Sync]
        } else if holding.block.is_some() {
            vec![Item::Query("ROLLBACK".to_owned())]
        } else if script.parameters(client).is_empty() {
            vec![Item::Query("DISCARD ALL".to_owned())]
        } else {
            self.leave(client, &Step::Quit);
            return Ok(());
        };
        let step = Step::Send(items.clone());
        let length = self.story.len();
        if texts(&step).any(stops_listening) {
            self.hear(client)?;
        }
        self.send(client, &items, &step)?;
        // Of no interest, and made again when the script is played again.
        self.story.truncate(length);
        let _ = writeln!(self.story, "({}: {step})", client.0);
        if let Some(seat) = self.seat(client)
            && holding.block.is_none()
            && !holding.unsynced
        {
            // Whatever came of it, there is nothing more to be done.
            seat.holding.pinned = false;
        }
        Ok(())
    }
}

/// True if notifications that come late may not come at all any more.
fn stops_listening(sql: &str) -> bool {
    sql.contains("UNLISTEN") || sql.contains("DISCARD")
}

impl Seat {
    /// Process id of the server that is its alone.
    fn own_server(&self) -> u32 {
        self.connections[Side::Direct as usize].process_id
    }

    /// Sends on both sides and reads the answers.
    fn say(&mut self, items: &[Item], bytes: &[u8], describer: Describer) -> [Answers; 2] {
        [Side::Direct, Side::Pooled].map(|side| {
            let (connection, expectation) =
                (&mut self.connections[side as usize], &mut self.expectations[side as usize]);
            expectation.push(items);
            // What it said before it was closed is still to be read.
            let _ = connection.try_send(bytes);
            let answers = read_answers(connection, expectation, describer);
            self.heard[side as usize].extend_from_slice(&answers.heard);
            answers
        })
    }

    /// Takes note of the answers to `items`. Yields whether the connection is at its end.
    fn note(&mut self, answers: &Answers, items: &[Item]) -> bool {
        if let Some(status) = answers.status {
            self.holding.block = (status != 'I').then_some(status);
        }
        let synced = match items.last() {
            Some(Item::Sync) => true,
            Some(Item::Query(_) | Item::Copy { extended: false, .. }) => {
                !self.expectations[0].is_skipping()
            }
            _ => false,
        };
        self.holding.unsynced = !synced;
        if answers.lines.iter().any(|line| line == "CommandComplete DISCARD ALL")
            && synced
            && self.holding.block.is_none()
            && matches!(items, [Item::Query(sql)] if !sql.contains(';'))
        {
            self.holding.pinned = false;
        }
        answers.closed
    }
}
