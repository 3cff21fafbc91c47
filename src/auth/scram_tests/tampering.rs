//! Properties: nothing of an exchange can be changed, and nothing that arrives makes us panic.

use proptest::prelude::*;

use super::super::scram::SCRAM_SHA_256_PLUS;
use super::*;

/// The four messages of each kind of exchange, to know how long they are.
fn lengths(binding: &ServerBinding, end_point: Option<&[u8]>) -> Vec<usize> {
    let mut lengths = Vec::new();
    exchange(binding, end_point, "pencil", &verifier(), |_, message| {
        lengths.push(message.len());
    })
    .unwrap();
    lengths
}

fn bindings() -> [(ServerBinding, Option<&'static [u8]>); 3] {
    [
        (ServerBinding::NoTls, None),
        (tls(None), Some(END_POINT)),
        (tls(Some(END_POINT)), Some(END_POINT)),
    ]
}

/// Every byte of every message, each bit of it, and its absence.
#[test]
fn no_byte_of_an_exchange_can_be_changed() {
    for (binding, end_point) in bindings() {
        for (step, len) in lengths(&binding, end_point).into_iter().enumerate() {
            for at in 0..len {
                for bit in 0..8 {
                    let flip = |now, message: &mut Vec<u8>| {
                        if now == step {
                            message[at] ^= 1 << bit;
                        }
                    };
                    // A flipped bit may ask for up to 9999 iterations, which is fine but slow.
                    let outcome = exchange(&binding, end_point, "pencil", &verifier(), flip);
                    assert!(outcome.is_err(), "{binding:?} message {step} byte {at} bit {bit}");
                }
                let cut = |now, message: &mut Vec<u8>| {
                    if now == step {
                        message.remove(at);
                    }
                };
                let outcome = exchange(&binding, end_point, "pencil", &verifier(), cut);
                assert!(outcome.is_err(), "{binding:?} message {step} without byte {at}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_tampering_fails(
        which in 0..3_usize,
        step in 0..4_usize,
        at: prop::sample::Index,
        removed in 0..3_usize,
        inserted in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let (binding, end_point) = bindings()[which].clone();
        let mut changed = false;
        let tamper = |now, message: &mut Vec<u8>| {
            if now == step {
                let before = message.clone();
                let from = at.index(message.len());
                let to = (from + removed).min(message.len());
                message.splice(from..to, inserted.iter().copied());
                changed = *message != before;
            }
        };
        let outcome = exchange(&binding, end_point, "pencil", &verifier(), tamper);
        prop_assert_eq!(outcome.is_err(), changed);
    }

    #[test]
    fn any_password_logs_in_and_no_other(right in ".{0,20}", wrong in ".{0,20}") {
        let verifier = ScramVerifier::derive(&password(&right), SALT, ITERATIONS);
        let outcome = exchange(&ServerBinding::NoTls, None, &right, &verifier, untouched);
        prop_assert_eq!(outcome, Ok(SCRAM_SHA_256));
        let outcome = exchange(&ServerBinding::NoTls, None, &wrong, &verifier, untouched);
        // Two texts may be one password after preparation, but then their keys are equal.
        let derived = ScramVerifier::derive(&password(&wrong), SALT, ITERATIONS);
        prop_assert_eq!(outcome.is_ok(), derived.stored_key == verifier.stored_key);
    }

    #[test]
    fn any_bytes_are_answered_or_refused(message in prop::collection::vec(any::<u8>(), 0..1100)) {
        for mechanism in [SCRAM_SHA_256, SCRAM_SHA_256_PLUS] {
            let _ = start(&tls(Some(END_POINT)), mechanism, &message);
        }
        prop_assert!(challenged_server().finish(&message).is_err());
        let _ = started_client().challenge(&message);
    }

    /// Text that has the parts of a message, in any order: it comes further than mere bytes.
    #[test]
    fn any_attributes_are_answered_or_refused(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "n", "y", "p=tls-server-end-point", "", "n=", "r=abc", "c=biws", "s=AA==", "i=1",
                "i=99999999999", "m=x", "a=b", "x=", "p=", "v=AAAA", "e=other-error", "=", "r", ",,",
                "p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            ]),
            0..8,
        ),
    ) {
        let message = parts.join(",").into_bytes();
        for mechanism in [SCRAM_SHA_256, SCRAM_SHA_256_PLUS] {
            let _ = start(&tls(Some(END_POINT)), mechanism, &message);
        }
        prop_assert!(challenged_server().finish(&message).is_err());
        prop_assert!(started_client().challenge(&message).is_err());
    }
}
