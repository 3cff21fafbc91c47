//! What stands between pgweir and moto: it passes requests on, or answers as AWS does in trouble, and keeps account.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// It goes to moto.
    None,
    /// Two of three are too many, by the number in which they came.
    TwoOfThreeAreTooMany,
    /// All of them are too many.
    TooMany,
    /// No answer comes for as long as the trouble lasts.
    Hangs,
    /// An answer that is none of Secrets Manager's.
    BadGateway,
    /// The connection ends without a word.
    Closes,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Request {
    /// The `SecretId` that was asked for.
    pub secret: String,
    /// When it came.
    pub at: Instant,
    /// Whether it was passed on.
    pub passed: bool,
}

/// A gate, open for as long as the process lives.
pub struct Gate {
    port: u16,
    state: Arc<State>,
}

struct State {
    moto: Mutex<u16>,
    trouble: Mutex<Trouble>,
    /// Secrets for which there is an answer of their own: status and body.
    answers: Mutex<Vec<(String, &'static str, &'static str)>>,
    /// Secrets for which there is none.
    hanging: Mutex<HashSet<String>>,
    requests: Mutex<Vec<Request>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl Gate {
    /// In front of the server on this port.
    pub fn before(moto: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            moto: Mutex::new(moto),
            trouble: Mutex::new(Trouble::None),
            answers: Mutex::default(),
            hanging: Mutex::default(),
            requests: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                // It may have been given up at any point.
                std::thread::spawn(move || drop(state.serve(stream)));
            }
        });
        Self { port, state }
    }

    /// For `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What becomes of requests from now on.
    pub fn set(&self, trouble: Trouble) {
        *self.state.trouble.lock().unwrap() = trouble;
    }

    /// Gives this answer to whoever asks for the secret.
    pub fn answer(&self, secret: &str, status: &'static str, body: &'static str) {
        self.state.answers.lock().unwrap().push((secret.to_owned(), status, body));
    }

    /// Gives no answer to whoever asks for the secret, until [`Self::let_go`].
    pub fn hang(&self, secret: &str) {
        self.state.hanging.lock().unwrap().insert(secret.to_owned());
    }

    /// Nobody hangs any more.
    pub fn let_go(&self) {
        self.state.hanging.lock().unwrap().clear();
    }

    /// What came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// How many different secrets were asked for so far.
    pub fn secrets(&self) -> usize {
        self.requests().into_iter().map(|request| request.secret).collect::<HashSet<_>>().len()
    }

    /// The most requests that were answered at the same time.
    pub fn most_at_once(&self) -> usize {
        self.state.most_under_way.load(Ordering::Acquire)
    }
}

impl State {
    /// Answers one request, and closes.
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let request = read_request(&mut stream)?;
        let body = request.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        let asked: serde_json::Value = serde_json::from_slice(&request[body..]).unwrap_or_default();
        let secret = asked["SecretId"].as_str().unwrap_or_default().to_owned();

        let now = self.under_way.fetch_add(1, Ordering::AcqRel) + 1;
        self.most_under_way.fetch_max(now, Ordering::AcqRel);
        let answer = self.answer_for(&secret, &request);
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        stream.write_all(&answer?)
    }

    fn answer_for(&self, secret: &str, request: &[u8]) -> std::io::Result<Vec<u8>> {
        let answers = self.answers.lock().unwrap().clone();
        let own = answers.into_iter().find(|(of, ..)| of == secret);
        let trouble = *self.trouble.lock().unwrap();
        let number = {
            let mut requests = self.requests.lock().unwrap();
            let number = requests.len();
            let throttled = match trouble {
                Trouble::TwoOfThreeAreTooMany => number % 3 != 2,
                Trouble::None => false,
                _ => true,
            };
            let passed = own.is_none() && !throttled;
            requests.push(Request { secret: secret.to_owned(), at: Instant::now(), passed });
            number
        };
        if let Some((_, status, body)) = own {
            return Ok(json(status, body));
        }
        let hangs = || self.hanging.lock().unwrap().contains(secret);
        if hangs() {
            return Ok(hang_while(hangs));
        }
        match trouble {
            Trouble::None => self.ask_moto(request),
            Trouble::TwoOfThreeAreTooMany if number % 3 == 2 => self.ask_moto(request),
            Trouble::TwoOfThreeAreTooMany | Trouble::TooMany => Ok(json(
                "400 Bad Request",
                r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#,
            )),
            Trouble::BadGateway => Ok(json("502 Bad Gateway", "<html>")),
            Trouble::Closes => Ok(Vec::new()),
            Trouble::Hangs => {
                Ok(hang_while(|| matches!(*self.trouble.lock().unwrap(), Trouble::Hangs)))
            }
        }
    }

    fn ask_moto(&self, request: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut moto = TcpStream::connect(("127.0.0.1", *self.moto.lock().unwrap()))?;
        // It closes when it has answered: the answer is all that comes.
        let ended = request.windows(2).position(|two| two == b"\r\n").map_or(0, |at| at + 2);
        moto.write_all(&request[..ended])?;
        moto.write_all(b"connection: close\r\n")?;
        moto.write_all(&request[ended..])?;
        let mut answer = Vec::new();
        moto.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// No answer, and that late.
fn hang_while(hangs: impl Fn() -> bool) -> Vec<u8> {
    while hangs() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Vec::new()
}

fn json(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

fn read_request(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk)?;
        request.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let length = text.find("\r\n\r\n").map(|head| {
            let value = text[..head].split("\r\ncontent-length:").nth(1).unwrap_or("0");
            let value = value.split("\r\n").next().unwrap_or("0");
            head + 4 + value.trim().parse::<usize>().unwrap_or(0)
        });
        if read == 0 || length.is_some_and(|length| request.len() >= length) {
            return Ok(request);
        }
    }
}
