//! Our client against our server, and against servers and networks that mean harm.

use super::super::scram::{SCRAM_SHA_256_PLUS, ScramErrorKind};
use super::*;

#[test]
fn each_binding_logs_in_by_the_strongest_mechanism_that_both_have() {
    let table = [
        (ServerBinding::NoTls, None, SCRAM_SHA_256),
        (tls(None), None, SCRAM_SHA_256),
        (tls(None), Some(END_POINT), SCRAM_SHA_256), // says `y`: rightly, PLUS was not offered
        (tls(Some(END_POINT)), None, SCRAM_SHA_256), // says `n`
        (tls(Some(END_POINT)), Some(END_POINT), SCRAM_SHA_256_PLUS),
        (tls(Some(&[1; 64])), Some(&[1; 64]), SCRAM_SHA_256_PLUS),
    ];
    for (binding, end_point, mechanism) in table {
        let outcome = exchange(&binding, end_point, "pencil", &verifier(), untouched);
        assert_eq!(outcome, Ok(mechanism), "{binding:?} {end_point:?}");
        let outcome = exchange(&binding, end_point, "pencil ", &verifier(), untouched);
        assert_eq!(outcome, Err(ScramError::AuthenticationFailed), "{binding:?} {end_point:?}");
    }
}

#[test]
fn another_certificate_in_between_is_noticed() {
    for theirs in [[0x5b; 32].as_slice(), &[0x5a; 31], &[0x5a; 33], &[]] {
        let outcome =
            exchange(&tls(Some(END_POINT)), Some(theirs), "pencil", &verifier(), untouched);
        assert_eq!(outcome, Err(ScramError::BindingMismatch));
    }
    assert_eq!(ScramError::BindingMismatch.kind(), ScramErrorKind::Channel);
}

/// Whoever removes PLUS from the offer makes a capable client say `y`, and that is refused.
#[test]
fn a_downgrade_is_refused() {
    let (client, first) =
        ScramClient::start([SCRAM_SHA_256], Some(END_POINT), &client_nonce()).ok().unwrap();
    assert!(first.starts_with(b"y,,"));
    let refused = start(&tls(Some(END_POINT)), client.mechanism(), &first).err();
    assert_eq!(refused, Some(ScramError::Downgrade));
    // And the flag cannot be turned back on the way.
    let unflag = |step, message: &mut Vec<u8>| {
        if step == 0 {
            message[0] = b'n';
        }
    };
    let outcome = exchange(&tls(None), Some(END_POINT), "pencil", &verifier(), unflag);
    assert_eq!(outcome, Err(ScramError::BindingNotRepeated));
}

#[test]
fn the_client_needs_a_mechanism_that_it_can_do() {
    let none: [&str; 0] = [];
    let start = |offered: &[&'static str], end_point| {
        ScramClient::start(offered.iter().copied(), end_point, &client_nonce()).err()
    };
    assert_eq!(start(&none, Some(END_POINT)), Some(ScramError::NoCommonMechanism));
    assert_eq!(start(&["OAUTHBEARER"], None), Some(ScramError::NoCommonMechanism));
    assert_eq!(start(&[SCRAM_SHA_256_PLUS], None), Some(ScramError::NoCommonMechanism));
    assert_eq!(start(&[SCRAM_SHA_256_PLUS], Some(END_POINT)), None);
    assert_eq!(start(&["OAUTHBEARER", SCRAM_SHA_256], None), None);
}

/// All that a client sees of an unknown user is what it sees of a known one with another password.
#[test]
fn an_unknown_user_and_a_wrong_password_are_answered_alike() {
    let known = ScramVerifier::derive(
        &password("pencil"),
        ScramVerifier::salt_for(&MOCK_KEY, "app"),
        ITERATIONS,
    );
    let unknown = ScramVerifier::mock(&MOCK_KEY, "app", ITERATIONS);
    for (binding, end_point) in
        [(ServerBinding::NoTls, None), (tls(Some(END_POINT)), Some(END_POINT))]
    {
        let seen = |verifier: &ScramVerifier, typed: &str| {
            let mut messages = Vec::new();
            let outcome = exchange(&binding, end_point, typed, verifier, |_, message| {
                messages.push(message.clone());
            });
            (outcome, messages)
        };
        let wrong = seen(&known, "guess");
        assert_eq!(wrong.0, Err(ScramError::AuthenticationFailed));
        assert_eq!(wrong, seen(&unknown, "guess"));
        assert!(seen(&known, "pencil").0.is_ok());
    }
}

