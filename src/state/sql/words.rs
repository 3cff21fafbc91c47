//! Keywords of PostgreSQL, as far as they decide whether a name before `(` is a function.
//!
//! Those of PostgreSQL 15. A keyword added later counts as an ordinary name here: on a server of version 15 it is
//! one, and may be the name of a function.
//!
//! Source: <https://www.postgresql.org/docs/15/sql-keywords-appendix.html>, `pg_get_keywords()`

use super::names::{NameSet, hash};

/// Whether `word`, unquoted and unqualified, can never be the name of a function of a user.
///
/// Those are the reserved words and the ones with a syntax of their own (`coalesce`, `values`, types such as
/// `numeric`). The others may name a function, even `join` and `like`.
///
/// `hash` is that of the word.
pub(super) fn never_calls(word: &[u8], hash: usize) -> bool {
    NEVER_CALL.contains_hashed(word, hash)
}

/// Whether PostgreSQL knows `word`; an alias cannot be one without being quoted or following `AS`.
pub(in crate::state) fn is_keyword(word: &[u8]) -> bool {
    let hash = hash(word);
    NEVER_CALL.contains_hashed(word, hash) || OTHERS.contains_hashed(word, hash)
}

static NEVER_CALL: NameSet<512> = NameSet::new(
    "all analyse analyze and any array as asc asymmetric between bigint bit boolean both case cast char \
     character check coalesce collate column constraint create current_catalog current_date current_role \
     current_time current_timestamp current_user dec decimal default deferrable desc distinct do else end \
     except exists extract false fetch float for foreign from grant greatest group grouping having in \
     initially inout int integer intersect interval into lateral leading least limit localtime localtimestamp \
     national nchar none normalize not null nullif numeric offset on only or order out overlay placing \
     position precision primary real references returning row select session_user setof smallint some \
     substring symmetric table then time timestamp to trailing treat trim true union unique user using values \
     varchar variadic when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest \
     xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable",
);

static OTHERS: NameSet<1024> = NameSet::new(
    "abort absolute access action add admin after aggregate also alter always asensitive assertion assignment \
     at atomic attach attribute authorization backward before begin binary breadth by cache call called \
     cascade cascaded catalog chain characteristics checkpoint class close cluster collation columns comment \
     comments commit committed compression concurrently configuration conflict connection constraints content \
     continue conversion copy cost cross csv cube current current_schema cursor cycle data database day \
     deallocate declare defaults deferred definer delete delimiter delimiters depends depth detach dictionary \
     disable discard document domain double drop each enable encoding encrypted enum escape event exclude \
     excluding exclusive execute explain expression extension external family filter finalize first following \
     force forward freeze full function functions generated global granted groups handler header hold hour \
     identity if ilike immediate immutable implicit import include including increment index indexes inherit \
     inherits inline inner input insensitive insert instead invoker is isnull isolation join key label \
     language large last leakproof left level like listen load local location lock locked logged mapping match \
     matched materialized maxvalue merge method minute minvalue mode month move name names natural new next \
     nfc nfd nfkc nfkd no normalized nothing notify notnull nowait nulls object of off oids old operator \
     option options ordinality others outer over overlaps overriding owned owner parallel parameter parser \
     partial partition passing password plans policy preceding prepare prepared preserve prior privileges \
     procedural procedure procedures program publication quote range read reassign recheck recursive ref \
     referencing refresh reindex relative release rename repeatable replace replica reset restart restrict \
     return returns revoke right role rollback rollup routine routines rows rule savepoint schema schemas \
     scroll search second security sequence sequences serializable server session set sets share show similar \
     simple skip snapshot sql stable standalone start statement statistics stdin stdout storage stored strict \
     strip subscription support sysid system tables tablesample tablespace temp template temporary text ties \
     transaction transform trigger truncate trusted type types uescape unbounded uncommitted unencrypted \
     unknown unlisten unlogged until update vacuum valid validate validator value varying verbose version view \
     views volatile whitespace within without work wrapper write xml year yes zone",
);
