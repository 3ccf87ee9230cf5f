//! What stands between a client and the cluster: a network that may lose, delay and repeat requests.

use crate::model::error::Code;

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
