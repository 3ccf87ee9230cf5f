//! Brokers: the one that all tests share, and ones of their own for tests that kill it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{free_port, kafka, proxy::Proxy, tail, thalweg::signal, wait_for};

/// The password of every user of [`Broker::start_with_rights`].
pub const PASSWORD: &str = "open-sesame";

const START_LIMIT: Duration = Duration::from_secs(90);

/// The address of the broker that `make test` started for all tests. There is no test without one.
pub fn shared() -> String {
    std::env::var("THALWEG_TEST_BOOTSTRAP").expect(
        "these tests need a broker: run `make test`, or `make kafka` and then the test again with \
         THALWEG_TEST_BOOTSTRAP=127.0.0.1:9092",
    )
}

/// A broker process of the test's own. Dropping it kills it.
pub struct Broker {
    dir: PathBuf,
    port: u16,
    controller_port: u16,
    apart: bool,
    /// The ports of a second listener: its own, and the proxy's that it sends clients to.
    proxied: Option<(u16, u16)>,
    process: Option<Child>,
}

impl Broker {
    /// Starts one with its data under `dir`; returns when it serves.
    pub fn start(dir: &Path) -> Broker {
        Broker::start_as(dir, false, None)
    }

    /// As [`start`](Broker::start), out of reach of a Ctrl-C in this terminal: for a program that ends it
    /// in order then.
    pub fn start_apart(dir: &Path) -> Broker {
        Broker::start_as(dir, true, None)
    }

    /// As [`start`](Broker::start), with a proxy before it; who connects to that stays behind it.
    pub fn start_with_proxy(dir: &Path) -> (Broker, Proxy) {
        let listener = free_port();
        let proxy = Proxy::start(listener);
        (Broker::start_as(dir, false, Some((listener, proxy.port()))), proxy)
    }

    /// As [`start`](Broker::start), with a second listener whose clients have only the rights that their
    /// users have been granted (see [`rights`](super::rights)). Whoever comes by the first one may do
    /// everything. Also returns the second one's address.
    pub fn start_with_rights(dir: &Path, users: &[&str]) -> (Broker, String) {
        let mut broker = Broker::new(dir, false, None);
        let restricted = free_port();
        std::fs::create_dir_all(dir).expect("the broker's folder");
        std::fs::write(dir.join("more.properties"), broker.rights_config(restricted, users))
            .expect("the broker's settings");
        broker.restart();
        (broker, format!("127.0.0.1:{restricted}"))
    }

    /// As [`start`](Broker::start), for a broker that is killed and started again. Its controller fences it when
    /// its old session ends, seconds after the start; the markers of a transaction that timed out before
    /// that are dropped then ("Couldn't find leader endpoint", seen with 4.3.1), its offsets stay undecided,
    /// and the next commit of the same producer decides them wrongly. So this one looks for transactions
    /// that have timed out only when it is surely there again.
    pub fn start_to_be_killed(dir: &Path) -> Broker {
        std::fs::create_dir_all(dir).expect("the broker's folder");
        let later = "transaction.abort.timed.out.transaction.cleanup.interval.ms=20000\n";
        std::fs::write(dir.join("more.properties"), later).expect("the broker's settings");
        Broker::start(dir)
    }

    fn rights_config(&self, restricted: u16, users: &[&str]) -> String {
        let (open, controller) = (self.port, self.controller_port);
        let users: String = users.iter().map(|user| format!(" user_{user}=\"{PASSWORD}\"")).collect();
        format!(
            "listeners=PLAINTEXT://127.0.0.1:{open},CONTROLLER://127.0.0.1:{controller},\
             RIGHTS://127.0.0.1:{restricted}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{open},RIGHTS://127.0.0.1:{restricted}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,RIGHTS:SASL_PLAINTEXT\n\
             listener.name.rights.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.rights.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required{users};\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\n"
        )
    }

    fn new(dir: &Path, apart: bool, proxied: Option<(u16, u16)>) -> Broker {
        let (port, controller_port) = (free_port(), free_port());
        Broker { dir: dir.to_path_buf(), port, controller_port, apart, proxied, process: None }
    }

    fn start_as(dir: &Path, apart: bool, proxied: Option<(u16, u16)>) -> Broker {
        let mut broker = Broker::new(dir, apart, proxied);
        broker.restart();
        broker
    }

    /// Its address.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The folder of its data: one folder per partition in it.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Starts it again with the same data, on the same port.
    pub fn restart(&mut self) {
        self.spawn();
        let bootstrap = self.bootstrap();
        wait_for("the broker to serve", START_LIMIT, || {
            let process = self.process.as_mut().expect("just started");
            if let Some(status) = process.try_wait().expect("it is our child") {
                panic!("the broker ended at its start with {status}; its log:\n{}", self.log());
            }
            kafka::serves(&bootstrap).then_some(())
        });
    }

    /// Starts the process and does not wait until it serves.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        std::fs::create_dir_all(&self.dir).expect("the broker's folder");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/kafka.sh");
        let out = std::fs::File::create(self.dir.join("start.log")).expect("the broker's start log");
        let mut command = Command::new(script);
        if self.apart {
            command.process_group(0);
        }
        let process = command
            .arg("run")
            .arg(&self.dir)
            .args([self.port.to_string(), self.controller_port.to_string()])
            .args(self.proxied.iter().flat_map(|(listener, proxy)| [listener.to_string(), proxy.to_string()]))
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out)
            .spawn()
            .expect("tests/support/kafka.sh starts");
        self.process = Some(process);
    }

    /// Kills it as a power cut would, but for the page cache.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("SIGKILL to the broker");
            process.wait().expect("the broker's end");
        }
    }

    /// SIGSTOP: its connections stay and nobody answers.
    pub fn pause(&self) -> u32 {
        let pid = self.pid().expect("the broker runs");
        signal(pid, "STOP");
        pid
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        signal(self.process.as_ref().expect("the broker runs").id(), "CONT");
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(process.id(), "TERM");
            process.wait().expect("the broker's end");
        }
    }

    /// The end of what it logged, for messages.
    pub fn log(&self) -> String {
        let mut text = String::new();
        for name in ["start.log", "stdout.log", "server.log"] {
            text += &std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        }
        tail(&text, 6_000).to_string()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
