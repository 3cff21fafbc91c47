//! RDS IAM authentication tokens: signing one, and reading what one says.
//!
//! A token is the URL, without its scheme, of a presigned GET request for the service `rds-db`; it is sent
//! as a password over TLS. Whoever makes one proves it by the signature, which only AWS can check; what it
//! is for (user, host, time) anybody can read.
//!
//! Pure: the time and the AWS credentials are given.
//!
//! Source: <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::hash::{hmac_sha256, sha256};

/// Seconds for which a token may be used to log in, as RDS has it.
pub const LIFETIME_SECONDS: u64 = 900;

/// Longest token that is read, in bytes. Those with a session token have between one and two KB.
pub const TOKEN_LEN_MAX: usize = 8192;

/// Seconds by which a client's clock may be ahead.
const SKEW_SECONDS: u64 = 300;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "rds-db";

/// AWS credentials to sign with. No `Debug`.
pub struct SigningKeys<'a> {
    /// Names the secret; no secret itself.
    pub access_key_id: &'a str,
    /// The secret.
    pub secret_access_key: &'a str,
    /// Comes with the temporary credentials of a role.
    pub session_token: Option<&'a str>,
}

/// What a token is for.
#[derive(Clone, Copy, Debug)]
pub struct TokenRequest<'a> {
    /// The database's endpoint, as its certificate names it.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The database user.
    pub user: &'a str,
    /// The region that the database is in.
    pub region: &'a str,
}

/// Signs a token that is valid for [`LIFETIME_SECONDS`] from `now`, in seconds since the Unix epoch.
#[must_use]
pub fn sign(request: &TokenRequest<'_>, keys: &SigningKeys<'_>, now: u64) -> Zeroizing<String> {
    let time = timestamp(now);
    let date = time.get(..8).unwrap_or_default();
    let scope = format!("{date}/{}/{SERVICE}/aws4_request", request.region);
    let credential = format!("{}/{scope}", keys.access_key_id);
    let expires = LIFETIME_SECONDS.to_string();
    // In the order of their names, as the canonical request wants them.
    let parameters = [
        ("Action", Some("connect")),
        ("DBUser", Some(request.user)),
        ("X-Amz-Algorithm", Some(ALGORITHM)),
        ("X-Amz-Credential", Some(credential.as_str())),
        ("X-Amz-Date", Some(time.as_str())),
        ("X-Amz-Expires", Some(expires.as_str())),
        ("X-Amz-Security-Token", keys.session_token),
        ("X-Amz-SignedHeaders", Some("host")),
    ];
    let mut query = Zeroizing::new(String::with_capacity(2048));
    for (name, value) in parameters.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        percent_encode(value, &mut query);
    }
    let host = format!("{}:{}", request.host, request.port);
    let empty = hex(&sha256(b""));
    let canonical =
        Zeroizing::new(format!("GET\n/\n{}\nhost:{host}\n\nhost\n{empty}", query.as_str()));
    let canonical_hash = hex(&sha256(canonical.as_bytes()));
    let to_sign = format!("{ALGORITHM}\n{time}\n{scope}\n{canonical_hash}");
    let key = Zeroizing::new(format!("AWS4{}", keys.secret_access_key));
    let mut key = Zeroizing::new(hmac_sha256(key.as_bytes(), &[date.as_bytes()]));
    for part in [request.region, SERVICE, "aws4_request"] {
        *key = hmac_sha256(key.as_slice(), &[part.as_bytes()]);
    }
    let signature = hex(&hmac_sha256(key.as_slice(), &[to_sign.as_bytes()]));
    Zeroizing::new(format!("{host}/?{}&X-Amz-Signature={signature}", query.as_str()))
}

/// What a token says of itself. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClaims {
    /// `host:port` that it was signed for.
    pub endpoint: String,
    /// The database user.
    pub user: String,
    /// When it was signed, in seconds since the Unix epoch.
    pub signed_at: u64,
    /// Seconds from then until it cannot be used any more.
    pub lifetime: u64,
}

/// Why a token is not for this database, user and time. Holds nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is a password, or something else.
    #[error("not an RDS IAM token")]
    NotAToken,
    /// It was signed for another host or port: that of the proxy, perhaps, instead of the database's.
    #[error("the token was signed for another endpoint than the target's")]
    Endpoint,
    /// It was signed for another user.
    #[error("the token was signed for another database user")]
    User,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It was signed later than now.
    #[error("the token comes from the future: a clock is wrong")]
    NotYet,
}

