//! Tables of malformed messages, each with the error that names what is wrong with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::scram::{
    ITERATIONS_MAX, SCRAM_SHA_256_PLUS, ScramErrorKind, ScramParameters, ServerRefusal,
};
use super::super::scram_client::SERVER_MESSAGE_LEN_MAX;
use super::super::scram_server::CLIENT_MESSAGE_LEN_MAX;
use super::*;

#[test]
fn a_malformed_client_first_is_refused_for_what_it_is() {
    use ScramError as E;
    let long = format!("n,,n=,r={}", "a".repeat(CLIENT_MESSAGE_LEN_MAX - 7));
    let table = [
        ("", E::Empty),
        (&long, E::TooLong { len: 1025, max: 1024 }),
        ("n,,n=,r=a\0", E::Nul),
        ("n", E::BindingHeader),
        ("n,", E::BindingHeader),
        ("x,,n=,r=a", E::BindingHeader),
        ("nn,,n=,r=a", E::BindingHeader),
        ("n=,r=a", E::BindingHeader),
        ("n,n=,r=a", E::BindingHeader),
        ("p,,n=,r=a", E::BindingHeader),
        ("n,a=admin,n=,r=a", E::AuthorizationIdentity),
        ("n,,m=x,n=,r=a", E::MandatoryExtension),
        ("n,,", E::AttributeExpected('n')),
        ("n,,r=a,n=", E::AttributeExpected('n')),
        ("n,,n=", E::AttributeExpected('r')),
        ("n,,n=,x=a", E::AttributeExpected('r')),
        ("n,,n=,r=", E::MalformedNonce),
        ("n,,n=,r=a b", E::MalformedNonce),
        ("n,,n=,r=\u{e9}", E::MalformedNonce),
        ("n,,n=,r=a,", E::NotAnAttribute),
        ("n,,n=,r=a,garbage", E::NotAnAttribute),
    ];
    for (message, expected) in table {
        let refused = start(&ServerBinding::NoTls, SCRAM_SHA_256, message.as_bytes()).err();
        assert_eq!(refused, Some(expected), "{message:?}");
        assert_ne!(expected.kind(), ScramErrorKind::AuthenticationFailed);
    }
}

#[test]
fn mechanism_offer_and_header_have_to_agree() {
    use ScramError as E;
    let (clear, bound) = (ServerBinding::NoTls, tls(Some(END_POINT)));
    let (plain, plus) = (SCRAM_SHA_256, SCRAM_SHA_256_PLUS);
    let table = [
        (&clear, plain, "p=tls-server-end-point", E::BindingUnexpected),
        (&clear, plus, "p=tls-server-end-point", E::MechanismNotOffered),
        (&clear, "SCRAM-SHA-1", "n", E::MechanismNotOffered),
        (&clear, "", "n", E::MechanismNotOffered),
        (&bound, plain, "p=tls-server-end-point", E::BindingUnexpected),
        (&bound, plus, "p=tls-unique", E::BindingType),
        (&bound, plus, "p=", E::BindingType),
        (&bound, plus, "n", E::BindingMissing),
        (&bound, plus, "y", E::BindingMissing),
        (&bound, plain, "y", E::Downgrade),
    ];
    for (binding, mechanism, flag, expected) in table {
        let message = format!("{flag},,n=,r=a");
        let refused = start(binding, mechanism, message.as_bytes()).err();
        assert_eq!(refused, Some(expected), "{mechanism} {flag:?}");
    }
}

#[test]
fn a_client_first_with_a_name_and_optional_extensions_is_accepted() {
    for message in ["n,,n=somebody,r=a", "y,,n=a=2Cb,r=a,x=1,y=", "n,,n=\u{e9},r=a"] {
        assert!(start(&tls(None), SCRAM_SHA_256, message.as_bytes()).is_ok(), "{message}");
    }
}

#[test]
fn a_malformed_client_final_is_refused_for_what_it_is() {
    use ScramError as E;
    let r = format!("{}{}", client_nonce().as_str(), server_nonce().as_str());
    let p = STANDARD.encode([0; 32]);
    let table = [
        (String::new(), E::Empty),
        ("a".repeat(1025), E::TooLong { len: 1025, max: 1024 }),
        (format!("c=biws,r={r}\0,p={p}"), E::Nul),
        (format!("r={r},p={p}"), E::AttributeExpected('c')),
        (format!("c=biws,p={p}"), E::AttributeExpected('r')),
        (format!("c=biws,r={r}"), E::AttributeExpected('p')),
        (format!("c=biws,r={r},"), E::AttributeExpected('p')),
        (format!("c=biws,r={r},x=1"), E::AttributeExpected('p')),
        (format!("c=biws,r={r},p={p},"), E::Garbage),
        (format!("c=biws,r={r},p={p},p={p}"), E::Garbage),
        (format!("c=biws,r={r},p="), E::MalformedValue('p')),
        (format!("c=biws,r={r},p=****"), E::MalformedValue('p')),
        (format!("c=biws,r={r},p={}", STANDARD.encode([0; 31])), E::MalformedValue('p')),
        (format!("c=biws,r={r},p={}", STANDARD.encode([0; 33])), E::MalformedValue('p')),
        (format!("c=eSws,r={r},p={p}"), E::BindingNotRepeated),
        (format!("c=,r={r},p={p}"), E::BindingNotRepeated),
        (format!("c=biws,r={},p={p}", client_nonce().as_str()), E::NonceMismatch),
        (format!("c=biws,r={r}x,p={p}"), E::NonceMismatch),
        (format!("c=biws,r=,p={p}"), E::NonceMismatch),
        (format!("c=biws,r={r},p={p}"), E::AuthenticationFailed),
        (format!("c=biws,r={r},x=1,p={p}"), E::AuthenticationFailed),
    ];
    for (message, expected) in table {
        let refused = challenged_server().finish(message.as_bytes()).err();
        assert_eq!(refused, Some(expected), "{message:?}");
    }
}

