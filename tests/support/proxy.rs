//! A proxy before a broker that can hold back a request: the records, or the commit, of a process that is
//! dead or stopped by the time the broker hears of it. It can also cut a connection at a request, as the
//! death of a broker does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// `Produce` in the list of Kafka's requests.
const PRODUCE: [u8; 2] = 0u16.to_be_bytes();
/// `JoinGroup` in the list of Kafka's requests.
const JOIN: [u8; 2] = 11u16.to_be_bytes();
/// `TxnOffsetCommit` in the list of Kafka's requests.
const OFFSETS: [u8; 2] = 28u16.to_be_bytes();
/// `EndTxn` in the list of Kafka's requests.
const END_TRANSACTION: [u8; 2] = 26u16.to_be_bytes();

/// `DescribeConfigs` in the list of Kafka's requests.
const SETTINGS: [u8; 2] = 32u16.to_be_bytes();

/// What the proxy does with the next request of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// The next one of this kind is to be held.
    Armed([u8; 2]),
    /// One is being held.
    Holding,
    /// The connection of the next one of this kind is to be cut.
    Cutting([u8; 2]),
}

/// Listens until the test's process ends.
pub struct Proxy {
    port: u16,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

impl Proxy {
    /// Starts one before the broker's listener on this port of 127.0.0.1.
    pub fn start(broker: u16) -> Proxy {
        let port = super::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the proxy's port");
        let gate = Arc::new((Mutex::new(Gate::Open), Condvar::new()));
        let shared = gate.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", broker)) else { continue };
                client.set_nodelay(true).and(server.set_nodelay(true)).expect("a socket's option");
                let (from, to) =
                    (server.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
                std::thread::spawn(move || answers(from, to));
                let gate = shared.clone();
                std::thread::spawn(move || requests(client, server, &gate));
            }
        });
        Proxy { port, gate }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Holds the next end of a transaction back until [`release`](Proxy::release).
    pub fn hold_next_end(&self) {
        *self.gate.0.lock().expect("not poisoned") = Gate::Armed(END_TRANSACTION);
    }

    /// Holds the next records back, and all that follows on their connection, until
    /// [`release`](Proxy::release).
    pub fn hold_next_records(&self) {
        *self.gate.0.lock().expect("not poisoned") = Gate::Armed(PRODUCE);
    }

    /// Holds the next offsets of a transaction back until [`release`](Proxy::release).
    pub fn hold_next_offsets(&self) {
        *self.gate.0.lock().expect("not poisoned") = Gate::Armed(OFFSETS);
    }

    /// Holds the next attempt to join the group back, and all that follows on its connection, until
    /// [`release`](Proxy::release).
    pub fn hold_next_join(&self) {
        *self.gate.0.lock().expect("not poisoned") = Gate::Armed(JOIN);
    }

    /// Cuts the connection of the next question for the settings of topics.
    pub fn cut_next_settings(&self) {
        *self.gate.0.lock().expect("not poisoned") = Gate::Cutting(SETTINGS);
    }

    /// Whether nothing is left to cut or to hold.
    pub fn is_open(&self) -> bool {
        *self.gate.0.lock().expect("not poisoned") == Gate::Open
    }

    /// Waits until one is held.
    pub fn holds(&self, limit: Duration) {
        let gate = self.gate.0.lock().expect("not poisoned");
        let (gate, _) =
            self.gate.1.wait_timeout_while(gate, limit, |g| *g != Gate::Holding).expect("not poisoned");
        assert_eq!(*gate, Gate::Holding, "there was nothing to hold within {limit:?}");
    }

    /// Lets it go to the broker, whatever has become of its sender.
    pub fn release(&self) {
        *self.gate.0.lock().expect("not poisoned") = Gate::Open;
        self.gate.1.notify_all();
    }
}

/// Copies requests one by one: a length of four bytes, then the request, its kind in the first two.
fn requests(mut client: TcpStream, mut server: TcpStream, gate: &(Mutex<Gate>, Condvar)) {
    let mut length = [0; 4];
    while client.read_exact(&mut length).is_ok() {
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        if client.read_exact(&mut request).is_err() {
            break;
        }
        if !pass(&request, gate)
            || server.write_all(&length).and_then(|()| server.write_all(&request)).is_err()
        {
            break;
        }
    }
    // The client is gone. The broker learns it only now, after all that the client had sent.
    server.shutdown(std::net::Shutdown::Both).ok();
}

/// Whether the request goes on to the broker; waits at the gate first if that is armed for such a one.
fn pass(request: &[u8], (gate, changed): &(Mutex<Gate>, Condvar)) -> bool {
    let mut state = gate.lock().expect("not poisoned");
    match *state {
        Gate::Armed(kind) if request.starts_with(&kind) => {
            *state = Gate::Holding;
            changed.notify_all();
            drop(changed.wait_while(state, |g| *g == Gate::Holding).expect("not poisoned"));
            true
        }
        Gate::Cutting(kind) if request.starts_with(&kind) => {
            *state = Gate::Open;
            false
        }
        _ => true,
    }
}

fn answers(mut server: TcpStream, mut client: TcpStream) {
    // Ends with either side; a dead client must not end the other direction.
    if std::io::copy(&mut server, &mut client).is_ok() {
        client.shutdown(std::net::Shutdown::Both).ok();
    }
}