impl TokenClaims {
    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError::NotAToken`].
    pub fn read(token: &[u8]) -> Result<Self, TokenError> {
        Self::parse(token).ok_or(TokenError::NotAToken)
    }

    fn parse(token: &[u8]) -> Option<Self> {
        if token.len() > TOKEN_LEN_MAX {
            return None;
        }
        let (endpoint, query) = std::str::from_utf8(token).ok()?.split_once("/?")?;
        let (mut user, mut action, mut date, mut expires) = (None, None, None, None);
        let (mut algorithm, mut signature) = (None, None);
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=')?;
            let field = match name {
                "Action" => &mut action,
                "DBUser" => &mut user,
                "X-Amz-Algorithm" => &mut algorithm,
                "X-Amz-Date" => &mut date,
                "X-Amz-Expires" => &mut expires,
                "X-Amz-Signature" => &mut signature,
                _ => continue,
            };
            // One that comes twice may be read differently by whoever checks the signature.
            if field.replace(percent_decode(value)?).is_some() {
                return None;
            }
        }
        if action.as_deref() != Some("connect") || algorithm.as_deref() != Some(ALGORITHM) {
            return None;
        }
        signature.filter(|signature| !signature.is_empty())?;
        let lifetime = expires?.parse().ok().filter(|lifetime| *lifetime <= LIFETIME_SECONDS)?;
        Some(Self {
            endpoint: endpoint.to_owned(),
            user: user?,
            signed_at: seconds_of(&date?)?,
            lifetime,
        })
    }

    /// Whether it is for this user of this target, at this time; yields how many seconds it has left.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn check(&self, host: &str, port: u16, user: &str, now: u64) -> Result<u64, TokenError> {
        if !self.endpoint.eq_ignore_ascii_case(&format!("{host}:{port}")) {
            return Err(TokenError::Endpoint);
        }
        if self.user != user {
            return Err(TokenError::User);
        }
        if self.signed_at > now.saturating_add(SKEW_SECONDS) {
            return Err(TokenError::NotYet);
        }
        match self.signed_at.saturating_add(self.lifetime).checked_sub(now) {
            None | Some(0) => Err(TokenError::Expired),
            Some(left) => Ok(left),
        }
    }
}

/// Where a token is kept without being kept.
#[must_use]
pub fn fingerprint(token: &[u8]) -> [u8; 32] {
    sha256(token)
}

/// The region in the name of an RDS endpoint, `<name>.<hash>.<region>.rds.amazonaws.com`.
#[must_use]
pub fn region_of(host: &str) -> Option<&str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let rest = host
        .strip_suffix(".rds.amazonaws.com")
        .or_else(|| host.strip_suffix(".rds.amazonaws.com.cn"))?;
    rest.rsplit('.').next().filter(|region| region.contains('-'))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// RFC 3986: all but the unreserved characters.
fn percent_encode(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

fn percent_decode(value: &str) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

const DAY: u64 = 24 * 60 * 60;

/// `yyyymmddThhmmssZ` of seconds since the Unix epoch.
fn timestamp(now: u64) -> String {
    let (days, second) = (now / DAY, now % DAY);
    let (year, month, day) = civil_from_days(days);
    let (hours, minutes) = (second / 3600, second / 60 % 60);
    format!("{year:04}{month:02}{day:02}T{hours:02}{minutes:02}{:02}Z", second % 60)
}

/// Seconds since the Unix epoch of `yyyymmddThhmmssZ`, from 1970 on.
fn seconds_of(timestamp: &str) -> Option<u64> {
    let digits = timestamp.strip_suffix('Z')?;
    let (date, time) = digits.split_once('T')?;
    let is_number = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(date, 8) || !is_number(time, 6) {
        return None;
    }
    let number = |text: &str, from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(date, 0, 4)?, number(date, 4, 6)?, number(date, 6, 8)?);
    let (hour, minute, second) = (number(time, 0, 2)?, number(time, 2, 4)?, number(time, 4, 6)?);
    let fits = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days_from_civil(year, month, day)? * DAY + hour * 3600 + minute * 60 + second)
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
///
/// Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March, so that the
/// leap day is the last of its year.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`], from 1970 on.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "db.example.us-east-1.rds.amazonaws.com";
    /// 2026-01-02 03:04:05 UTC.
    const NOW: u64 = 1_767_323_045;

    fn token(user: &str, session_token: Option<&str>) -> Zeroizing<String> {
        let keys = SigningKeys {
            access_key_id: "AKIDEXAMPLE",
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            session_token,
        };
        sign(&TokenRequest { host: HOST, port: 5432, user, region: "us-east-1" }, &keys, NOW)
    }

    #[test]
    fn a_signature_is_that_of_the_sdks() {
        for (user, session_token, signature) in [
            ("app user", None, "df06ac394ec75798eb6d07c91b011f495cf269171893f89af9a84484869960ac"),
            (
                "app",
                Some("tok/en+="),
                "137f55186ecc1835cf9e6e54fc9faab316ed12fd47cd6edd2ff850afd825c35b",
            ),
        ] {
            let token = token(user, session_token);
            assert!(token.ends_with(&format!("&X-Amz-Signature={signature}")), "{}", &*token);
        }
        assert!(token("app user", None).starts_with(
            "db.example.us-east-1.rds.amazonaws.com:5432/?Action=connect&DBUser=app%20user&X-Amz-Algorithm="
        ));
    }

    #[test]
    fn a_token_says_what_it_is_for() {
        let claims = TokenClaims::read(token("app user", Some("t")).as_bytes()).unwrap();
        assert_eq!(claims.user, "app user");
        assert_eq!(claims.endpoint, format!("{HOST}:5432"));
        assert_eq!((claims.signed_at, claims.lifetime), (NOW, 900));
    }

    #[test]
    fn a_token_is_bound_to_endpoint_user_and_time() {
        let claims = TokenClaims::read(token("app", None).as_bytes()).unwrap();
        assert_eq!(claims.check(HOST, 5432, "app", NOW + 100), Ok(800));
        assert_eq!(claims.check(&HOST.to_uppercase(), 5432, "app", NOW), Ok(900));
        for (host, port, user, now, error) in [
            ("proxy.example.com", 5432, "app", NOW, TokenError::Endpoint),
            (HOST, 5433, "app", NOW, TokenError::Endpoint),
            (HOST, 5432, "admin", NOW, TokenError::User),
            (HOST, 5432, "app", NOW + 900, TokenError::Expired),
            (HOST, 5432, "app", NOW + 900_000, TokenError::Expired),
            (HOST, 5432, "app", NOW - 301, TokenError::NotYet),
        ] {
            assert_eq!(claims.check(host, port, user, now), Err(error));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = token("app", None);
        let spoilt = [
            String::new(),
            "secret".to_owned(),
            good.replace("Action=connect", "Action=other"),
            good.replace("X-Amz-Expires=900", "X-Amz-Expires=901"),
            good.replace("X-Amz-Expires=900", "X-Amz-Expires=-1"),
            good.replace("DBUser=app", "DBUser=app&DBUser=admin"),
            good.replace("DBUser=app", "DBUser=a%zz"),
            good.replace("DBUser=app", "DBUser=a%+1"),
            good.replace("DBUser=app&", ""),
            good.replace("20260102T030405Z", "20261302T030405Z"),
            good.replace("20260102T030405Z", "2026"),
            format!("{}{}", *good, "x".repeat(TOKEN_LEN_MAX)),
        ];
        for text in spoilt {
            assert_eq!(TokenClaims::read(text.as_bytes()), Err(TokenError::NotAToken), "{text}");
        }
        assert_eq!(TokenClaims::read(b"\xff/?"), Err(TokenError::NotAToken));
    }

    #[test]
    fn the_region_is_in_the_endpoint() {
        for (host, region) in [
            (HOST, Some("us-east-1")),
            ("c.cluster-ro-abc.cn-north-1.rds.amazonaws.com.cn", Some("cn-north-1")),
            ("db.abc.eu-central-1.rds.amazonaws.com.", Some("eu-central-1")),
            ("localhost", None),
            ("rds.amazonaws.com", None),
            ("10.0.0.1", None),
        ] {
            assert_eq!(region_of(host), region, "{host}");
        }
    }

    #[test]
    fn known_days_have_their_dates() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (NOW, "20260102T030405Z"),
            (4_107_542_399, "21000228T235959Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
            assert_eq!(seconds_of(text), Some(seconds));
        }
    }

    proptest! {
        #[test]
        fn every_time_survives_its_text(seconds in 0_u64..253_402_300_800) {
            prop_assert_eq!(seconds_of(&timestamp(seconds)), Some(seconds));
        }

        #[test]
        fn every_user_survives_its_encoding(user in "\\PC{0,63}") {
            let token = token(&user, None);
            prop_assert_eq!(TokenClaims::read(token.as_bytes()).unwrap().user, user);
        }

        #[test]
        fn any_bytes_are_read_or_refused(token in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = TokenClaims::read(&token);
        }
    }
}
