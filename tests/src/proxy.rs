//! A TCP proxy on loopback that can cut connections between a request and its answer.

use anyhow::Result;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How much is read at a time: requests that a [`Cut`] looks for fit.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long a cut waits after the request has gone on: the other side shall have done what was asked.
const BEFORE_ANSWER: Duration = Duration::from_millis(100);

/// What a cut does with the request it was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It does not go on: it was never asked for.
    BeforeRequest,
    /// It goes on, and the answer does not come back: whoever asked cannot know what happened.
    BeforeAnswer,
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Nothing moves; connections stay open.
    Stall,
    /// Connections are closed as soon as they are made.
    Refuse,
}

/// A running proxy to one address. Dropped, it takes no more connections and cuts those it has.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Told when `mode` changes.
    changed: Condvar,
}

struct State {
    to: SocketAddr,
    mode: Mode,
    closed: bool,
    /// What to wait for, what to do then, and how many times.
    armed: Option<(&'static [u8], Cut, u32)>,
    /// Requests that a cut has met.
    cuts: u64,
    /// Both sides of every open connection.
    connections: BTreeMap<u64, [TcpStream; 2]>,
    next: u64,
}

impl Proxy {
    /// Forwards connections to a free loopback port on to `to`, which need not listen yet.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub fn start(to: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = State {
            to,
            mode: Mode::Forward,
            closed: false,
            armed: None,
            cuts: 0,
            connections: BTreeMap::new(),
            next: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept(&listener));
        Ok(Proxy { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections now; new ones are served. Gives how many there were.
    pub fn cut(&self) -> usize {
        self.shared.lock().cut()
    }

    /// The next `times` requests that contain `text` (in one piece, as small requests are sent) end their connection.
    pub fn cut_at(&self, text: &'static [u8], cut: Cut, times: u32) {
        self.shared.lock().armed = Some((text, cut, times));
    }

    /// How many requests [`cut_at`](Self::cut_at) has met so far.
    pub fn cuts(&self) -> u64 {
        self.shared.lock().cuts
    }

    /// Lets nothing move in either direction; connections stay open.
    pub fn stall(&self) {
        self.shared.set(Mode::Stall);
    }

    /// Ends all connections, and each new one at once.
    pub fn refuse(&self) {
        self.shared.set(Mode::Refuse);
        self.cut();
    }

    /// Forwards again, and waits for no request any more.
    pub fn heal(&self) {
        self.shared.lock().armed = None;
        self.shared.set(Mode::Forward);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.refuse();
        // Lets accept() return once more.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn cut(&mut self) -> usize {
        let connections = std::mem::take(&mut self.connections);
        for side in connections.values().flatten() {
            let _ = side.shutdown(Shutdown::Both);
        }
        connections.len()
    }

    /// What is to be done about this piece of a request.
    fn meets(&mut self, piece: &[u8]) -> Option<Cut> {
        let (text, cut, times) = self.armed.as_mut().filter(|(_, _, times)| *times > 0)?;
        if !piece.windows(text.len()).any(|window| window == *text) {
            return None;
        }
        *times -= 1;
        self.cuts += 1;
        Some(*cut)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, mode: Mode) {
        self.lock().mode = mode;
        self.changed.notify_all();
    }

    /// Blocks while nothing may move.
    fn wait_while_stalled(&self) -> MutexGuard<'_, State> {
        let stalled = |state: &mut State| state.mode == Mode::Stall;
        self.changed.wait_while(self.lock(), stalled).unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let state = self.lock();
            let (closed, refuse, to) = (state.closed, state.mode == Mode::Refuse, state.to);
            drop(state);
            if closed {
                return;
            }
            // One that fails or is refused is dropped, which closes it.
            if let (Ok(client), false) = (client, refuse) {
                let shared = Arc::clone(&self);
                std::thread::spawn(move || shared.connect(client, to));
            }
        }
    }