#[test]
fn a_malformed_server_first_is_refused_for_what_it_is() {
    use ScramError as E;
    let nonce = client_nonce();
    let r = format!("{}more", nonce.as_str());
    let s = STANDARD.encode(SALT);
    let table = [
        (String::new(), E::Empty),
        ("a".repeat(2001), E::TooLong { len: 2001, max: SERVER_MESSAGE_LEN_MAX }),
        (format!("r={r},s={s},i=4096\0"), E::Nul),
        (format!("m=x,r={r},s={s},i=4096"), E::MandatoryExtension),
        (format!("s={s},r={r},i=4096"), E::AttributeExpected('r')),
        (format!("r={r},i=4096"), E::AttributeExpected('s')),
        (format!("r={r},s={s}"), E::AttributeExpected('i')),
        (format!("r={r},s={s},i=4096,"), E::Garbage),
        (format!("r={r},s={s},i=4096,x=1"), E::Garbage),
        (format!("r=other,s={s},i=4096"), E::NonceMismatch),
        (format!("r=,s={s},i=4096"), E::NonceMismatch),
        (format!("r={},s={s},i=4096", nonce.as_str()), E::MalformedNonce),
        (format!("r={r} ,s={s},i=4096"), E::MalformedNonce),
        (format!("r={r},s=,i=4096"), E::MalformedValue('s')),
        (format!("r={r},s=!,i=4096"), E::MalformedValue('s')),
        (format!("r={r},s={s},i="), E::MalformedValue('i')),
        (format!("r={r},s={s},i=0"), E::MalformedValue('i')),
        (format!("r={r},s={s},i=04096"), E::MalformedValue('i')),
        (format!("r={r},s={s},i=+4096"), E::MalformedValue('i')),
        (format!("r={r},s={s},i=-1"), E::MalformedValue('i')),
        (format!("r={r},s={s},i=4096x"), E::MalformedValue('i')),
        (format!("r={r},s={s},i=1000001"), E::TooManyIterations),
        (format!("r={r},s={s},i=4294967296"), E::TooManyIterations),
        (format!("r={r},s={s},i=99999999999999999999999"), E::TooManyIterations),
    ];
    for (message, expected) in table {
        let refused = started_client().challenge(message.as_bytes()).err();
        assert_eq!(refused, Some(expected), "{message:?}");
    }
}

#[test]
fn iterations_are_accepted_up_to_the_limit() {
    let r = format!("{}more", client_nonce().as_str());
    for iterations in [1, 4096, 600_000, 1_000_000] {
        let message = format!("r={r},s=AA==,i={iterations}");
        let challenge = started_client().challenge(message.as_bytes()).ok().unwrap();
        let expected = ScramParameters {
            salt: Box::new([0]),
            iterations: NonZeroU32::new(iterations).unwrap(),
        };
        assert_eq!(challenge.parameters(), &expected);
    }
    assert_eq!(ITERATIONS_MAX.get(), 1_000_000);
}

#[test]
fn a_server_final_is_believed_only_with_the_right_signature() {
    use ScramError as E;
    let refusal = |text: &str| E::ServerRefused(ServerRefusal::from_value(text.as_bytes()));
    let v = STANDARD.encode([0; 32]);
    let table = [
        (String::new(), E::Empty),
        ("v".to_owned(), E::AttributeExpected('v')),
        ("x=1".to_owned(), E::AttributeExpected('v')),
        ("v=".to_owned(), E::MalformedValue('v')),
        (format!("v={}", STANDARD.encode([0; 20])), E::MalformedValue('v')),
        (format!("v={v},x=1"), E::Garbage),
        (format!("v={v}"), E::ServerSignature),
        ("e=invalid-proof".to_owned(), refusal("invalid-proof")),
        ("e=unknown-user,x=1".to_owned(), refusal("unknown-user")),
        ("e=<script>".to_owned(), refusal("other-error")),
        ("e=".to_owned(), refusal("other-error")),
    ];
    for (message, expected) in table {
        let first = format!("r={}more,s=AA==,i=1", client_nonce().as_str());
        let challenge = started_client().challenge(first.as_bytes()).ok().unwrap();
        let keys = keys(&challenge, "pencil");
        let refused = challenge.respond(&keys).0.finish(message.as_bytes()).err();
        assert_eq!(refused, Some(expected), "{message:?}");
    }
    assert_eq!(refusal("invalid-proof").to_string(), "the server refused: invalid-proof");
}
