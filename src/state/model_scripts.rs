//! What the clients of the model write.

use proptest::prelude::*;

/// Something a client writes, mostly whole batches; a name means another thing for each client.
fn some_words() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("s"), Just("t"), Just("pgweir_1"), Just("")];
    let text = prop_oneof![
        4 => Just("SELECT 1"),
        4 => Just("SELECT 2"),
        2 => Just("SELECT own"),
        1 => Just("SELECT syntax"),
        1 => Just("SELECT fails"),
    ];
    let parse =
        (name.clone(), text.clone()).prop_map(|(name, text)| format!("Parse {name}={text}"));
    let of_name = (prop_oneof![6 => Just("Bind"), 2 => Just("Describe"), 1 => Just("Close")], name)
        .prop_map(|(what, name)| format!("{what} {name}"));
    let portal =
        prop_oneof![3 => Just("Execute"), 1 => Just("Describe portal"), 1 => Just("Close portal")];
    let message = prop_oneof![
        3 => parse,
        5 => of_name,
        4 => portal.prop_map(str::to_owned),
        1 => Just("Flush".to_owned()),
        1 => text.clone().prop_map(|text| format!("Query {text}")),
    ];
    let sync = prop_oneof![6 => Just("Sync"), 1 => Just("Flush"), 1 => Just("")];
    let batch = (proptest::collection::vec(message, 1..6), sync)
        .prop_map(|(messages, sync)| format!("{}, {sync}", messages.join(", ")));
    prop_oneof![
        8 => batch,
        2 => text.prop_map(|text| format!("Query {text}")),
        1 => Just("Query BEGIN".to_owned()),
        1 => Just("Query COMMIT".to_owned()),
        1 => Just("Query DISCARD ALL".to_owned()),
        1 => Just("Parse =DEALLOCATE ALL, Bind, Execute, Sync".to_owned()),
        1 => some_copy(),
    ]
}

/// A copy with its data; it fails in some, and an extended one has the `Sync` of libpq in some.
fn some_copy() -> impl Strategy<Value = String> {
    let begin = prop_oneof![
        Just("Query COPY t FROM STDIN"),
        Just("Sync, Parse =COPY t FROM STDIN, Bind, Execute"),
        Just("Sync, Parse =COPY t FROM STDIN, Bind, Execute, Sync"),
    ];
    let data = prop_oneof![Just("CopyData right"), Just("CopyData wrong"), Just("CopyData")];
    let end = prop_oneof![4 => Just("CopyDone"), 1 => Just("CopyFail")];
    (begin, proptest::collection::vec(data, 0..3), end).prop_map(|(begin, data, end)| {
        // Nothing else may run the copy again, without data.
        let sync = if begin.starts_with("Sync") { ", Sync, Close, Sync" } else { "" };
        let words = [&[begin][..], &data, &[end]].concat();
        words.join(", ") + sync
    })
}

/// A script that leaves nothing open.
pub(super) fn some_script() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(some_words(), 1..10).prop_map(|mut script| {
        script.push("Sync, Query COMMIT".to_owned());
        script
    })
}
