//! What a client is told when it is let in: the settings of its session, its cancel key, and that
//! it may go on. Touches a server only if nobody with such settings was welcomed before.

use super::handshake::{Greeted, farewell, turn_out};
use super::registry::Activity;
use super::serve::Client;
use super::{Rejection, Worker};
use crate::pool::seat::Seat;
use crate::pool::{BorrowError, Cause, Lease, Patience, Pool};
use crate::server::settings::ApplyError;
use crate::server::{CloseReason, Reported};
use crate::state::settings::{SESSION_AUTHORIZATION, Settings};
use crate::telemetry::clock;
use crate::telemetry::metrics::GaugeKind;
use crate::wire::encode;
use crate::wire::response::Severity;
use std::sync::Arc;
use std::time::Instant;

/// Longest `application_name` that PostgreSQL keeps whole.
const NAME_MAX: usize = 63;

/// Welcomes the client, who has been coming in since `begun`. `owed` goes out in the same write.
///
/// # Errors
/// [`Rejection`]; the client was told why.
pub async fn welcome(
    mut greeted: Greeted,
    mut owed: Vec<u8>,
    worker: &Arc<Worker>,
    begun: Instant,
    deadline: tokio::time::Instant,
) -> Result<Box<Client>, Rejection> {
    let prepared = tokio::select! {
        prepared = tokio::time::timeout_at(deadline, prepare(&mut greeted, worker)) => prepared,
        () = worker.shared.logins_end() => {
            return turn_out(&mut greeted.stream, worker, &owed).await;
        }
    };
    let prepared = prepared.unwrap_or_else(|_| {
        Err(BorrowError::Timeout {
            waited: clock::now().saturating_duration_since(begun),
            cause: Cause::LoginTime,
        })
    });
    let (pool, baseline, told) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let words = error.to_message(Severity::Fatal);
            farewell(&mut greeted.stream, worker, &owed, &words).await;
            return Err(Rejection::Database);
        }
    };
    let shared = &worker.shared;
    let (process_id, entered) = shared
        .registry
        .enter(worker.index, greeted.long_keys, clock::now())
        .ok_or(Rejection::Malformed)?;
    let tls = greeted.stream.is_tls();
    let gauge = worker.shard.enter(if tls {
        GaugeKind::ClientConnectionsTls
    } else {
        GaugeKind::ClientConnectionsNoTls
    });
    let reported = told.reported();
    for (name, value) in reported {
        encode::parameter_status(&mut owed, name, value);
    }
    encode::backend_key_data(&mut owed, process_id, entered.secret());
    owed.extend_from_slice(&encode::READY_IDLE);
    let worker = Arc::clone(worker);
    let client = Client::new(greeted, pool, baseline, worker, process_id, entered, gauge);
    let mut client = Box::new(client);
    let values = reported.iter().map(|(name, value)| (&**name, &**value));
    client.learn_of_server(values);
    client.learned = told.into_learned();
    let written = tokio::time::timeout_at(deadline, client.stream.write_all(&owed)).await;
    written.map_err(|_| Rejection::Timeout)?.map_err(|_| Rejection::Malformed)?;
    client.mark(Activity::Idle, clock::now());
    Ok(client)
}

/// The settings that a client is told.
enum Told {
    /// They are plain.
    Foreseen(Reported),
    /// A server was asked.
    Learned(Arc<Reported>),
}

impl Told {
    /// What a client with `settings` is told where fresh servers report `baseline`, as far as that is known.
    fn of(pool: &Pool, baseline: &Arc<Reported>, settings: &Settings) -> Option<Self> {
        let learned = || pool.learned(baseline, settings).map(Self::Learned);
        foreseen(baseline, settings).map(Self::Foreseen).or_else(learned)
    }

    fn reported(&self) -> &Reported {
        match self {
            Self::Foreseen(reported) => reported,
            Self::Learned(reported) => reported,
        }
    }

    fn into_learned(self) -> Option<Arc<Reported>> {
        match self {
            Self::Foreseen(_) => None,
            Self::Learned(reported) => Some(reported),
        }
    }
}

async fn prepare(
    greeted: &mut Greeted,
    worker: &Arc<Worker>,
) -> Result<(Arc<Pool>, Arc<Reported>, Told), BorrowError> {
    let pool = worker.shared.pools.pool(&greeted.database, &greeted.user)?;
    let tried = take_session_authorization(&mut greeted.settings);
    loop {
        let Some(baseline) = pool.baseline() else {
            // The first client of a pool: opening a server tells what its sessions look like.
            let lease = borrow(&pool, worker, &Settings::default()).await?;
            lease.give_back(clock::now());
            continue;
        };
        if let Some(tried) = &tried
            && pool.learned(&baseline, tried).is_none()
            && learn(&pool, worker, &baseline, tried).await?.is_none()
        {
            continue;
        }
        if let Some(told) = Told::of(&pool, &baseline, &greeted.settings) {
            return Ok((pool, baseline, told));
        }
        // Where the defaults have changed meanwhile, it is asked once more.
        if let Some(reported) = learn(&pool, worker, &baseline, &greeted.settings).await? {
            return Ok((pool, baseline, Told::Learned(reported)));
        }
    }
}