    /// Serves a connection to its end.
    fn connect(self: Arc<Self>, client: TcpStream, to: SocketAddr) {
        let serve = || -> Result<()> {
            let server = TcpStream::connect(to)?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            let number = {
                let mut state = self.lock();
                state.next += 1;
                let number = state.next;
                state.connections.insert(number, [client.try_clone()?, server.try_clone()?]);
                number
            };
            std::thread::scope(|scope| {
                scope.spawn(|| self.forward(&server, &client, |_| None));
                self.forward(&client, &server, |piece| self.lock().meets(piece));
            });
            self.lock().connections.remove(&number);
            Ok(())
        };
        // A connection that cannot be made is closed by dropping the client's side.
        let _ = serve();
    }

    /// Copies until either side ends or a cut is met, then ends both.
    fn forward(&self, from: &TcpStream, to: &TcpStream, meets: impl Fn(&[u8]) -> Option<Cut>) {
        let (mut reader, mut writer) = (from, to);
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(len @ 1..) = reader.read(&mut buffer) {
            drop(self.wait_while_stalled());
            match meets(&buffer[..len]) {
                None => {
                    if writer.write_all(&buffer[..len]).is_err() {
                        break;
                    }
                }
                Some(Cut::BeforeRequest) => break,
                Some(Cut::BeforeAnswer) => {
                    // First the way back, so that no answer is fast enough.
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = writer.write_all(&buffer[..len]);
                    std::thread::sleep(BEFORE_ANSWER);
                    break;
                }
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    /// A server that tells each piece it gets, then answers it with "answer to " and the piece.
    fn server() -> (SocketAddr, Receiver<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, hears) = channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let heard = heard.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 100];
                    while let Ok(len @ 1..) = stream.read(&mut buffer) {
                        let piece = String::from_utf8_lossy(&buffer[..len]).into_owned();
                        let answer = format!("answer to {piece}");
                        let _ = heard.send(piece);
                        let _ = stream.write_all(answer.as_bytes());
                    }
                });
            }
        });
        (address, hears)
    }

    fn ask(stream: &mut TcpStream, request: &str) -> String {
        let _ = stream.write_all(request.as_bytes());
        let mut buffer = [0; 100];
        let len = stream.read(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    #[test]
    fn cuts_where_it_was_told_to_and_not_elsewhere() {
        let (address, hears) = server();
        let proxy = Proxy::start(address).unwrap();
        let connect = || TcpStream::connect(proxy.address()).unwrap();
        let heard = || hears.recv_timeout(Duration::from_secs(30)).unwrap();
        let mut stream = connect();
        proxy.cut_at(b"COMMIT", Cut::BeforeAnswer, 1);
        assert_eq!(ask(&mut stream, "SELECT"), "answer to SELECT");
        assert_eq!(heard(), "SELECT");
        // The way back is cut first: the server hears this one after the client has given it up.
        assert_eq!(ask(&mut stream, "COMMIT 1"), "");
        assert_eq!(heard(), "COMMIT 1");
        assert_eq!(proxy.cuts(), 1);
        // It is spent: the next one passes.
        let mut stream = connect();
        assert_eq!(ask(&mut stream, "COMMIT 2"), "answer to COMMIT 2");
        assert_eq!(heard(), "COMMIT 2");
        proxy.cut_at(b"COMMIT", Cut::BeforeRequest, 1);
        assert_eq!(ask(&mut stream, "COMMIT 3"), "");
        proxy.heal();
        assert_eq!(ask(&mut connect(), "END"), "answer to END");
        assert_eq!(heard(), "END");
    }

    #[test]
    fn stalls_refuses_and_heals() {
        let (address, _hears) = server();
        let proxy = Proxy::start(address).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(ask(&mut stream, "1"), "answer to 1");
        proxy.stall();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(ask(&mut stream, "2"), "");
        proxy.heal();
        stream.set_read_timeout(None).unwrap();
        let mut answer = [0; 11];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer to 2");
        proxy.refuse();
        assert_eq!(ask(&mut stream, "3"), "");
        assert_eq!(ask(&mut TcpStream::connect(proxy.address()).unwrap(), "4"), "");
        proxy.heal();
        let mut open = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(ask(&mut open, "5"), "answer to 5");
        assert_eq!(proxy.cut(), 1);
        drop(open);
    }
}
