//! What stands between a client and the cluster: a network that may lose, delay and repeat requests.

use crate::model::cluster::{Cluster, State};
use crate::model::error::Code;
use crate::model::request::{Request, Response};

/// How long a client waits for an answer before it asks again, in milliseconds. In librdkafka that is
/// `socket.timeout.ms`: a minute, or for a transactional producer a bit less than its transactions may last.
/// But a connection that breaks is noticed at once, and that is how most answers go missing. The model
/// has one time for all, in between.
pub const REQUEST_TIME_OUT_MS: u64 = 1_000;
/// How long a client waits after an error that passes before it asks again, in milliseconds: what
/// librdkafka waits while the transaction before is not complete.
pub const RETRY_WAIT_MS: u64 = 20;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It takes effect and is answered.
    Arrives,
    /// It is answered with this error and has no effect.
    Refused(Code),
    /// It has no effect, and no answer comes.
    Lost,
    /// It takes effect, and no answer comes.
    AnswerLost,
    /// It takes effect twice in a row, since a client that heard nothing asked again; the second answer
    /// is the one that is heard.
    Repeated,
    /// It takes effect after so many milliseconds, and no answer comes.
    Late(u64),
}

/// A way to the cluster. Nothing of the cluster is locked while it is called: it may let others run, who
/// use the same cluster, or not return at all.
pub trait Link {
    /// Decides about a request that is about to be sent, be it for the first time or again.
    fn send(&self, request: &Request) -> Fate;
    /// Returns when the virtual time is `until_ms`, or earlier: the caller looks.
    fn pause(&self, until_ms: u64);
}

/// The way of a client that is alone: everything arrives, and a pause moves virtual time to the next
/// thing that happens by itself.
pub struct Direct {
    cluster: Cluster,
}

impl Direct {
    /// A direct way to `cluster`.
    pub fn new(cluster: &Cluster) -> Direct {
        Direct { cluster: cluster.clone() }
    }
}

impl Link for Direct {
    fn send(&self, _: &Request) -> Fate {
        Fate::Arrives
    }

    fn pause(&self, until_ms: u64) {
        self.cluster.state().advance_once(until_ms);
    }
}

/// A client that uses a link for every call of its port that blocks. Made by the client's `over`.
pub struct Linked<'l, T> {
    pub(super) client: &'l mut T,
    pub(super) link: &'l dyn Link,
}

/// How a question went.
pub(super) struct Asked {
    /// The answer that the client goes by.
    pub answer: Result<Response, Code>,
    /// Some request may have been sent twice, or may still be on its way.
    pub suspect: bool,
}

impl State {
    /// Lets a request meet its fate; `None`: no answer comes.
    fn meet(&mut self, request: &Request, fate: Fate) -> Option<Result<Response, Code>> {
        match fate {
            Fate::Arrives => Some(self.handle(request)),
            Fate::Refused(code) => Some(Err(code)),
            Fate::Lost => None,
            Fate::AnswerLost => {
                // As the client will never know.
                let _ = self.handle(request);
                None
            }
            Fate::Repeated => {
                let _ = self.handle(request);
                Some(self.handle(request))
            }
            Fate::Late(ms) => {
                self.delay(request, ms);
                None
            }
        }
    }
}

impl Cluster {
    /// Asks, and asks again after errors that pass and when no answer comes, until `end_ms`. Then the
    /// answer is the last error, or [`Code::TimedOut`].
    pub(super) fn ask(&self, link: &dyn Link, request: &Request, end_ms: u64) -> Asked {
        let mut suspect = false;
        loop {
            let fate = link.send(request);
            suspect |= !matches!(fate, Fate::Arrives | Fate::Refused(_));
            let (answer, now_ms) = {
                let mut state = self.state();
                (state.meet(request, fate), state.now_ms)
            };
            let (error, wait_ms) = match answer {
                Some(Err(code)) if code.passes() => (code, RETRY_WAIT_MS),
                Some(answer) => return Asked { answer, suspect },
                None => {
                    suspect = true;
                    (Code::TimedOut, REQUEST_TIME_OUT_MS)
                }
            };
            if now_ms >= end_ms {
                return Asked { answer: Err(error), suspect };
            }
            self.pause(link, end_ms.min(now_ms + wait_ms), error == Code::TimedOut);
            if error == Code::TimedOut && self.now_ms() >= end_ms {
                return Asked { answer: Err(error), suspect };
            }
        }
    }

    /// Pauses; `whole`: for the whole time, whatever happens meanwhile.
    fn pause(&self, link: &dyn Link, until_ms: u64, whole: bool) {
        link.pause(until_ms);
        while whole && self.now_ms() < until_ms {
            link.pause(until_ms);
        }
    }
}