/// Whom the session was to act as: PostgreSQL looks at connect whether it may, and has it act as the login.
fn take_session_authorization(settings: &mut Arc<Settings>) -> Option<Arc<Settings>> {
    let tried = settings.get(SESSION_AUTHORIZATION)?;
    let tried = Settings::new([(SESSION_AUTHORIZATION, tried)]).ok()?;
    *settings = Arc::new(settings.without(SESSION_AUTHORIZATION));
    Some(Arc::new(tried))
}

/// What a client with these startup settings is told of them, as far as that is known.
pub(super) fn reported_at_login(pool: &Pool, settings: &Settings) -> Option<Reported> {
    Told::of(pool, &pool.baseline()?, settings).map(|told| told.reported().clone())
}

/// What a server would report with `settings`, where that is plain without asking one.
pub(super) fn foreseen(baseline: &Reported, settings: &Settings) -> Option<Reported> {
    let mut reported = baseline.clone();
    for (name, value) in settings.iter() {
        let plain = match name {
            "application_name" => {
                value.len() <= NAME_MAX && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            }
            "client_encoding" => value == "UTF8",
            "extra_float_digits" => {
                value.parse::<i8>().is_ok_and(|digits| (-15..=3).contains(&digits))
            }
            _ => false,
        };
        if !plain {
            return None;
        }
        report(&mut reported, name, value);
    }
    Some(reported)
}

/// Changes the value of a setting that is reported at all.
fn report(reported: &mut Reported, name: &str, value: &str) {
    if let Some(entry) = reported.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        entry.1 = value.into();
    }
}

/// Servers that are asked what they make of a client's settings, while each of them ends instead.
const SERVERS_ASKED: usize = 3;

/// Asks a server what it makes of `settings`, once for all clients that want the same. `None` if it may be of other
/// defaults than `baseline`.
async fn learn(
    pool: &Arc<Pool>,
    worker: &Arc<Worker>,
    baseline: &Arc<Reported>,
    settings: &Arc<Settings>,
) -> Result<Option<Arc<Reported>>, BorrowError> {
    for _ in 0..SERVERS_ASKED {
        let mut asked = Asked(Some(borrow(pool, worker, settings).await?));
        let Some(lease) = &mut asked.0 else { break };
        let answer = lease.server.reapply(settings).await;
        let Some(lease) = asked.0.take() else { break };
        match answer {
            Ok(changed) => {
                lease.give_back(clock::now());
                let mut reported = Reported::clone(baseline);
                for (name, value) in &changed {
                    report(&mut reported, name, value);
                }
                let reported = Arc::new(reported);
                let known = pool.learn(baseline, settings, Arc::clone(&reported));
                return Ok(known.then_some(reported));
            }
            Err(ApplyError::Refused(refusal)) => {
                lease.close(CloseReason::NotClean);
                return Err(BorrowError::Refused(refusal));
            }
            // It had ended, or was told to, before it was asked: another one knows as well.
            Err(ApplyError::Io(_)) => lease.close(CloseReason::ClosedByServer),
        }
    }
    Err(BorrowError::Away { cause: "the server closed the connection" })
}

/// A server that owes an answer. Dropped, as when the login takes too long, it is closed.
struct Asked(Option<Lease>);

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            lease.close(CloseReason::NotClean);
        }
    }
}

/// Borrows a server while the client logs in.
async fn borrow(
    pool: &Arc<Pool>,
    worker: &Arc<Worker>,
    settings: &Settings,
) -> Result<Lease, BorrowError> {
    let waiting = Waiting { seat: Arc::new(Seat::default()), pool };
    loop {
        if let Some(lease) =
            pool.borrow(&waiting.seat, worker.index, settings, Patience::Login, clock::now())?
        {
            return Ok(lease);
        }
        let came = std::future::poll_fn(|cx| {
            waiting.seat.settle(cx.waker());
            pool.poll_wait(cx, &waiting.seat, worker.index)
        });
        if let Some(lease) = came.await? {
            return Ok(lease);
        }
    }
}

/// Leaves the queue when the login is given up.
struct Waiting<'a> {
    seat: Arc<Seat>,
    pool: &'a Arc<Pool>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.leave(&self.seat, clock::now());
    }
}
