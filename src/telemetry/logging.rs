//! Logs on standard error, and the end of the process when a thread panics.

use std::io::IsTerminal;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::settings::LogFormat;

/// Sends the logs of this process to standard error. `filter` is a level (`info`) or directives as
/// `tracing_subscriber` reads them (`info,thalweg::kafka=debug`).
///
/// Fails if the filter cannot be read, or if logs go somewhere already.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!(
            "the log filter {filter:?} cannot be read ({error}); write a level (error, warn, info, debug, \
             trace) or levels per module, such as \"info,thalweg::kafka=debug\""
        )
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It would tell on the same stderr, and panic if that does not take it: the log's disk may be full.
    let builder = builder.log_internal_errors(false);
    let result = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| format!("logging is set up already: {error}"))
}

/// How long the exit after a panic may take before the process is killed from within.
const EXIT_LIMIT: Duration = Duration::from_secs(2);

/// From now on a panic on any thread is logged and ends the process with exit code 1, before anything
/// is unwound: an actor that dies in silence would leave a worker that looks alive, and what is not
/// committed is lost in either case, which costs nothing.
pub fn end_process_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        // What `panic!` carries: a literal, or a text that was formatted.
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = message.unwrap_or("a panic without a message");
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            place,
            backtrace = %std::backtrace::Backtrace::capture(),
            "panic: {message}; the process ends here, and a restart goes on from what is committed. \
             Please report this"
        );
        // Exit handlers of C and C++ libraries run while other threads still use them. Should they
        // hang, the process must end all the same.
        #[expect(clippy::disallowed_methods, reason = "nothing is left that another thread could do")]
        let killer = || {
            std::thread::sleep(EXIT_LIMIT);
            std::process::abort()
        };
        if std::thread::Builder::new().name("exit-limit".into()).spawn(killer).is_err() {
            std::process::abort();
        }
        std::process::exit(1)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::run_ignored_test;

    #[test]
    fn a_panic_on_any_thread_ends_the_process_with_exit_code_1() {
        let output = run_ignored_test("telemetry::logging::tests::panics_on_a_thread", &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let line = text.lines().find(|line| line.contains("panic: the cause")).unwrap();
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(json["thread"], "actor");
        assert_eq!(json["level"], "ERROR");
        assert!(json["place"].as_str().unwrap().contains("logging.rs"), "{line}");
    }

    #[test]
    #[ignore = "the other half of a_panic_on_any_thread_ends_the_process_with_exit_code_1"]
    fn panics_on_a_thread() {
        init_logging(LogFormat::Json, "info").unwrap();
        end_process_on_panic();
        let actor = std::thread::Builder::new().name("actor".into()).spawn(|| panic!("the {}", "cause"));
        // The panic is not passed on by joining: the process must be gone before.
        let _ = actor.unwrap().join();
    }

    #[test]
    fn a_log_that_nobody_takes_does_not_end_the_process() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "telemetry::logging::tests::logs_and_exits"])
            .stderr(full)
            .stdout(std::process::Stdio::null())
            .status();
        assert_eq!(status.unwrap().code(), Some(7));
    }

    #[test]
    #[ignore = "the other half of a_log_that_nobody_takes_does_not_end_the_process"]
    fn logs_and_exits() {
        init_logging(LogFormat::Text, "info").unwrap();
        end_process_on_panic();
        tracing::error!("nobody reads this");
        std::process::exit(7)
    }

    #[test]
    fn a_wrong_filter_says_what_to_write() {
        let error = init_logging(LogFormat::Text, "thalweg=loud").unwrap_err();
        assert!(error.contains("thalweg=loud") && error.contains("debug"), "{error}");
    }
}
