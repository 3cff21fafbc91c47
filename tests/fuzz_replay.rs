//! Replays the fuzz targets on stable: every input in `tests/fuzz/corpus`, and thousands of changed ones
//! that are the same on each run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

#[path = "fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

/// Changed inputs per target.
const MUTATIONS: usize = 4000;

/// Longest changed input in bytes.
const INPUT_MAX: usize = 4096;

/// Numbers that are the same on each run; Marsaglia's xorshift64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        const OFTEN: [u8; 8] = [0, 1, 4, 0x7f, 0x80, 0xff, b'S', b'='];
        let [byte, choice, ..] = self.next().to_le_bytes();
        if choice < 128 { byte } else { OFTEN[usize::from(choice) % OFTEN.len()] }
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{} has hardly any inputs", dir.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn mutated(corpus: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut input = corpus[numbers.below(corpus.len())].clone();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(6) {
            0 => input.truncate(at),
            1 => input.insert(at, numbers.byte()),
            2 => {
                // Some of another one.
                let other = &corpus[numbers.below(corpus.len())];
                let from = numbers.below(other.len());
                let to = from + numbers.below(other.len() - from + 1);
                input.splice(at..at, other[from..to].iter().copied());
            }
            3 => {
                let end = at + numbers.below(input.len() - at + 1);
                input.drain(at..end);
            }
            _ => {
                let byte = numbers.byte();
                if let Some(place) = input.get_mut(at) {
                    *place = byte;
                }
            }
        }
    }
    input.truncate(INPUT_MAX);
    input
}

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = corpus(name);
    for input in &corpus {
        target(input);
    }
    target(b"");
    let mut numbers = Numbers(0x0070_6777_6569_7221);
    for number in 0..MUTATIONS {
        let input = mutated(&corpus, &mut numbers);
        let outcome = std::panic::catch_unwind(|| target(&input));
        assert!(outcome.is_ok(), "{name}, changed input {number}: {}", input.escape_ascii());
    }
}

#[test]
fn frames_are_read_safely() {
    replay("frame", targets::frame);
}

#[test]
fn startup_packets_are_read_safely() {
    replay("startup", targets::startup);
}

#[test]
fn the_ledger_survives_any_interleaving() {
    replay("ledger", targets::ledger);
}

#[test]
fn scram_accepts_what_is_honest_and_nothing_else() {
    replay("scram", targets::scram);
}

#[test]
fn a_configuration_is_taken_or_refused() {
    replay("config", targets::config);
}