#[test]
fn salts_of_unknown_users_are_stable_and_differ_between_users_and_keys() {
    let salt = |key: &[u8; 32], user| *ScramVerifier::mock(key, user, ITERATIONS).salt();
    assert_eq!(salt(&MOCK_KEY, "a"), salt(&MOCK_KEY, "a"));
    assert_ne!(salt(&MOCK_KEY, "a"), salt(&MOCK_KEY, "b"));
    assert_ne!(salt(&MOCK_KEY, "a"), salt(&[4; 32], "a"));
    assert_eq!(salt(&MOCK_KEY, "a"), ScramVerifier::salt_for(&MOCK_KEY, "a"));
}

/// A server that knows the password's stored key only (a leaked backup, say) cannot pose as the real one.
#[test]
fn a_server_without_the_server_key_is_found_out() {
    let mut posing = verifier();
    posing.server_key = ScramVerifier::mock(&MOCK_KEY, "app", ITERATIONS).server_key;
    let outcome = exchange(&ServerBinding::NoTls, None, "pencil", &posing, untouched);
    assert_eq!(outcome, Err(ScramError::ServerSignature));
    assert_eq!(ScramError::ServerSignature.kind(), ScramErrorKind::ServerNotAuthentic);
}

/// The challenge is the same whichever password the client has, as all have one salt.
#[test]
fn any_of_several_passwords_is_met_and_signed_for() {
    let derive = |text: &str| ScramVerifier::derive(&password(text), SALT, ITERATIONS);
    let (new, old, mock) =
        (derive("new"), derive("old"), ScramVerifier::mock(&MOCK_KEY, "app", ITERATIONS));
    let other_salt = ScramVerifier::derive(&password("salted"), [9; 16], ITERATIONS);
    for (typed, is_met) in [("new", true), ("old", true), ("older", false), ("salted", false)] {
        let (client, first) =
            ScramClient::start([SCRAM_SHA_256], None, &client_nonce()).ok().unwrap();
        let (server, server_first) =
            start(&ServerBinding::NoTls, SCRAM_SHA_256, &first).ok().unwrap();
        let challenge = client.challenge(&server_first).ok().unwrap();
        let keys = keys(&challenge, typed);
        let (proof, client_final) = challenge.respond(&keys);
        let finished = server.finish_with(&client_final, &[&new, &mock, &old, &other_salt]);
        match finished {
            Ok(server_final) => assert!(is_met && proof.finish(&server_final).is_ok(), "{typed}"),
            Err(error) => {
                assert!(!is_met && error == ScramError::AuthenticationFailed, "{typed}");
            }
        }
        assert!(server.finish_with(&client_final, &[]).is_err());
    }
}

#[test]
fn a_proof_cannot_be_replayed_to_another_exchange() {
    let mut recorded = Vec::new();
    exchange(&ServerBinding::NoTls, None, "pencil", &verifier(), |step, message| {
        if step == 2 {
            recorded.clone_from(message);
        }
    })
    .unwrap();
    let first = format!("n,,n=,r={}", client_nonce().as_str());
    let nonce = Nonce::from_random(&[7; 18]);
    let (server, _) = ScramServer::start(
        &ServerBinding::NoTls,
        SCRAM_SHA_256,
        first.as_bytes(),
        &verifier(),
        &nonce,
    )
    .ok()
    .unwrap();
    assert_eq!(server.finish(&recorded), Err(ScramError::NonceMismatch));
}

#[test]
fn keys_are_secrets_and_have_no_debug_output() {
    trait NotDebug<A> {
        fn holds() -> bool {
            true
        }
    }
    impl<T> NotDebug<()> for T {}
    struct HasDebug;
    impl<T: std::fmt::Debug> NotDebug<HasDebug> for T {}
    assert!(<ScramKeys as NotDebug<_>>::holds());
    assert!(<ScramVerifier as NotDebug<_>>::holds());
    assert!(<ScramServer as NotDebug<_>>::holds());
}
