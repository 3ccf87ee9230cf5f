//! The HTTP server of a process: `/livez`, `/readyz` and `/metrics`.
//!
//! It has a thread of its own and reads what [`Health`] and [`Metrics`] hold: it never waits for a
//! worker, and no worker waits for it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};

use crate::telemetry::health::Complaint;
use crate::telemetry::{Health, Metrics, metrics};

/// Requests that run when the server is told to stop have this long, in seconds.
const SHUTDOWN_LIMIT_S: u64 = 1;

/// Connections at once; more wait in the kernel.
const CONNECTIONS_MAX: usize = 256;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServeError(String);

/// A running server. It ends with [`stop`](Server::stop) or with the process.
pub struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<io::Result<()>>,
}

/// Listens on `listen` (`host:port`; port 0 is any free one) and answers from now on.
pub fn serve(listen: &str, metrics: Arc<Metrics>, health: Arc<Health>) -> Result<Server, ServeError> {
    let listener = TcpListener::bind(listen).map_err(|error| bind_error(listen, &error))?;
    let address = listener.local_addr().map_err(|error| bind_error(listen, &error))?;
    let (started, has_started) = sync_channel(1);
    let run = move || {
        actix_web::rt::System::new().block_on(async move {
            let server = HttpServer::new(move || {
                App::new()
                    .app_data(web::Data::from(Arc::clone(&metrics)))
                    .app_data(web::Data::from(Arc::clone(&health)))
                    .route("/livez", web::get().to(livez))
                    .route("/readyz", web::get().to(readyz))
                    .route("/metrics", web::get().to(scrape))
                    .default_service(web::to(not_found))
            })
            .workers(1)
            .max_connections(CONNECTIONS_MAX)
            .disable_signals()
            .shutdown_timeout(SHUTDOWN_LIMIT_S)
            .listen(listener)?
            .run();
            // Its receiver waits for it below.
            let _ = started.send(server.handle());
            server.await
        })
    };
    let no_thread = |error: io::Error| ServeError(format!("cannot start the HTTP server: {error}"));
    let thread = std::thread::Builder::new().name("http".into()).spawn(run).map_err(no_thread)?;
    match has_started.recv() {
        Ok(handle) => Ok(Server { address, handle, thread }),
        Err(_) => {
            let error = thread.join().map_or_else(
                |_| io::Error::other("it panicked"),
                |result| match result {
                    Ok(()) => io::Error::other("it ended at once"),
                    Err(error) => error,
                },
            );
            Err(no_thread(error))
        }
    }
}

fn bind_error(listen: &str, error: &io::Error) -> ServeError {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there, perhaps another application of this machine: give this one an \
             address of its own"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need rights that this user has not",
        _ => "write host:port, such as 127.0.0.1:9100",
    };
    ServeError(format!(
        "cannot listen on {listen} for HTTP: {error}; {advice} (--listen, or http.listen in the settings)"
    ))
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers what has been asked and ends. Blocks, at most a little more than a second.
    pub fn stop(self) {
        // The command is on its way when this returns; its future only tells that it was obeyed.
        drop(self.handle.stop(true));
        match self.thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the HTTP server ended with {error}"),
            Err(_) => tracing::warn!("the HTTP server's thread panicked"),
        }
    }
}

async fn livez(health: web::Data<Health>) -> HttpResponse {
    answer("live", health.stuck())
}

async fn readyz(health: web::Data<Health>) -> HttpResponse {
    answer("ready", health.not_ready())
}

/// `{"ready": true}`, or 503 and `{"ready": false, "workers": [{"worker", "phase", "detail"}]}`.
fn answer(question: &str, workers: Vec<Complaint>) -> HttpResponse {
    if workers.is_empty() {
        HttpResponse::Ok().json(serde_json::json!({ question: true }))
    } else {
        HttpResponse::ServiceUnavailable().json(serde_json::json!({ question: false, "workers": workers }))
    }
}

async fn scrape(metrics: web::Data<Metrics>) -> HttpResponse {
    match metrics.encode() {
        Ok(text) => HttpResponse::Ok().content_type(metrics::CONTENT_TYPE).body(text),
        Err(error) => {
            HttpResponse::InternalServerError().body(format!("the metrics cannot be written: {error}"))
        }
    }
}

async fn not_found() -> HttpResponse {
    HttpResponse::NotFound().body("there are /livez, /readyz and /metrics\n")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::telemetry::monotonic;
    use crate::worker::Phase;

    fn server() -> (Server, Arc<Metrics>, Arc<Health>) {
        let health = Arc::new(Health::new(1, monotonic()));
        let metrics = Arc::new(Metrics::new(Arc::clone(&health), monotonic()));
        let server = serve("127.0.0.1:0", Arc::clone(&metrics), Arc::clone(&health)).unwrap();
        (server, metrics, health)
    }

    /// The whole answer to a request, read until the server closes.
    fn ask(address: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn it_answers_and_stops() {
        let (server, metrics, health) = server();
        let address = server.address();
        let answer = ask(address, "GET", "/livez");
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(r#"{"live":true}"#), "{answer}");

        let answer = ask(address, "GET", "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains(r#""phase":"starting""#) && answer.contains(r#""ready":false"#), "{answer}");
        health.set(0, Phase::Restoring, "orders[0]: 5 of 9 records");
        let answer = ask(address, "GET", "/readyz");
        assert!(answer.contains("orders[0]: 5 of 9 records"), "{answer}");
        health.set(0, Phase::Running, "");
        let answer = ask(address, "GET", "/readyz");
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(r#"{"ready":true}"#), "{answer}");

        metrics.records_out("revenue").inc_by(3);
        let answer = ask(address, "GET", "/metrics");
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
        assert!(answer.contains(r#"thalweg_records_out_total{topic="revenue"} 3"#), "{answer}");
        assert!(ask(address, "GET", "/").starts_with("HTTP/1.1 404 "));

        server.stop();
        TcpListener::bind(address).expect("the address is free again");
    }

    #[test]
    fn a_process_that_is_stuck_is_not_live() {
        let time = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let clock = Arc::clone(&time);
        let health =
            Arc::new(Health::new(1, Arc::new(move || clock.load(std::sync::atomic::Ordering::Relaxed))));
        let metrics = Arc::new(Metrics::new(Arc::clone(&health), monotonic()));
        let server = serve("127.0.0.1:0", metrics, health).unwrap();
        time.store(61_000, std::sync::atomic::Ordering::Relaxed);
        let answer = ask(server.address(), "GET", "/livez");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("61 s"), "{answer}");
        server.stop();
    }

    #[test]
    fn an_address_that_cannot_be_had_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let health = Arc::new(Health::new(1, monotonic()));
        let metrics = Arc::new(Metrics::new(Arc::clone(&health), monotonic()));
        for (listen, advice) in [
            (address.as_str(), "another process listens there"),
            ("192.0.2.1:9100", "no such address"),
            ("9100", "host:port"),
        ] {
            let error = serve(listen, Arc::clone(&metrics), Arc::clone(&health)).err().unwrap().to_string();
            assert!(
                error.contains(listen) && error.contains(advice) && error.contains("--listen"),
                "{error}"
            );
        }
    }
}
